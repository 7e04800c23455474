"""``bronze maintain``: compact closed hours, clean the logs, run VACUUM. Safe to run next to a live stream.

OPTIMIZE changes neither data nor the properties that a writer checks, so its commits do not conflict with the stream's.
Other conflicts, such as two maintenance runs, are retried. A run can be stopped at any moment and run again.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import pandas as pd
from delta.exceptions import (
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    ConcurrentTransactionException,
    ConcurrentWriteException,
    MetadataChangedException,
)
from py4j.protocol import Py4JJavaError
from pyspark.errors import IllegalArgumentException
from pyspark.sql import SparkSession

from bronze.config import MaintainConfig
from bronze.delta.ddl import quote_path
from bronze.delta.log import parse_commit, read_commit
from bronze.delta.log_cleanup import tidy_log
from bronze.delta.log_files import remove_stale_checksum
from bronze.delta.statistics import count_files
from bronze.delta.tables import CheckedTable
from bronze.errors import BronzeError, ExitCode, InvalidOptionError
from bronze.pipeline import Pipeline
from bronze.runtime.object_store import check_log_store, find_storage
from bronze.runtime.paths import open_file_system
from bronze.runtime.retry import ATTEMPTS, Answer, retry_conflicts
from bronze.runtime.spark_errors import explain_failures
from bronze.writers import choose_writer

log = logging.getLogger(__name__)
_PAUSE = (0.2, 0.5)
_RENEW_SECONDS = 24 * 3600  # well within the retention of any log
_MB = 1024 * 1024
_CONFLICTS = (  # they have no common base class
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    ConcurrentTransactionException,
    ConcurrentWriteException,
    MetadataChangedException,
)


@dataclass
class MaintenanceSummary:
    """The result of a run.

    Attributes:
        compacted: Compacted partitions.
        files_before: Small files before the compaction.
        files_after: Files after the compaction.
        cleaned: Commits deleted from the logs because they were older than the retention.
        unreferenced: Files that VACUUM deleted, or would delete.
        unreferenced_bytes: Their size.
    """

    compacted: int = 0
    files_before: int = 0
    files_after: int = 0
    cleaned: int = 0
    unreferenced: int = 0
    unreferenced_bytes: int = 0


def main(config: MaintainConfig) -> int:
    """The command ``bronze maintain``: run, and print what was done."""
    summary = maintain(config)
    size = f"{summary.unreferenced_bytes / _MB:,.1f} MB"
    print(f"Compacted {summary.compacted:,} partitions: {summary.files_before:,} files became {summary.files_after:,}")
    print(f"Cleaned the logs: deleted {summary.cleaned:,} commits older than delta.logRetentionDuration")
    if config.vacuum:
        print(f"VACUUM deleted {summary.unreferenced:,} files, {size}")
    else:
        print(f"VACUUM would delete {summary.unreferenced:,} files, {size}; --vacuum deletes them")
    return ExitCode.DONE


def maintain(config: MaintainConfig, spark: SparkSession | None = None) -> MaintenanceSummary:
    """Maintain both tables: compact, clean the logs and run VACUUM, in this order.

    Args:
        config: The tables, and the steps to run.
        spark: Session to use; a new local one when not given.

    Raises:
        ConfigError: There is no bronze table. A missing DLQ is skipped.
        BronzeError: Other writers changed the same files in every attempt.
    """
    if config.delete_replayed_days:
        log.warning(
            "--delete-replayed-days is ignored and will be removed in the next release: the DLQ keeps all its records, "
            "because the audit reads them"
        )
    if config.max_minutes:
        log.warning(
            "--max-minutes is ignored and will be removed in the next release: a run can be stopped at will instead"
        )
    with explain_failures(), Pipeline.open(config, spark) as pipeline:
        pipeline.check_exists("output-path")
        return _maintain(pipeline.spark, config, [table for table in pipeline.tables if table.state])


def _maintain(spark: SparkSession, config: MaintainConfig, tables: list[CheckedTable]) -> MaintenanceSummary:
    summary = MaintenanceSummary()
    for table in tables:
        check_log_store(spark, table.path)
        remove_stale_checksum(table.path)
        _renew_note(table)
    if config.optimize_after_hours:
        # By default, OPTIMIZE rewrites all files below 1 GB, even for a single late record.
        with override_setting(spark, "spark.databricks.delta.optimize.minFileSize", str(config.small_file_mb * _MB)):
            for table in tables:
                _compact(spark, config, table, summary)
    for table in tables:
        summary.cleaned += tidy_log(spark, table.path)
        found = vacuum_table(spark, table.path, config.retention_hours, config.force, config.vacuum)
        summary.unreferenced += found.files
        summary.unreferenced_bytes += found.bytes
    return summary


def _renew_note(table: CheckedTable) -> None:
    """Repeat the information of our newest commit in a new one, before any writer's log clean-up can remove it."""
    assert table.state is not None
    found = table.state.found
    text = read_commit(find_storage(table.path), found.version) if found.note and found.is_newest else None
    if text and time.time() - parse_commit(text).timestamp / 1000 > _RENEW_SECONDS:
        choose_writer("auto", [table]).renew()


