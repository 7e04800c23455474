"""``bronze audit``: is every Kafka record of the topic exactly once in bronze, or exactly once in the DLQ?

One aggregation over the position columns counts the tables' positions as bitmaps, one bit per offset. The audit then
looks for the missing offsets in Kafka: an offset where Kafka has a record is a finding.
"""

import logging
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial, reduce

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.checkpoint import Checkpoint
from bronze.config import AuditConfig
from bronze.delta.ledger import TopicLedger
from bronze.delta.positions import (
    BUCKET_SIZE,
    build_bitmaps,
    collect_offsets,
    find_ingested,
    is_within,
    list_runs,
    select_positions,
)
from bronze.errors import ExitCode
from bronze.observe.metrics import check_client, write_metrics
from bronze.offsets import MAX_OFFSET, Bounds, OffsetSet
from bronze.ops.audit_gaps import Gaps, explain_gaps
from bronze.ops.audit_report import AuditReport, PartitionAudit
from bronze.ops.metrics import fill_audit
from bronze.pipeline import Pipeline
from bronze.resume import find_beyond, read_own_checkpoint
from bronze.runtime.session import read_table
from bronze.runtime.spark_errors import explain_failures

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Positions:
    """The positions of one table, or of several together.

    Attributes:
        offsets: The offsets that have a row.
        rows: Rows per partition.
        suspicious: First and end offset of the bitmaps that count more rows than bits, per partition.
    """

    offsets: OffsetSet
    rows: dict[int, int]
    suspicious: Bounds


@dataclass(frozen=True)
class Expected:
    """The offsets that the tables should have, per partition.

    Attributes:
        next_offsets: Where the ingestion continues.
        offsets: All offsets that were read, and all from the start of the ingestion to ``next_offsets``.
    """

    next_offsets: dict[int, int]
    offsets: OffsetSet


def main(config: AuditConfig) -> int:
    """The command ``bronze audit``: print the report; exit code 0 if complete, 5 if there are findings."""
    report = audit(config)
    print(report.to_json() if config.json else report.to_text())
    return ExitCode.DONE if report.is_complete else ExitCode.INCOMPLETE


def audit(config: AuditConfig, spark: SparkSession | None = None) -> AuditReport:
    """Audit the tables of a topic. Reads only; a stream may run at the same time.

    Args:
        config: Topic, tables and checkpoint of the ingestion. Without a checkpoint, records after a partition's last
            row count as not ingested yet, and the topic's earliest record must be in the tables.
        spark: Session to use; a new local one when not given.

    Raises:
        BronzeError: Kafka, a table or the checkpoint cannot be read, or they do not belong together.
    """
    check_client(config.metrics_file)
    with explain_failures(), Pipeline.open(config, spark) as pipeline:
        pipeline.check_exists("output-path")
        report = _audit(pipeline, config)
    write_metrics(config.metrics_file, "audit", report.topic, partial(fill_audit, report))
    return report


def _audit(pipeline: Pipeline, config: AuditConfig) -> AuditReport:
    # The order matters while a stream runs: offsets that the checkpoint and the commits name are in the tables by the
    # time that these are read, and the tables' offsets are in Kafka by the time that Kafka is asked.
    checkpoint = _read_checkpoint(pipeline, config)
    ledger = _read_ledger(pipeline, checkpoint)
    log.info("Audit: counting the positions of %s in the tables", pipeline.topic.name)
    bronze, dlq = _collect_positions(pipeline)
    available = pipeline.fetch_available()
    ingested, in_both = bronze.offsets | dlq.offsets, bronze.offsets & dlq.offsets
    expected = _find_expected(ledger, checkpoint, ingested, available)
    doubled = _find_doubled(pipeline, bronze, dlq)
    contradicting = _find_not_replayed(pipeline, in_both.bounds) if in_both else in_both
    gaps = explain_gaps(pipeline.kafka, expected.offsets - ingested, ledger, available)
    gaps = _look_again(pipeline, gaps)
    beyond_end = find_beyond(ingested | ledger.read, available)
    audits = []
    for p in sorted({*available, *bronze.rows, *dlq.rows}):
        (earliest, end), read_to = available.get(p, (0, 0)), expected.next_offsets.get(p, 0)
        span = ingested.bounds.get(p)
        audits.append(
            PartitionAudit(
                partition=p,
                first=span[0] if span else None,
                last=span[1] - 1 if span else None,
                bronze_rows=bronze.rows.get(p, 0),
                dlq_rows=dlq.rows.get(p, 0),
                earliest=earliest,
                end=end,
                lag=max(0, end - max(read_to, earliest)),
                in_both=in_both[p],
                beyond_checkpoint=ingested.clip({p: (read_to, MAX_OFFSET)})[p],
                read=ledger.read[p],
                records=ledger.records.get(p, 0),
                doubled=doubled[p],
                contradicting=contradicting[p],
                missing=gaps.missing[p],
                unread=gaps.unread[p],
                beyond_end=beyond_end[p] if p in available else [],  # a partition that is being added
                removed=gaps.removed[p],
                removed_records=gaps.removed_records.get(p, 0),
                explained={reason: offsets[p] for reason, offsets in gaps.explained.items() if p in offsets},
            )
        )
    return AuditReport(pipeline.topic.name, audits)


