"""``bronze replay``: append to bronze the DLQ records that are valid with today's schema.

The replay decodes all open records, which gives the positions that are now valid, and the reasons why the others are
not. It then appends the valid positions with the ingestion's tasks and commits, in bounded batches. The DLQ does not
change: a record counts as replayed when bronze has its position. So a run that is interrupted, repeated, or concurrent
with another one adds only what is missing.
"""

import logging
import time
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

import pandas as pd
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.batch import append_batch, make_task
from bronze.config import ReplayConfig
from bronze.delta.commit import Source, TableWriter
from bronze.delta.dlq import mark_replayed, normalize_detail, select_dlq
from bronze.delta.positions import collect_offsets, find_ingested, is_within
from bronze.errors import ExitCode
from bronze.observe.summary import describe_counts
from bronze.offsets import OffsetSet
from bronze.pipeline import Pipeline
from bronze.resume import warn_of_rollback
from bronze.runtime.frames import collect_frame
from bronze.runtime.logs import event, report
from bronze.runtime.session import read_table
from bronze.runtime.spark_errors import explain_failures
from bronze.tasks import DIAGNOSED_DDL, diagnose_records
from bronze.transforms import RECORD_COLUMNS, Counts
from bronze.writers import check_writer, choose_writer

log = logging.getLogger(__name__)

_SHOWN_DETAILS = 20


@dataclass
class ReplayReport:
    """The result of a replay.

    Attributes:
        by_type: For each error type in the DLQ: records ``replayed before``, ``open``, of these ``valid now`` and
            ``still failing``.
        details: Why the others still fail: ``error type``, ``detail`` and ``records``, the most frequent first.
        valid: Open positions that are now valid.
        appended: Records that this run appended to bronze.
        batches: Number of transactions.
        is_dry_run: Whether the run only showed the plan.
    """

    by_type: pd.DataFrame
    details: pd.DataFrame
    valid: OffsetSet
    appended: int = 0
    batches: int = 0
    is_dry_run: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """The sums over all error types, and the number of appended records."""
        sums = {name.replace(" ", "_"): int(count) for name, count in self.by_type.sum().items()}
        return {**sums, "appended": self.appended}

    @property
    def verdict(self) -> str:
        """The result in one line."""
        valid, failing = self.valid.count, self.counts["still_failing"]
        rest = f"{failing:,} still fail and stay open"
        if self.is_dry_run:
            return f"Dry run: {valid:,} records would be replayed; {rest}"
        meanwhile = f", {valid - self.appended:,} by other runs meanwhile" if valid > self.appended else ""
        return f"{self.appended:,} records were replayed in {self.batches:,} batches{meanwhile}; {rest}"

    def to_text(self) -> str:
        """The two tables, and the result in one line."""
        if self.by_type.empty:
            return f"The DLQ has no such records.\n{self.verdict}"
        why = ["", "why they still fail:", self.details.to_string(index=False)] if len(self.details) else []
        return "\n".join([self.by_type.reset_index().to_string(index=False), *why, "", self.verdict])


def main(config: ReplayConfig) -> int:
    """The command ``bronze replay``: run, and print what was replayed and what still fails."""
    done = replay(config)
    report(done.to_text(), "result", appended=done.appended)
    return ExitCode.DONE


def replay(config: ReplayConfig, spark: SparkSession | None = None) -> ReplayReport:
    """Replay the open DLQ records that match the filters. Kafka is not needed, and the stream may run at the same time.

    Each batch is one transaction on bronze, so an interrupted replay can be run again to continue.

    Args:
        config: Tables, filters and writer.
        spark: Session to use; a new local one when not given.

    Raises:
        BronzeError: A table is missing or does not fit today's schema, or a commit failed.
    """
    with explain_failures(), Pipeline.open(config, spark) as pipeline:
        pipeline.check_exists("output-path", "dlq-path")
        # This also keeps topics of the same name apart: a bronze table and its DLQs were filled from one topic, because
        # whatever reads Kafka compares the topic's id with both tables.
        pipeline.known.check_is_named()
        warn_of_rollback(pipeline)  # now: after the replay's commits, a start would no longer notice a RESTORE
        if config.dry_run:
            check_writer(config.writer, [pipeline.bronze])
            return make_plan(pipeline, config)
        with choose_writer(config.writer, [pipeline.bronze]) as writer:  # it notices commits after the plan
            report = make_plan(pipeline, config)
            _append_all(pipeline, config, report, writer)
        return report


