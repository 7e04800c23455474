"""Writes checkpoints of a table's Delta log.

delta-spark writes the checkpoints. deltalake's checkpoints cannot be used: it parses some retentions differently, so
that tombstones are missing, and it does not update Hadoop's checksum of ``_last_checkpoint``. Delta's own
``checkpoint`` also cleans the log; this module only writes the checkpoint.
"""

import json
import logging
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

from pyspark.sql import SparkSession

from bronze.delta.log import open_log
from bronze.runtime.paths import find_class

log = logging.getLogger(__name__)

_INTERVAL = 10  # Delta's default
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*(parquet|json)")


class LogCheckpoints:
    """Writes a checkpoint of a local table's log when enough commits follow the last one, by any writer.

    It counts commits, because versions that are multiples of the interval may all belong to other writers.
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
        """Write a checkpoint if it is due; a failure logs a warning, and the next attempt follows an interval later.

        Costs one comparison until an interval of commits follows the last known checkpoint.

        Args:
            spark: Session.
            version: Version of the table.
            interval: Commits between two checkpoints, from ``read_interval``.

        Returns:
            Whether a checkpoint was written.
        """
        if version - self._last < interval:
            return False
        self._last = max(self._last, find_checkpoint(self._path))
        if version - self._last < interval:
            return False
        self._last = version
        try:
            write_checkpoint(spark, self._path)
        except Exception as error:  # the batch is committed, and readers do not need the checkpoint
            log.warning("cannot write a checkpoint of the log of %s at version %d: %s", self._path, version, error)
            return False
        return True


def read_interval(properties: Mapping[str, str]) -> int:
    """Return the number of commits between two checkpoints.

    Args:
        properties: Properties of the table.
    """
    interval = properties.get("delta.checkpointInterval", "")
    return int(interval) if interval.isdecimal() and int(interval) else _INTERVAL


def write_checkpoint(spark: SparkSession, path: str) -> None:
    """Write a checkpoint of a table's newest version, without a log clean-up.

    Args:
        spark: Session.
        path: The table.

    Raises:
        Py4JJavaError: The checkpoint cannot be written.
    """
    delta_log, snapshot = open_log(spark, path)
    written = delta_log.writeCheckpointFiles(snapshot, find_class(spark, "scala.Option").empty())
    delta_log.writeLastCheckpointFile(delta_log, written, True)
    log.info("Wrote a checkpoint of the log of %s at version %d", path, snapshot.version())


def find_checkpoint(path: str) -> int:
    """Return the version of a local table's newest checkpoint; -1 if there is none."""
    folder = Path(path, "_delta_log")
    try:
        return int(json.loads((folder / "_last_checkpoint").read_bytes())["version"])
    except (OSError, ValueError, KeyError, TypeError):  # no checkpoint yet, or no readable pointer to one
        found = (_CHECKPOINT.fullmatch(file.name) for file in folder.glob("*.checkpoint.*"))
        return max((int(name[1]) for name in found if name), default=-1)


def remove_stale_checksum(path: str) -> None:
    """Remove Hadoop's checksum of a local table's ``_last_checkpoint`` if it does not match.

    Earlier versions wrote checkpoints with deltalake, which replaces the file but not its checksum. Spark then warns of
    a corrupted file whenever it opens the table.
    """
    folder = Path(path, "_delta_log")
    checksum = folder / "._last_checkpoint.crc"
    try:
        if not _fits(checksum.read_bytes(), (folder / "_last_checkpoint").read_bytes()):
            checksum.unlink(missing_ok=True)
            log.info("Removed %s: it does not match _last_checkpoint", checksum)
    except OSError as error:
        log.debug("Cannot check the checksum: %s", error)


def _fits(checksum: bytes, content: bytes) -> bool:
    """Whether Hadoop's checksum file matches a content: a header with the chunk size, then a CRC32 per chunk."""
    head, size, sums = checksum[:4], int.from_bytes(checksum[4:8]), checksum[8:]
    if head != b"crc\0" or not size:
        return False
    chunks = (content[start : start + size] for start in range(0, len(content), size))
    return sums == b"".join(zlib.crc32(chunk).to_bytes(4) for chunk in chunks)
