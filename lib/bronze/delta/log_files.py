"""The files of a table's Delta log: its checkpoints, and which commits its retention no longer keeps.

Checkpoints are written by delta-spark when they are due. deltalake writes checkpoints too, but it reads some spellings
of a retention otherwise than delta-spark does, so that tombstones are missing in them, and it leaves Hadoop's checksum
of ``_last_checkpoint`` as it was. Delta's own ``checkpoint`` also cleans the log; here it is only written.

The log says what each batch read, which the audit needs. So the newest commit of this package and all that follow it
stay, however old they are; expired ones before are deleted by Delta's own code.
"""

import json
import logging
import re
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pyspark.sql import SparkSession

from bronze.delta.log import open_log
from bronze.delta.tables import read_table_state
from bronze.runtime.paths import find_class, to_local_path
from bronze.schema import CLEANED_BY

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


_DAY = 86_400_000
_HOUR = 3_600_000
_FILE = re.compile(r"/(\d{20})\.([^;/]+); isDirectory=false; [^}]*?modification_time=(\d+)")
# So many times the interval without a checkpoint is more than a writer that tries again.
_LATE = 3


class LogFile(NamedTuple):
    """A file of the log: version, what follows it in the name, and when it was written (ms)."""

    version: int
    suffix: str
    modified: int


@dataclass(frozen=True)
class TableHistory:
    """The log of a table.

    Attributes:
        files: Its files, by version.
        checkpoint: Version of the newest checkpoint; -1 where there is none.
        interval: Commits between two checkpoints, as the table says.
        retention: Milliseconds that commits are kept, as the table says.
        is_kept: Whether the table's owner keeps all of it.
    """

    files: tuple[LogFile, ...]
    checkpoint: int
    interval: int
    retention: int
    is_kept: bool

    def find_retention(self, kept: int | None, now: int) -> int:
        """Milliseconds that commits are kept so that those from a version on are, too."""
        # Delta stops before the first file that is not older. The hour is for what passes until it looks.
        oldest = min((file.modified for file in self.files if kept is not None and file.version >= kept), default=now)
        return max(self.retention, now - oldest + _HOUR)

    @property
    def pending(self) -> int:
        """How many commits must be read to open the table, after its checkpoint."""
        return self.files[-1].version - self.checkpoint if self.files else 0

    def find_end(self, cutoff: int) -> int:
        """The checkpoint that all files before it are older than a time (ms); what is below its version can go.

        As Delta decides, which takes a version for younger than the one before, and keeps what a checkpoint needs.
        """
        last, end = LogFile(-1, "", -1), 0
        for file in self.files:
            if file.version > last.version and file.modified <= last.modified:
                file = file._replace(modified=last.modified + 1)
            elif file.suffix.startswith("checkpoint.") and last.modified <= cutoff:
                end = file.version
            last = file
        return end

    def count_commits(self, end: int) -> int:
        """How many commits are below a version."""
        return sum(file.version < end and file.suffix == "json" for file in self.files)


def read_history(spark: SparkSession, path: str) -> TableHistory:
    """Read what there is of a table's log, on any file system.

    Args:
        spark: Session.
        path: The table.
    """
    delta_log, snapshot = open_log(spark, path)
    metadata, files = snapshot.metadata(), _list_files(spark, path)
    cleaned_by = metadata.configuration().get(CLEANED_BY)
    is_ours = cleaned_by.isDefined() and cleaned_by.get() == "maintain"
    return TableHistory(
        files,
        max((file.version for file in files if file.suffix.startswith("checkpoint.")), default=-1),
        delta_log.checkpointInterval(metadata),
        delta_log.deltaRetentionMillis(metadata),
        is_kept=not delta_log.enableExpiredLogCleanup(metadata) and not is_ours,
    )


def _list_files(spark: SparkSession, path: str) -> tuple[LogFile, ...]:
    folder = find_class(spark, "org.apache.hadoop.fs.Path")(path, "_delta_log")
    statuses = folder.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()).listStatus(folder)
    # As one text: a log may have many thousand files, and each call into the JVM takes its time.
    return parse_listing(find_class(spark, "org.apache.commons.lang3.ArrayUtils").toString(statuses))