def _compact(spark: SparkSession, config: MaintainConfig, table: CheckedTable, summary: MaintenanceSummary) -> None:
    """Compact a table's closed partitions, starting with those that have the most small files."""
    before = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=config.optimize_after_hours)
    counted = count_files(spark, table.path, table.spec, config.small_file_mb)
    partitions = select_closed(counted, before).to_dict("records")
    for partition in partitions:
        condition = format_partition({name: partition[name] for name in table.spec.partition_columns})
        metrics = retry(table.path, partial(_optimize, spark, table.path, condition))
        log.info("Compacted %s where %s: %d files became %d", table.path, condition, *metrics)
        summary.compacted += 1
        summary.files_before += metrics[0]
        summary.files_after += metrics[1]


def select_closed(partitions: pd.DataFrame, before: datetime) -> pd.DataFrame:
    """The partitions that ended before a time and have two or more small files, those with the most first.

    A partition without an event time never ends; it counts as closed if its last write is before that time.

    Args:
        partitions: From ``count_files``.
        before: Naive UTC.
    """
    names = [name for name in partitions.columns if name in ("_event_date", "_dlq_date")]
    dates = pd.to_datetime(partitions[names[0]])
    hours = partitions["_event_hour"].astype(float) + 1 if "_event_hour" in partitions else 24.0
    ends = (dates + pd.to_timedelta(hours, unit="h")).fillna(partitions["modified"])
    return partitions[(ends <= before) & (partitions["small"] >= 2)].sort_values("small", ascending=False)


def format_partition(values: dict[str, str | None]) -> str:
    """The condition that selects a partition, ``_event_date = '2026-01-31' AND _event_hour = '23'``."""
    return " AND ".join(f"{n} IS NULL" if v is None or pd.isna(v) else f"{n} = '{v}'" for n, v in values.items())


def _optimize(spark: SparkSession, path: str, condition: str) -> tuple[int, int]:
    """Compact a partition; return the number of files removed and added."""
    row = spark.sql(f"OPTIMIZE {quote_path(path)} WHERE {condition}").first()  # DeltaTable.optimize() does not quote
    assert row is not None
    return row["metrics"]["numFilesRemoved"], row["metrics"]["numFilesAdded"]


def retry(path: str, step: Callable[[], Answer]) -> Answer:
    """Run a step, and retry it if another commit conflicts.

    Raises:
        BronzeError: Other writers committed first in every attempt.
    """

    def log_conflict(attempt: int, conflict: Exception) -> None:
        log.info("Another writer changed %s, attempt %d: %s", path, attempt, type(conflict).__name__)

    try:
        return retry_conflicts(lambda _: step(), _CONFLICTS, log_conflict, _PAUSE)
    except _CONFLICTS:
        raise BronzeError(
            f"could not maintain {path} in {ATTEMPTS} attempts, because other writers changed the same files",
            hint="nothing was lost, run the same command again",
        ) from None


_RETENTION_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
_SETTINGS = {
    # Record START and END of VACUUM in the table's history, with the number of deleted files.
    "spark.databricks.delta.vacuum.logging.enabled": "true",
    # Otherwise Delta ignores the given hours and logs a warning.
    "spark.databricks.delta.vacuum.retentionWindowIgnore.enabled": "false",
}
_LISTED = 10


@dataclass(frozen=True)
class Unreferenced:
    """Number and total size of files that no version within the retention refers to."""

    files: int
    bytes: int


def vacuum_table(spark: SparkSession, path: str, retention_hours: int, force: bool, delete: bool) -> Unreferenced:
    """List the files that VACUUM would delete, and delete them if requested.

    Files of a running batch are not referenced yet; only their age protects them, hence the minimum retention.

    Args:
        spark: Session.
        path: The table.
        retention_hours: Younger files are kept; 0 uses the table's setting.
        force: Whether the retention may be below the table's setting.
        delete: Whether to delete the files.

    Raises:
        InvalidOptionError: The retention is below the table's setting, and ``force`` is false.
    """
    statement = f"VACUUM {quote_path(path)}" + (f" RETAIN {retention_hours} HOURS" if retention_hours else "")
    settings = {**_SETTINGS, _RETENTION_CHECK: str(not force).lower()}
    with ExitStack() as stack:
        for name, value in settings.items():
            stack.enter_context(override_setting(spark, name, value))
        try:
            listed = [row[0] for row in spark.sql(f"{statement} DRY RUN").collect()]
        except IllegalArgumentException:
            expected = f"at least delta.deletedFileRetentionDuration of {path}, or --force"
            raise InvalidOptionError("retention_hours", retention_hours, expected) from None
        sizes = _read_sizes(spark, listed)
        found = Unreferenced(len(sizes), sum(sizes.values()))
        if delete and listed:
            spark.sql(statement)
    log.info("VACUUM %s: %s files, %s bytes", path, f"{found.files:,}", f"{found.bytes:,}")
    for file in list(sizes)[:_LISTED]:
        log.info("  %s", file.removeprefix(path))
    return found


@contextmanager
def override_setting(spark: SparkSession, name: str, value: str) -> Iterator[None]:
    """Change a setting of the session within a block."""
    before = spark.conf.get(name, None)
    spark.conf.set(name, value)
    try:
        yield
    finally:
        spark.conf.unset(name) if before is None else spark.conf.set(name, before)


def _read_sizes(spark: SparkSession, paths: list[str]) -> dict[str, int]:
    """Sizes of files in bytes. VACUUM also lists folders, which it deletes if they are empty."""
    sizes: dict[str, int] = {}
    for path in paths:
        with suppress(Py4JJavaError):  # the file was deleted since the listing
            file_system, hadoop_path = open_file_system(spark, path)
            status = file_system.getFileStatus(hadoop_path)
            if status.isFile():
                sizes[path] = status.getLen()
    return sizes
