"""Writes checkpoints of a table's Delta log.

delta-spark writes the checkpoints. deltalake's checkpoints cannot be used: it parses some retentions differently, so
that tombstones are missing, and it does not update Hadoop's checksum of ``_last_checkpoint``. Delta's own
``checkpoint`` also cleans the log; this module only writes the checkpoint.
"""

import logging
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.delta.log import changed_table_error, find_checkpoint, open_log, read_commit
from bronze.runtime.object_store import find_storage
from bronze.runtime.paths import find_class, open_file_system, to_local_path

log = logging.getLogger(__name__)

_INTERVAL = 10  # Delta's default


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
        BronzeError: The table was deleted or replaced meanwhile. A checkpoint is a whole table to its readers, so
            that of a table that is gone does not stay.
    """
    delta_log, snapshot = open_log(spark, path)
    table, version = find_storage(path), snapshot.version()
    if (commit := read_commit(table, version)) is None:
        raise changed_table_error(path)
    written = delta_log.writeCheckpointFiles(snapshot, find_class(spark, "scala.Option").empty())
    delta_log.writeLastCheckpointFile(delta_log, written, True)
    if read_commit(table, version) != commit:
        _remove_checkpoint(spark, path, version)
        raise changed_table_error(path)
    log.info("Wrote a checkpoint of the log of %s at version %d", path, version)


def _remove_checkpoint(spark: SparkSession, path: str, version: int) -> None:
    """Remove a checkpoint with the pointer to it, and the folders if nothing else is in them."""
    file_system, folder = open_file_system(spark, f"{path}/_delta_log")
    files = [status.getPath() for status in file_system.listStatus(folder)]
    written = [file for file in files if file.getName().startswith((f"{version:020}.checkpoint.", "_last_checkpoint"))]
    for place in (*written, folder, folder.getParent()):
        with suppress(Py4JJavaError):  # a folder that is not empty
            file_system.delete(place, False)


def try_checkpoint(spark: SparkSession, path: str, version: int, interval: int) -> None:
    """Write a checkpoint, unless any writer has written one less than an interval of commits before a version.

    It counts commits, because versions that are multiples of the interval may all belong to other writers. A failure
    is only logged, because the commits are there and readers do not need the checkpoint.
    """
    try:
        if version - find_checkpoint(path) >= interval:
            write_checkpoint(spark, path)
    except Exception as error:
        log.warning("cannot write a checkpoint of the log of %s: %s", path, error)


def remove_stale_checksum(path: str) -> None:
    """Remove Hadoop's checksum of ``_last_checkpoint`` if it does not match; only local tables have one.

    Earlier versions wrote checkpoints with deltalake, which replaces the file but not its checksum. Spark then warns of
    a corrupted file whenever it opens the table.
    """
    if (local := to_local_path(path)) is None:
        return
    folder = Path(local, "_delta_log")
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