def parse_listing(text: str) -> tuple[LogFile, ...]:
    """The files of a log, by version, from Hadoop's statuses as text."""
    found = (LogFile(int(version), suffix, int(modified)) for version, suffix, modified in _FILE.findall(text))
    return tuple(sorted(found))


def prepare_log(spark: SparkSession, path: str) -> None:
    """What is to be done to the log of a table before maintenance commits to it.

    Args:
        spark: Session.
        path: The table.
    """
    if local := to_local_path(path):
        remove_stale_checksum(local)


def tidy_log(spark: SparkSession, path: str) -> int:
    """Write the checkpoint that is due, and delete the commits that the table's retention no longer keeps.

    Args:
        spark: Session.
        path: The table.

    Returns:
        How many commits were deleted.
    """
    history = read_history(spark, path)
    if history.pending >= history.interval:
        write_checkpoint(spark, path)
    if history.is_kept:
        log.info("The log of %s is kept: delta.enableExpiredLogCleanup is false", path)
        return 0
    return _clean(spark, path, keep_newest(spark, path))


def _clean(spark: SparkSession, path: str, kept: int | None) -> int:
    """Let Delta clean the log below a version."""
    before = read_history(spark, path)
    delta_log, snapshot = open_log(spark, path)
    retention = before.find_retention(kept, _now())
    nothing, by_days = find_class(spark, "scala.Option").empty(), "cleanUpExpiredLogs$default$4"
    delta_log.cleanUpExpiredLogs(snapshot, nothing, _to_long_option(spark, retention), getattr(delta_log, by_days)())
    left = read_history(spark, path).files
    deleted = before.count_commits(left[0].version)
    log.info("Cleaned the log of %s: %s commits", path, f"{deleted:,}")
    return deleted


def _to_long_option(spark: SparkSession, value: int) -> Any:
    """A Scala ``Option[Long]``; a number that fits into 32 bits would reach the JVM as an Integer."""
    companion = getattr(find_class(spark, "scala.collection.StringOps$"), "MODULE$")
    return getattr(companion, "toLongOption$extension")(str(value))


def keep_newest(spark: SparkSession, path: str) -> int | None:
    """From which version on the log of a table must be kept: that of the newest commit of this package.

    Where that commit is older than the retention, the log is kept from it on, however long it gets.

    Args:
        spark: Session.
        path: The table.

    Returns:
        The version; None where the log has no commit of this package.
    """
    state = read_table_state(path, "output-path", spark)
    return state.found.version if state and state.found.version >= 0 else None


def list_log_notes(spark: SparkSession, paths: Sequence[str]) -> list[str]:
    """What is to be done about logs that are longer than they should be.

    Args:
        spark: Session.
        paths: The tables.
    """
    return [note for path in paths for note in _list_notes(spark, path)]


def _list_notes(spark: SparkSession, path: str) -> list[str]:
    history, notes = read_history(spark, path), []
    if history.pending >= _LATE * history.interval:
        notes.append(
            f"the log of {path} has {history.pending:,} commits since its last checkpoint, where "
            f"delta.checkpointInterval is {history.interval}; run bronze maintain"
        )
    if not history.is_kept and (expired := _count_expired(spark, path, history)):
        notes.append(
            f"the log of {path} has {expired:,} commits that are older than delta.logRetentionDuration, "
            f"{history.retention / _DAY:,g} days; run bronze maintain"
        )
    return notes


def _count_expired(spark: SparkSession, path: str, history: TableHistory) -> int:
    """How many commits ``maintain`` would delete; which must be kept is looked up only where there are any."""
    end = history.find_end(_find_cutoff(history, None))
    return history.count_commits(end and history.find_end(_find_cutoff(history, keep_newest(spark, path))))


def _find_cutoff(history: TableHistory, kept: int | None) -> int:
    """What is older can go: by days, as Delta cleans, and with a day in which maintain may run."""
    now = _now()
    return (now - history.find_retention(kept, now)) // _DAY * _DAY - _DAY


def _now() -> int:
    return time.time_ns() // 1_000_000
