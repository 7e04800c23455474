"""Cleaning of a table's Delta log: which commits its retention no longer keeps, and their deletion by Delta's own code.

The log says what each batch read, which the audit needs. So the newest commit of this package and all that follow it
stay, however old they are.
"""

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pyspark.sql import SparkSession

from bronze.log_checkpoint import find_class, open_log, remove_stale_checksum, write_checkpoint
from bronze.schema import CLEANED_BY
from bronze.tables import read_table_state, to_local_path

log = logging.getLogger(__name__)
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


def describe_logs(spark: SparkSession, paths: Sequence[str]) -> list[str]:
    """What is to be done about logs that are longer than they should be.

    Args:
        spark: Session.
        paths: The tables.
    """
    return [note for path in paths for note in _describe_log(spark, path)]


def _describe_log(spark: SparkSession, path: str) -> list[str]:
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