def make_plan(pipeline: Pipeline, config: ReplayConfig) -> ReplayReport:
    """Decode all open records with today's schema; nothing is written."""
    open_rows = _drop_blocked(select_dlq(pipeline.spark, config), config)
    rows = mark_replayed(open_rows, config.output_path, config.kafka_topic)
    columns = ("timestamp", "partition", "offset", "is_replayed", F.col("_error_type").alias("was"))
    open_value = F.when(~F.col("is_replayed"), F.col("value")).alias("value")
    task = partial(diagnose_records, ingested_at=int(time.time() * 1000) * 1000)
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
            collect_offsets(outcomes.where(is_valid)),
            is_dry_run=config.dry_run,
        )
    finally:
        outcomes.unpersist()


def _drop_blocked(rows: DataFrame, config: ReplayConfig) -> DataFrame:
    """Skip positions that bronze has as invalid rows, because a second row would duplicate the record."""
    bronze = read_table(rows.sparkSession, config.output_path)
    invalid = bronze.where(F.col("_kafka_topic") == config.kafka_topic).where(~F.col("_is_valid"))
    blocked = invalid.select("_kafka_partition", "_kafka_offset")
    if blocked.isEmpty():
        return rows
    position = ["_kafka_partition", "_kafka_offset"]
    if count := rows.join(blocked, position, "leftsemi").count():
        log.warning(
            "%s DLQ records are invalid rows of bronze as well and are not replayed; bronze audit names them",
            f"{count:,}",
        )
    return rows.join(blocked, position, "leftanti")


def _to_records(rows: DataFrame) -> DataFrame:
    """Rename the columns of DLQ rows to those of Kafka records, each position once."""
    names = {"_raw_bytes": "value"} | {f"_kafka_{name}": name for name in RECORD_COLUMNS[1:-1]}
    return rows.dropDuplicates(["_kafka_partition", "_kafka_offset"]).withColumnsRenamed(names)


def _list_details(failing: DataFrame) -> pd.DataFrame:
    detail = F.substring(normalize_detail(F.col("error_detail")), 1, 300).alias("detail")
    counted = failing.groupBy(F.col("error_type").alias("error type"), detail).agg(F.count("*").alias("records"))
    return collect_frame(counted.orderBy(F.desc("records"), "detail").limit(_SHOWN_DETAILS))


def _append_all(pipeline: Pipeline, config: ReplayConfig, report: ReplayReport, writer: TableWriter) -> None:
    """Append the valid positions of a plan in bounded batches, and count them in its report."""
    app_id, total = f"bronze-replay-{uuid4()}", report.valid.count
    newest = _find_newest(select_dlq(pipeline.spark, config)) if total else 0
    for number, offsets in enumerate(report.valid.split(config.max_records)):
        started = time.monotonic()
        # Later than the DLQ's, even if another machine's clock is ahead: the audit recognizes a replay by this.
        ingested_at = max(time.time(), (newest + 1_000) / 1e6)
        source = Source("replay", app_id, config.kafka_topic, offsets)
        counts = append_positions(pipeline, config, writer, source, number, ingested_at)
        report.appended += counts.valid
        report.batches += 1
        seconds = time.monotonic() - started
        progress = {"batch": number, "planned": total, "appended": report.appended, "seconds": round(seconds, 3)}
        fields = event("replay", **progress, offsets=offsets.bounds, counts=describe_counts(counts))
        done = f"{report.appended:,}", f"{total:,}"
        log.info("Replay: %s of %s records, batch %d in %.1f s", *done, number, seconds, extra=fields)


def append_positions(
    pipeline: Pipeline, config: ReplayConfig, writer: TableWriter, source: Source, number: int, ingested_at: float
) -> Counts:
    """Append the DLQ records whose positions the source covers and bronze does not have yet.

    Args:
        pipeline: The tables.
        config: The replay.
        writer: Commits to bronze.
        source: The positions.
        number: Number of the batch.
        ingested_at: Seconds since 1970.
    """
    bounds = source.covered.bounds

    def find_left_out() -> OffsetSet:
        present = find_ingested(pipeline.spark, [config.output_path], config.kafka_topic, bounds)
        return OffsetSet.between(bounds) - (source.covered - present)

    rows = select_dlq(pipeline.spark, config).where(is_within(bounds))
    writer.has_changed()  # later appends by others are a conflict
    # With a DLQ path, the tasks never write an invalid record to bronze; the plan contains none anyway.
    task = make_task(number, ingested_at, pipeline.paths, find_left_out())
    return append_batch(writer, rows.transform(_to_records), task, source, find_left_out)


def _find_newest(rows: DataFrame) -> int:
    """The newest ingestion time of the rows in microseconds since 1970; 0 if there are none."""
    newest = rows.agg(F.unix_micros(F.max("_ingested_at"))).first()
    return (newest and newest[0]) or 0
