"""Deletes the expired commits of a table's Delta log, and says which logs are longer than they should be.

The audit needs the notes in the log. So this package's newest commit and all later ones stay, however old they are.
Delta's own code deletes the expired commits before them.
"""

import logging
import re
import time
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import SparkSession

from bronze.delta.log import open_log
from bronze.delta.log_files import write_checkpoint
from bronze.delta.tables import read_table_state
from bronze.runtime.paths import find_class
from bronze.schema import CLEANED_BY

log = logging.getLogger(__name__)

_DAY = 86_400_000
_HOUR = 3_600_000
_FILE = re.compile(r"/(\d{20})\.([^;/]+); isDirectory=false; [^}]*?modification_time=(\d+)")
# This many intervals without a checkpoint mean more than one failed attempt.
LATE = 3


@dataclass(frozen=True, order=True)
class LogFile:
    """A file of the log: version, rest of the name, and modification time (ms)."""

    version: int
    suffix: str
    modified: int


@dataclass(frozen=True)
class TableHistory:
    """The log of a table.

    Attributes:
        files: Its files, by version.
        checkpoint: Version of the newest checkpoint; -1 if there is none.
        interval: Commits between two checkpoints, from the table's properties.
        retention: Milliseconds that commits are kept, from the table's properties.
        is_kept: Whether the table's owner keeps the whole log.
    """

    files: tuple[LogFile, ...]
    checkpoint: int
    interval: int
    retention: int
    is_kept: bool

    def find_retention(self, kept: int | None, now: int) -> int:
        """Return the retention in milliseconds that also keeps the commits from a version on."""
        # Delta stops before the first file that is not older. The extra hour covers the time until Delta reads the log.
        oldest = min((file.modified for file in self.files if kept is not None and file.version >= kept), default=now)
        return max(self.retention, now - oldest + _HOUR)

    @property
    def pending(self) -> int:
        """Number of commits after the checkpoint, which every reader must read to open the table."""
        return self.files[-1].version - self.checkpoint if self.files else 0

    def find_end(self, cutoff: int) -> int:
        """Find the newest checkpoint such that all files before it are older than a time (ms) and can be deleted.

        Follows Delta's rule: a version counts as younger than the previous one, and files that a checkpoint needs stay.
        """
        last, end = LogFile(-1, "", -1), 0
        for file in self.files:
            if file.version > last.version and file.modified <= last.modified:
                file = replace(file, modified=last.modified + 1)
            elif file.suffix.startswith("checkpoint.") and last.modified <= cutoff:
                end = file.version
            last = file
        return end

    def count_commits(self, end: int) -> int:
        """Count the commits below a version."""
        return sum(file.version < end and file.suffix == "json" for file in self.files)


def read_history(spark: SparkSession, path: str) -> TableHistory:
    """Read the state of a table's log, on any file system.

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
    # As one text: a log may have thousands of files, and each call into the JVM is slow.
    return parse_listing(find_class(spark, "org.apache.commons.lang3.ArrayUtils").toString(statuses))


def parse_listing(text: str) -> tuple[LogFile, ...]:
    """Parse the files of a log, by version, from the text of Hadoop's file statuses."""
    found = (LogFile(int(version), suffix, int(modified)) for version, suffix, modified in _FILE.findall(text))
    return tuple(sorted(found))


def tidy_log(spark: SparkSession, path: str) -> int:
    """Write a due checkpoint, and delete the commits beyond the table's retention.

    Args:
        spark: Session.
        path: The table.

    Returns:
        Number of deleted commits.
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
    """Return a Scala ``Option[Long]``; py4j would pass a number that fits into 32 bits as an Integer."""
    companion = getattr(find_class(spark, "scala.collection.StringOps$"), "MODULE$")
    return getattr(companion, "toLongOption$extension")(str(value))


def keep_newest(spark: SparkSession, path: str) -> int | None:
    """Find the version from which on a table's log must be kept: that of this package's newest commit.

    Even if that commit is older than the retention, it and all later ones are kept.

    Args:
        spark: Session.
        path: The table.

    Returns:
        The version; None if the log has no commit of this package.
    """
    state = read_table_state(path, "output-path", spark)
    return state.found.version if state and state.found.version >= 0 else None


@dataclass(frozen=True)
class LogState:
    """How long the log of a table is.

    Attributes:
        path: The table.
        pending: Commits since its last checkpoint.
        expired: Commits that ``maintain`` would delete.
        interval: Commits between two checkpoints, from the table's properties.
        retention: Days that commits are kept, from the table's properties.
    """

    path: str
    pending: int
    expired: int
    interval: int
    retention: float

    @property
    def notes(self) -> list[str]:
        """Remedies if the log is longer than it should be."""
        notes = []
        if self.pending >= LATE * self.interval:
            notes.append(
                f"the log of {self.path} has {self.pending:,} commits since its last checkpoint, but "
                f"delta.checkpointInterval is {self.interval}; run bronze maintain"
            )
        if self.expired:
            notes.append(
                f"the log of {self.path} has {self.expired:,} commits that are older than delta.logRetentionDuration, "
                f"{self.retention:,g} days; run bronze maintain"
            )
        return notes


def measure_log(spark: SparkSession, path: str) -> LogState:
    """Measure how long the log of a table is.

    Args:
        spark: Session.
        path: The table.
    """
    history = read_history(spark, path)
    expired = 0 if history.is_kept else _count_expired(spark, path, history)
    return LogState(path, history.pending, expired, history.interval, history.retention / _DAY)


def _count_expired(spark: SparkSession, path: str, history: TableHistory) -> int:
    """Count the commits that ``maintain`` would delete; looks up the commits to keep only if any are expired."""
    end = history.find_end(_find_cutoff(history, None))
    return history.count_commits(end and history.find_end(_find_cutoff(history, keep_newest(spark, path))))


def _find_cutoff(history: TableHistory, kept: int | None) -> int:
    """Return the time before which commits can be deleted: in whole days, like Delta, plus a day for maintain."""
    now = _now()
    return (now - history.find_retention(kept, now)) // _DAY * _DAY - _DAY


def _now() -> int:
    return time.time_ns() // 1_000_000
