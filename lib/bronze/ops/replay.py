"""``bronze replay``: append to bronze the DLQ records that are valid with today's schema.

First all open records are decoded, which gives the positions that are valid now, and why the others are not. Those
positions alone then go through the tasks and the commits of the ingestion, in bounded batches. The DLQ stays as it
is: a record is replayed once bronze has its position, so a run that is interrupted, or repeated, or beside another
one, adds what is missing and nothing twice.
"""

import logging
import time
from dataclasses import dataclass, replace
from functools import partial
from uuid import uuid4

import pandas as pd
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.batch import select_records
from bronze.config import ReplayConfig
from bronze.delta.binding import check_known, find_dlqs
from bronze.delta.dlq import normalize_detail, open_tables, select_dlq
from bronze.delta.positions import build_bitmaps, collect_ranges, find_present, is_within, mark_replayed
from bronze.errors import ExitCode
from bronze.kafka.topic import Topic
from bronze.offsets import OffsetRanges, count_offsets, find_bounds, invert_ranges, split_ranges, subtract_ranges
from bronze.pipeline import open_session
from bronze.resume import describe_rolled_back, find_rolled_back, make_opened
from bronze.runtime.frames import collect_frame
from bronze.runtime.paths import check_writable, to_local_path
from bronze.runtime.spark_errors import explain_failures
from bronze.tasks import DIAGNOSED_DDL, BatchResult, BatchTask, diagnose_records
from bronze.transforms import RECORD_COLUMNS
from bronze.writers import Source, TableWriter, choose_writer

log = logging.getLogger(__name__)

_SHOWN_DETAILS = 20


@dataclass
class ReplayReport:
    """What a replay found and did.

    Attributes:
        by_type: For each error type in the DLQ: records ``replayed before``, ``open``, of these ``valid now`` and
            ``still failing``.
        details: Why the others still fail: ``error type``, ``detail`` and ``records``, the most frequent first.
        valid: Positions that are open and valid now.
        appended: Records that this run appended to bronze.
        batches: Transactions that it took.
        is_dry_run: Whether nothing was to be appended.
    """

    by_type: pd.DataFrame
    details: pd.DataFrame
    valid: OffsetRanges
    appended: int = 0
    batches: int = 0
    is_dry_run: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """The sums of all error types, and what was appended."""
        sums = {name.replace(" ", "_"): int(count) for name, count in self.by_type.sum().items()}
        return {**sums, "appended": self.appended}

    @property
    def verdict(self) -> str:
        """The result in one line."""
        valid, failing = sum(map(count_offsets, self.valid.values())), self.counts["still_failing"]
        rest = f"{failing:,} still fail and stay open"
        if self.is_dry_run:
            return f"Dry run: {valid:,} records would be replayed; {rest}"
        meanwhile = f", {valid - self.appended:,} were by others meanwhile" if valid > self.appended else ""
        return f"{self.appended:,} records were replayed in {self.batches:,} batches{meanwhile}; {rest}"

    def to_text(self) -> str:
        """Both tables, and the result in one line."""
        if self.by_type.empty:
            return f"The DLQ has no such records.\n{self.verdict}"
        why = ["", "why they still fail:", self.details.to_string(index=False)] if len(self.details) else []
        return "\n".join([self.by_type.reset_index().to_string(index=False), *why, "", self.verdict])


def main(config: ReplayConfig) -> int:
    """The command ``bronze replay``: run, and print what was replayed and what still fails."""
    print(run(config).to_text())
    return ExitCode.DONE


def run(config: ReplayConfig, spark: SparkSession | None = None) -> ReplayReport:
    """Replay the open DLQ records that the filters leave; Kafka is not needed, and the stream may run meanwhile.

    Whatever ends it, run it again to go on: each batch is one transaction on bronze.

    Args:
        config: Tables, filters and how to append.
        spark: Session to use; a new local one when not given.

    Raises:
        BronzeError: A table is missing or does not fit today's schema, or a commit failed.
    """
    with explain_failures():
        spark = open_session(config, spark)
        if not config.dry_run:
            check_writable(spark, config, "output_path")
        return _run(config, spark)


def _run(config: ReplayConfig, spark: SparkSession) -> ReplayReport:
    bronze, dlq = open_tables(spark, config)
    known = find_dlqs(spark, bronze, dlq, config.kafka_topic)
    check_known(known, bronze, dlq, config.kafka_topic)
    writer = choose_writer(config.writer, [bronze])(bronze.path)
    # Its commits come after a RESTORE, which a start would not notice any more.
    topic = Topic(config.kafka_topic, "", tuple(sorted(known.ledger.read)))
    if found := find_rolled_back(spark, "", None, make_opened(spark, topic, bronze, dlq, known)):
        log.warning("Warning: %s", describe_rolled_back(found))
    report = make_plan(spark, config)
    if not config.dry_run:
        # With a DLQ path the tasks would never write an invalid record to bronze; the plan leaves none to them.
        dlq_path = to_local_path(dlq.path) or dlq.path
        _append_all(spark, config, report, writer, to_local_path(bronze.path) or "", dlq_path)
    return report


