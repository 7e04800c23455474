"""``bronze maintain``: compact closed hours, delete replayed DLQ records, vacuum. A live stream may run meanwhile.

OPTIMIZE commits without changing data, the DELETE touches DLQ days that no writer appends to any more, and neither
changes what a writer checked of the table; so their commits and the stream's pass each other. What still conflicts,
such as two maintenance runs, is tried again. A run can be stopped at any moment and run again.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import pandas as pd
from delta.exceptions import (
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    ConcurrentTransactionException,
    ConcurrentWriteException,
    MetadataChangedException,
)
from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from bronze.delta_log import count_files
from bronze.opening import CheckedTable, locate_tables, open_session
from bronze.operations import MaintainConfig
from bronze.schema import quote_path
from bronze.storage_errors import MaintenanceConflict, TableMissing
from bronze.vacuum import override_setting, vacuum_table

log = logging.getLogger(__name__)
ATTEMPTS = 5
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
        deleted: Replayed DLQ records that were deleted.
        unreferenced: Files that VACUUM deleted, or would delete.
        unreferenced_bytes: Their size.
        left: Steps that were left for the next run, because the time was up.
    """

    compacted: int = 0
    files_before: int = 0
    files_after: int = 0
    deleted: int = 0
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
    summary = run(config)
    size = f"{summary.unreferenced_bytes / _MB:,.1f} MB"
    print(f"Compacted {summary.compacted:,} partitions: {summary.files_before:,} files became {summary.files_after:,}")
    print(f"Deleted {summary.deleted:,} replayed DLQ records")
    if config.vacuum:
        print(f"VACUUM deleted {summary.unreferenced:,} files, {size}")
    else:
        print(f"VACUUM would delete {summary.unreferenced:,} files, {size}: nothing was deleted, --vacuum does it")
    for step in summary.left:
        print(f"Left for the next run, because --max-minutes {config.max_minutes:g} were over: {step}")
    return 0


def run(config: MaintainConfig, spark: SparkSession | None = None) -> MaintenanceSummary:
    """Maintain both tables: compact, delete, vacuum, in this order, as long as there is time.

    Args:
        config: Which tables, and what to do with them.
        spark: Session to use; a new local one when not given.

    Raises:
        TableMissing: There is no bronze table; a DLQ that is missing is passed over.
        MaintenanceConflict: Others kept changing the same files.
    """
    spark = open_session(config, spark)
    bronze, dlq = locate_tables(spark, config)
    if bronze.state is None:
        raise TableMissing("output-path", bronze.path)
    tables = [bronze, dlq] if dlq and dlq.state else [bronze]
    clock, summary = _Clock(config.max_minutes), MaintenanceSummary()
    if config.optimize_after_hours:
        # By default OPTIMIZE rewrites all files below 1 GB, for one late record.
        with override_setting(spark, "spark.databricks.delta.optimize.minFileSize", str(config.small_file_mb * _MB)):
            for table in tables:
                _compact(spark, config, table, clock, summary)
    if config.delete_replayed_days and dlq and dlq.state:
        _delete_replayed(spark, config, bronze, dlq, clock, summary)
    for table in tables:
        if clock.is_over():
            summary.left.append(f"VACUUM of {table.path}")
            continue
        found = vacuum_table(spark, table.path, config.retention_hours, config.force, config.vacuum)
        summary.unreferenced += found.files
        summary.unreferenced_bytes += found.bytes
    return summary


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
        condition = describe_partition({name: partition[name] for name in table.spec.partition_columns})
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


def describe_partition(values: dict[str, str | None]) -> str:
    """The condition of a partition, ``_event_date = '2026-01-31' AND _event_hour = '23'``."""
    return " AND ".join(f"{n} IS NULL" if v is None or pd.isna(v) else f"{n} = '{v}'" for n, v in values.items())


def _optimize(spark: SparkSession, path: str, condition: str) -> tuple[int, int]:
    """Compact a partition; how many files were replaced by how many."""
    row = spark.sql(f"OPTIMIZE {quote_path(path)} WHERE {condition}").first()  # DeltaTable.optimize() does not quote
    assert row is not None
    return row["metrics"]["numFilesRemoved"], row["metrics"]["numFilesAdded"]


def _delete_replayed(
    spark: SparkSession,
    config: MaintainConfig,
    bronze: CheckedTable,
    dlq: CheckedTable,
    clock: _Clock,
    summary: MaintenanceSummary,
) -> None:
    """Delete the replayed records of old DLQ days, a day at a time."""
    before = (datetime.now(UTC) - timedelta(days=config.delete_replayed_days)).date()
    days = spark.read.format("delta").load(dlq.path).where(F.col("_dlq_date") < F.lit(before)).select("_dlq_date")
    dates = [str(row[0]) for row in days.distinct().orderBy("_dlq_date").collect()]
    for number, date in enumerate(dates):
        if clock.is_over():
            summary.left.append(f"{len(dates) - number:,} days of {dlq.path} to delete replayed records from")
            return
        deleted = retry(dlq.path, partial(delete_replayed_of, spark, bronze.path, dlq.path, date))
        log.info("Deleted %d replayed records of %s from %s", deleted, date, dlq.path)
        summary.deleted += deleted


def delete_replayed_of(spark: SparkSession, bronze_path: str, dlq_path: str, date: str) -> int:
    """Delete a day's DLQ records that are in bronze since; how many they were.

    A MERGE, because Delta's DELETE takes no subquery. It names the day, so that appends to another do not conflict.
    """
    position = ("_kafka_topic", "_kafka_partition", "_kafka_offset")
    is_day = f"dlq._dlq_date = DATE'{date}'"
    old = spark.read.format("delta").load(dlq_path).alias("dlq").where(is_day)
    in_bronze = spark.read.format("delta").load(bronze_path).select(*position, "_ingested_at")
    replayed = in_bronze.withColumnRenamed("_ingested_at", "_replayed_at").join(old, list(position), "leftsemi")
    # A position in both tables any other way is a finding of the audit and stays.
    matches = " AND ".join(f"dlq.{name} = replayed.{name}" for name in position)
    condition = f"{is_day} AND {matches} AND replayed._replayed_at > dlq._ingested_at"
    target = DeltaTable.forPath(spark, dlq_path).alias("dlq")
    done = target.merge(replayed.distinct().alias("replayed"), condition).whenMatchedDelete().execute()
    row = done.first() if done is not None else None
    return row["num_deleted_rows"] if row is not None else 0


def retry(path: str, step: Callable[[], _Result]) -> _Result:
    """Run a step until no other commit gets in its way.

    Raises:
        MaintenanceConflict: Others kept committing first.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return step()
        except _CONFLICTS as conflict:
            log.info("Others changed %s, attempt %d: %s", path, attempt, type(conflict).__name__)
        time.sleep(random.uniform(0.2, 0.5) * 2**attempt)
    raise MaintenanceConflict(path, ATTEMPTS)
