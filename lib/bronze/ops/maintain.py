"""``bronze maintain``: compact closed hours, clean the logs, vacuum. A live stream may run meanwhile.

OPTIMIZE commits without changing data or what a writer checked of the table, so its commits and the stream's pass each
other. What still conflicts, such as two maintenance runs, is tried again. A run can be stopped at any moment and run
again.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar

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
from bronze.delta.log_files import prepare_log, tidy_log
from bronze.delta.statistics import count_files
from bronze.delta.tables import CheckedTable
from bronze.errors import BronzeError, ExitCode, InvalidOptionError
from bronze.pipeline import Pipeline
from bronze.runtime.spark_errors import explain_failures
from bronze.writers import choose_writer

log = logging.getLogger(__name__)
ATTEMPTS = 5
_RENEW_SECONDS = 24 * 3600  # well within any retention of a log
_MB = 1024 * 1024
_Result = TypeVar("_Result")
_CONFLICTS = (  # they have no base of their own
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    ConcurrentTransactionException,
    ConcurrentWriteException,
    MetadataChangedException,
)


@dataclass
class MaintenanceSummary:
    """What a run did.

    Attributes:
        compacted: Partitions that were compacted.
        files_before: Small files that they had.
        files_after: Files that these became.
        cleaned: Commits that were deleted from the logs, older than their retention.
        unreferenced: Files that VACUUM deleted, or would delete.
        unreferenced_bytes: Their size.
        left: Steps that were left for the next run, because the time was up.
    """

    compacted: int = 0
    files_before: int = 0
    files_after: int = 0
    cleaned: int = 0
    unreferenced: int = 0
    unreferenced_bytes: int = 0
    left: list[str] = field(default_factory=list)


class _Clock:
    """How long a run may go on; asked between its steps."""

    def __init__(self, max_minutes: float):
        self._end = time.monotonic() + max_minutes * 60 if max_minutes else float("inf")

    def is_over(self) -> bool:
        return time.monotonic() >= self._end


def main(config: MaintainConfig) -> int:
    """The command ``bronze maintain``: run, and print what was done."""
    summary = maintain(config)
    size = f"{summary.unreferenced_bytes / _MB:,.1f} MB"
    print(f"Compacted {summary.compacted:,} partitions: {summary.files_before:,} files became {summary.files_after:,}")
    print(f"Cleaned the logs: deleted {summary.cleaned:,} commits older than delta.logRetentionDuration")
    if config.vacuum:
        print(f"VACUUM deleted {summary.unreferenced:,} files, {size}")
    else:
        print(f"VACUUM would delete {summary.unreferenced:,} files, {size}: nothing was deleted, --vacuum does it")
    for step in summary.left:
        print(f"Left for the next run, because --max-minutes {config.max_minutes:g} were over: {step}")
    return ExitCode.DONE


def maintain(config: MaintainConfig, spark: SparkSession | None = None) -> MaintenanceSummary:
    """Maintain both tables: compact, clean the logs, vacuum, in this order, as long as there is time.

    Args:
        config: Which tables, and what to do with them.
        spark: Session to use; a new local one when not given.

    Raises:
        ConfigError: There is no bronze table; a DLQ that is missing is passed over.
        BronzeError: Others kept changing the same files.
    """
    if config.delete_replayed_days:
        log.warning(
            "--delete-replayed-days is ignored and will go with the next release: the DLQ keeps all of its records, "
            "because the audit reads them"
        )
    with explain_failures(), Pipeline.open(config, spark) as pipeline:
        pipeline.check_exists("output-path")
        return _maintain(pipeline.spark, config, [table for table in pipeline.tables if table.state])


def _maintain(spark: SparkSession, config: MaintainConfig, tables: list[CheckedTable]) -> MaintenanceSummary:
    clock, summary = _Clock(config.max_minutes), MaintenanceSummary()
    for table in tables:
        prepare_log(spark, table.path)
        _renew_note(table)
    if config.optimize_after_hours:
        # By default OPTIMIZE rewrites all files below 1 GB, for one late record.
        with override_setting(spark, "spark.databricks.delta.optimize.minFileSize", str(config.small_file_mb * _MB)):
            for table in tables:
                _compact(spark, config, table, clock, summary)
    for table in tables:
        if clock.is_over():
            summary.left.append(f"cleaning the log and VACUUM of {table.path}")
            continue
        summary.cleaned += tidy_log(spark, table.path)
        found = vacuum_table(spark, table.path, config.retention_hours, config.force, config.vacuum)
        summary.unreferenced += found.files
        summary.unreferenced_bytes += found.bytes
    return summary


def _renew_note(table: CheckedTable) -> None:
    """Commit again what our newest commit says, before a clean-up of the log by any writer can remove it."""
    assert table.state is not None
    found = table.state.found
    text = read_commit(table.path, found.version) if found.note else None
    if text and time.time() - parse_commit(text).timestamp / 1000 > _RENEW_SECONDS:
        choose_writer("auto", [table]).renew()


def _compact(
    spark: SparkSession, config: MaintainConfig, table: CheckedTable, clock: _Clock, summary: MaintenanceSummary
) -> None:
    """Compact a table's closed partitions, those with the most small files first."""
    before = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=config.optimize_after_hours)
    counted = count_files(spark, table.path, table.spec, config.small_file_mb)
    partitions = select_closed(counted, before).to_dict("records")
    for number, partition in enumerate(partitions):
        if clock.is_over():
            summary.left.append(f"{len(partitions) - number:,} partitions of {table.path} to compact")
            return
        condition = format_partition({name: partition[name] for name in table.spec.partition_columns})
        metrics = retry(table.path, partial(_optimize, spark, table.path, condition))
        log.info("Compacted %s where %s: %d files became %d", table.path, condition, *metrics)
        summary.compacted += 1
        summary.files_before += metrics[0]
        summary.files_after += metrics[1]