def make_plan(spark: SparkSession, config: ReplayConfig) -> ReplayReport:
    """Decode all open records with today's schema; nothing is written."""
    rows = mark_replayed(_drop_blocked(select_dlq(spark, config), config), config.output_path, config.kafka_topic)
    columns = ("timestamp", "partition", "offset", "is_replayed", F.col("_error_type").alias("was"))
    open_value = F.when(~F.col("is_replayed"), F.col("value")).alias("value")
    task = partial(diagnose_records, ingested_at=_read_clock())
    records = rows.transform(_to_records).select(open_value, *columns)
    outcomes = records.mapInArrow(task, DIAGNOSED_DDL).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        is_valid = F.expr("not is_replayed and error_type is null")
        is_failing = F.expr("not is_replayed and error_type is not null")
        by_type = outcomes.groupBy(F.col("was").alias("error type")).agg(
            F.count_if("is_replayed").alias("replayed before"),
            F.count_if(~F.col("is_replayed")).alias("open"),
            F.count_if(is_valid).alias("valid now"),
            F.count_if(is_failing).alias("still failing"),
        )
        return ReplayReport(
            collect_frame(by_type.orderBy(F.desc("open"), "error type")).set_index("error type"),
            _list_details(outcomes.where(is_failing)),
            collect_ranges(outcomes.where(is_valid).transform(build_bitmaps)),
            is_dry_run=config.dry_run,
        )
    finally:
        outcomes.unpersist()


def _drop_blocked(rows: DataFrame, config: ReplayConfig) -> DataFrame:
    """Leave out what bronze has as an invalid row too: a second row of the position would double the record."""
    bronze = rows.sparkSession.read.format("delta").load(config.output_path)
    invalid = bronze.where(F.col("_kafka_topic") == config.kafka_topic).where(~F.col("_is_valid"))
    blocked = invalid.select("_kafka_partition", "_kafka_offset")
    if blocked.isEmpty():
        return rows
    position = ["_kafka_partition", "_kafka_offset"]
    if count := rows.join(blocked, position, "leftsemi").count():
        log.warning(
            "Warning: %s DLQ records are invalid rows of bronze as well and are not replayed; bronze audit names them",
            f"{count:,}",
        )
    return rows.join(blocked, position, "leftanti")


def _to_records(rows: DataFrame) -> DataFrame:
    """DLQ rows with the names of the Kafka records that they were, each position once."""
    names = {"_raw_bytes": "value"} | {f"_kafka_{name}": name for name in RECORD_COLUMNS[1:-1]}
    return rows.dropDuplicates(["_kafka_partition", "_kafka_offset"]).withColumnsRenamed(names)


def _list_details(failing: DataFrame) -> pd.DataFrame:
    detail = F.substring(normalize_detail(F.col("error_detail")), 1, 300).alias("detail")
    counted = failing.groupBy(F.col("error_type").alias("error type"), detail).agg(F.count("*").alias("records"))
    return collect_frame(counted.orderBy(F.desc("records"), "detail").limit(_SHOWN_DETAILS))


def _append_all(
    spark: SparkSession,
    config: ReplayConfig,
    report: ReplayReport,
    writer: TableWriter,
    bronze_path: str,
    dlq_path: str,
) -> None:
    """Append the valid positions of a plan in bounded batches, and count them in its report."""
    app_id, total = f"bronze-replay-{uuid4()}", sum(map(count_offsets, report.valid.values()))
    newest = _find_newest(select_dlq(spark, config)) if total else 0
    for number, todo in enumerate(split_ranges(report.valid, config.max_records)):
        started = time.monotonic()
        rows = select_dlq(spark, config).where(is_within(find_bounds(todo)))
        # Later than the DLQ's also where another machine's clock is ahead: the audit tells a replay by that.
        task = BatchTask(number, max(_read_clock(), newest + 1_000), bronze_path, dlq_path)
        result = append_batch(rows.transform(_to_records), task, writer, app_id, config, todo)
        report.appended += result.valid
        report.batches += 1
        seconds = time.monotonic() - started
        log.info("Replay: %s of %s records, batch %d in %.1f s", f"{report.appended:,}", f"{total:,}", number, seconds)


def append_batch(
    records: DataFrame, task: BatchTask, writer: TableWriter, app_id: str, config: ReplayConfig, todo: OffsetRanges
) -> BatchResult:
    """Append those records to bronze whose positions are to be replayed and are not in it yet."""
    planned = find_bounds(todo)

    def find_left_out() -> OffsetRanges:
        present = find_present(records.sparkSession, [config.output_path], config.kafka_topic, planned)
        return {p: invert_ranges(subtract_ranges(todo[p], present[p]), *planned[p]) for p in planned}

    writer.has_changed()  # what others append from here on is a conflict
    return writer.append(
        records.transform(select_records),
        replace(task, present=find_left_out()),
        Source("replay", app_id, config.kafka_topic, todo),
        find_left_out,
    )


def _find_newest(rows: DataFrame) -> int:
    """When the newest of the rows was ingested, in microseconds since 1970; 0 where there are none."""
    newest = rows.agg(F.unix_micros(F.max("_ingested_at"))).first()
    return (newest and newest[0]) or 0


def _read_clock() -> int:
    """Microseconds since 1970, whole milliseconds."""
    return int(time.time() * 1000) * 1000