def _read_checkpoint(pipeline: Pipeline, config: AuditConfig) -> Checkpoint | None:
    """Read the checkpoint if one is given. It must exist and belong to this table, or it would hide missing records."""
    if not config.checkpoint_path:
        log.warning("without --checkpoint-path, records that are missing after a partition's last row count as lag")
        return None
    return read_own_checkpoint(pipeline, config)


def _read_ledger(pipeline: Pipeline, checkpoint: Checkpoint | None) -> TopicLedger:
    """The offsets that were read, from the commits, or for a table of an older version from the checkpoint."""
    known = pipeline.known
    known.check_is_named()
    for place in known.missing:
        log.warning("the DLQ %s, which bronze names, is missing", place.path)
    if pipeline.has_ledger or known.missing or not checkpoint:
        return known.ledger
    return known.ledger.add_read(checkpoint.done, {}, checkpoint.first_offsets)


def _collect_positions(pipeline: Pipeline) -> tuple[Positions, Positions]:
    """The positions in bronze and in all DLQs, from one Spark job."""
    labelled = [
        select_positions(pipeline.spark, path, pipeline.topic.name).withColumn("table", F.lit(name))
        for name, paths in (("bronze", [pipeline.bronze.path]), ("dlq", pipeline.known.dlq_paths))
        for path in paths
    ]
    found: dict[str, list[tuple[int, int, bytearray, int]]] = {"bronze": [], "dlq": []}
    for name, *row in reduce(DataFrame.unionAll, labelled).transform(build_bitmaps, "table").collect():
        found[name].append(tuple(row))
    return _to_positions(found["bronze"]), _to_positions(found["dlq"])


def _to_positions(rows: list[tuple[int, int, bytearray, int]]) -> Positions:
    """Build positions from rows of partition, bucket, bitmap and count."""
    bitmaps: dict[int, list[tuple[int, bytearray]]] = defaultdict(list)
    counts: dict[int, int] = defaultdict(int)
    suspicious: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for partition, bucket, bits, count in rows:
        bitmaps[partition].append((bucket, bits))
        counts[partition] += count
        if count > int.from_bytes(bits).bit_count():
            suspicious[partition].append((bucket * BUCKET_SIZE, (bucket + 1) * BUCKET_SIZE - 1))
    offsets = OffsetSet({partition: list_runs(each) for partition, each in bitmaps.items()})
    return Positions(offsets, dict(counts), OffsetSet(suspicious).bounds)


def _find_expected(
    ledger: TopicLedger, checkpoint: Checkpoint | None, ingested: OffsetSet, available: Bounds
) -> Expected:
    """The offsets that the tables should have, from the commits and the checkpoint."""
    ends = {p: end for p, (_, end) in (ingested | ledger.read).bounds.items()}
    next_offsets = checkpoint.next_offsets if checkpoint else ends
    promised = {}
    for p in {*available, *ingested}:
        earliest = available.get(p, (0, 0))[0]
        start, end = earliest, next_offsets.get(p, 0)
        if checkpoint:
            start = checkpoint.first_offsets.get(p, 0)
        if ledger.begins:
            start = ledger.begins.get(p, 0)  # a partition that was added later starts at its first record
            end = max(end, earliest)  # deleted records are not lag, because they cannot be read any more
        elif p in ingested:
            start = min(start, ingested.bounds[p][0])
        promised[p] = (start, end)
    return Expected(next_offsets, ledger.read | OffsetSet.between(promised))


def _find_doubled(pipeline: Pipeline, bronze: Positions, dlq: Positions) -> OffsetSet:
    """The offsets that bronze, or the DLQs, have more than once."""
    doubled = OffsetSet()
    for paths, bounds in (([pipeline.bronze.path], bronze.suspicious), (pipeline.known.dlq_paths, dlq.suspicious)):
        if bounds:
            each = (select_positions(pipeline.spark, path, pipeline.topic.name) for path in paths)
            positions = reduce(DataFrame.unionAll, each).where(is_within(bounds))
            counted = positions.groupBy("_kafka_partition", "_kafka_offset").count()
            doubled |= collect_offsets(counted.where("count > 1"))
    return doubled


def _find_not_replayed(pipeline: Pipeline, shared: Bounds) -> OffsetSet:
    """Positions in both tables that were not replayed. A replay's row in bronze is valid and newer than the DLQ's."""

    def read(path: str, name: str, *columns: str) -> DataFrame:
        rows = read_table(pipeline.spark, path).where(F.col("_kafka_topic") == pipeline.topic.name)
        ingested_at = F.col("_ingested_at").alias(name)
        return rows.where(is_within(shared)).select("_kafka_partition", "_kafka_offset", ingested_at, *columns)

    in_dlq = reduce(DataFrame.unionAll, (read(path, "dlq_time") for path in pipeline.known.dlq_paths))
    in_bronze = read(pipeline.bronze.path, "bronze_time", "_is_valid")
    both = in_bronze.join(in_dlq, ["_kafka_partition", "_kafka_offset"])
    is_replayed = F.expr("_is_valid AND bronze_time > dlq_time")
    return collect_offsets(both.where(~F.coalesce(is_replayed, F.lit(False))))


def _look_again(pipeline: Pipeline, gaps: Gaps) -> Gaps:
    """Drop findings that a stream has committed meanwhile, because the tables are not read at the same moment."""
    tables = [pipeline.bronze.path, *pipeline.known.dlq_paths]
    since = find_ingested(pipeline.spark, tables, pipeline.topic.name, (gaps.missing | gaps.unread).bounds)
    return replace(gaps, missing=gaps.missing - since, unread=gaps.unread - since)
