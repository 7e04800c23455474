"""Checkpoints of a table's Delta log, written by delta-spark when they are due.

deltalake writes checkpoints too, but it reads some spellings of a retention otherwise than delta-spark does, so that
tombstones are missing in them, and it leaves Hadoop's checksum of ``_last_checkpoint`` as it was. Delta's own
``checkpoint`` also cleans the log; here it is only written.
"""

import json
import logging
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

_INTERVAL = 10  # Delta's own
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*(parquet|json)")


class LogCheckpoints:
    """Writes a checkpoint of one local table's log when enough commits came since the last one, whoever wrote it.

    Commits are counted, because versions that divide by the interval may all be those of other writers.
    """

    def __init__(self, path: str):
        """
        Args:
            path: The table, on the local file system.
        """
        self._path = path
        self._last = -1
        remove_stale_checksum(path)

    def write_if_due(self, spark: SparkSession, version: int, interval: int = _INTERVAL) -> bool:
        """Write a checkpoint when it is due; a failure is only warned of, and tried again an interval later.

        Costs a comparison while fewer commits than the interval were made since the last one that is known.

        Args:
            spark: Session.
            version: Version of the table.
            interval: Commits between two checkpoints, as ``read_interval`` has it.

        Returns:
            Whether one was written.
        """
        if version - self._last < interval:
            return False
        self._last = max(self._last, find_checkpoint(self._path))
        if version - self._last < interval:
            return False
        self._last = version
        try:
            write_checkpoint(spark, self._path)
        except Exception as error:  # the commits are made, and a table can be read without it
            log.warning("No checkpoint of the log of %s was written at version %d: %s", self._path, version, error)
            return False
        return True


def read_interval(properties: Mapping[str, str]) -> int:
    """How many commits a table wants between two checkpoints.

    Args:
        properties: Of the table.
    """
    interval = properties.get("delta.checkpointInterval", "")
    return int(interval) if interval.isdecimal() and int(interval) else _INTERVAL


def write_checkpoint(spark: SparkSession, path: str) -> None:
    """Write a checkpoint of a table's newest version; nothing is cleaned.

    Args:
        spark: Session.
        path: The table.

    Raises:
        Py4JJavaError: It could not be written.
    """
    delta_log, snapshot = open_log(spark, path)
    written = delta_log.writeCheckpointFiles(snapshot, find_class(spark, "scala.Option").empty())
    delta_log.writeLastCheckpointFile(delta_log, written, True)
    log.info("Wrote a checkpoint of the log of %s at version %d", path, snapshot.version())


def open_log(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Delta's own ``DeltaLog`` of a table, and its newest ``Snapshot``."""
    delta_log = find_class(spark, "org.apache.spark.sql.delta.DeltaLog")
    opened = delta_log.forTableWithSnapshot(spark._jsparkSession, path)
    return opened._1(), opened._2()


def find_class(spark: SparkSession, name: str) -> Any:
    """A class of the JVM, to call its static methods."""
    found: Any = spark._jvm
    for part in name.split("."):
        found = getattr(found, part)
    return found


def find_checkpoint(path: str) -> int:
    """Version of a local table's newest checkpoint; -1 where there is none."""
    folder = Path(path, "_delta_log")
    try:
        return int(json.loads((folder / "_last_checkpoint").read_bytes())["version"])
    except (OSError, ValueError, KeyError, TypeError):  # no checkpoint yet, or none that the pointer says
        found = (_CHECKPOINT.fullmatch(file.name) for file in folder.glob("*.checkpoint.*"))
        return max((int(name[1]) for name in found if name), default=-1)


def remove_stale_checksum(path: str) -> None:
    """Remove the checksum that Hadoop keeps of a local table's ``_last_checkpoint`` where it does not fit.

    Earlier versions wrote checkpoints by deltalake, which replaces the file but not the checksum beside it. Each Spark
    that opens such a table warns of a corrupted file.
    """
    folder = Path(path, "_delta_log")
    checksum = folder / "._last_checkpoint.crc"
    try:
        if not _fits(checksum.read_bytes(), (folder / "_last_checkpoint").read_bytes()):
            checksum.unlink(missing_ok=True)
            log.info("Removed %s: it is not of the _last_checkpoint that is there", checksum)
    except OSError as error:
        log.debug("No checksum was checked: %s", error)


def _fits(checksum: bytes, content: bytes) -> bool:
    """Whether Hadoop's checksums are of a content: a head with the size of its chunks, then a CRC32 of each."""
    head, size, sums = checksum[:4], int.from_bytes(checksum[4:8]), checksum[8:]
    if head != b"crc\0" or not size:
        return False
    chunks = (content[start : start + size] for start in range(0, len(content), size))
    return sums == b"".join(zlib.crc32(chunk).to_bytes(4) for chunk in chunks)