def select_closed(partitions: pd.DataFrame, before: datetime) -> pd.DataFrame:
    """The partitions that ended before a time and have two small files or more, most small files first.

    A partition of no event time is never over; it counts as closed while nothing is written to it.

    Args:
        partitions: As ``count_files`` has them.
        before: Naive UTC.
    """
    names = [name for name in partitions.columns if name in ("_event_date", "_dlq_date")]
    dates = pd.to_datetime(partitions[names[0]])
    hours = partitions["_event_hour"].astype(float) + 1 if "_event_hour" in partitions else 24.0
    ends = (dates + pd.to_timedelta(hours, unit="h")).fillna(partitions["modified"])
    return partitions[(ends <= before) & (partitions["small"] >= 2)].sort_values("small", ascending=False)


def format_partition(values: dict[str, str | None]) -> str:
    """The condition of a partition, ``_event_date = '2026-01-31' AND _event_hour = '23'``."""
    return " AND ".join(f"{n} IS NULL" if v is None or pd.isna(v) else f"{n} = '{v}'" for n, v in values.items())


def _optimize(spark: SparkSession, path: str, condition: str) -> tuple[int, int]:
    """Compact a partition; how many files were replaced by how many."""
    row = spark.sql(f"OPTIMIZE {quote_path(path)} WHERE {condition}").first()  # DeltaTable.optimize() does not quote
    assert row is not None
    return row["metrics"]["numFilesRemoved"], row["metrics"]["numFilesAdded"]


def retry(path: str, step: Callable[[], _Result]) -> _Result:
    """Run a step until no other commit gets in its way.

    Raises:
        BronzeError: Others kept committing first.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return step()
        except _CONFLICTS as conflict:
            log.info("Others changed %s, attempt %d: %s", path, attempt, type(conflict).__name__)
        time.sleep(random.uniform(0.2, 0.5) * 2**attempt)
    raise BronzeError(
        f"could not maintain {path} in {ATTEMPTS} attempts, because others kept changing the same files",
        hint="nothing was lost, run the same command again",
    )


_RETENTION_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
_SETTINGS = {
    # Commits START and END to the table's history, with how much was deleted.
    "spark.databricks.delta.vacuum.logging.enabled": "true",
    # Otherwise Delta ignores the hours that it is given, and says so in a warning.
    "spark.databricks.delta.vacuum.retentionWindowIgnore.enabled": "false",
}
_LISTED = 10


class Unreferenced(NamedTuple):
    """Files that no version within the retention refers to, and their size."""

    files: int
    bytes: int


def vacuum_table(spark: SparkSession, path: str, retention_hours: int, force: bool, delete: bool) -> Unreferenced:
    """List the files that VACUUM deletes, and delete them when asked.

    Files of a batch that runs are not referenced either, and kept for their age alone: hence the least retention.

    Args:
        spark: Session.
        path: The table.
        retention_hours: Younger files are kept; 0 is the table's own setting.
        force: Whether that may be less than the table's own setting.
        delete: Whether to delete them.

    Raises:
        InvalidOptionError: It is less, and not forced.
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
    """Set a setting of the session for a while."""
    before = spark.conf.get(name, None)
    spark.conf.set(name, value)
    try:
        yield
    finally:
        spark.conf.unset(name) if before is None else spark.conf.set(name, before)


def _read_sizes(spark: SparkSession, paths: list[str]) -> dict[str, int]:
    """Sizes of files in bytes; VACUUM also lists folders, which it deletes where they are empty."""
    jvm: Any = spark._jvm
    conf = spark.sparkContext._jsc.hadoopConfiguration()
    sizes: dict[str, int] = {}
    for path in paths:
        hadoop_path = jvm.org.apache.hadoop.fs.Path(path)
        with suppress(Py4JJavaError):  # it is gone meanwhile
            status = hadoop_path.getFileSystem(conf).getFileStatus(hadoop_path)
            if status.isFile():
                sizes[path] = status.getLen()
    return sizes
