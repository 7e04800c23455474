"""``bronze audit``: is every Kafka record of the topic exactly once in bronze, or exactly once in the DLQ?

The tables' positions are counted as bitmaps, one bit an offset, in one aggregation that reads the position columns
only. What is missing in them is then looked for in Kafka: an offset where Kafka has a record is a finding.
"""

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.checkpoint import Checkpoint, no_checkpoint_error, read_checkpoint
from bronze.config import AuditConfig
from bronze.delta.binding import check_known, find_dlqs, list_paths
from bronze.delta.ledger import TopicLedger
from bronze.delta.positions import build_bitmaps, collect_ranges, find_present, is_within, select_positions
from bronze.delta.tables import TableState, no_table_error
from bronze.errors import ExitCode
from bronze.kafka.topic import describe_topic, list_offsets
from bronze.offsets import (
    BUCKET_SIZE,
    OffsetRanges,
    PlannedOffsets,
    clip_ranges,
    combine_bitmaps,
    find_bounds,
    list_runs,
    merge_ranges,
    subtract_ranges,
)
from bronze.ops.audit_gaps import explain_gaps
from bronze.ops.audit_report import AuditReport, PartitionAudit
from bronze.pipeline import check_tables, open_session
from bronze.resume import check_tables_of
from bronze.runtime.paths import qualify_path

log = logging.getLogger(__name__)


@dataclass
class _Bitmaps:
    """The positions of one table.

    Attributes:
        bits: By partition and bucket.
        rows: Rows per partition.
        suspicious: First and end offset of the buckets that have more rows than bits, per partition.
    """

    bits: dict[int, dict[int, bytearray]] = field(default_factory=lambda: defaultdict(dict))
    rows: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    suspicious: PlannedOffsets = field(default_factory=dict)

    def add(self, partition: int, bucket: int, bits: bytearray, count: int) -> None:
        """Add one bitmap."""
        self.bits[partition][bucket] = bits
        self.rows[partition] += count
        if count > int.from_bytes(bits).bit_count():
            first, end = bucket * BUCKET_SIZE, (bucket + 1) * BUCKET_SIZE
            known = self.suspicious.get(partition, (first, end))
            self.suspicious[partition] = (min(first, known[0]), max(end, known[1]))


def main(config: AuditConfig) -> int:
    """The command ``bronze audit``: print the report; 0 where all is complete, 5 where something was found."""
    report = run(config)
    print(report.to_json() if config.json else report.to_text())
    return ExitCode.DONE if report.is_complete else ExitCode.INCOMPLETE


def run(config: AuditConfig, spark: SparkSession | None = None) -> AuditReport:
    """Audit the tables of a topic; reads only, and a stream may run meanwhile.

    Args:
        config: Topic, tables and checkpoint of the ingestion. Without a checkpoint, what Kafka has beyond a
            partition's last row counts as not ingested yet, and the topic's earliest record must be in the tables.
        spark: Session to use; a new local one when not given.

    Raises:
        BronzeError: Kafka, a table or the checkpoint cannot be read, or does not belong to the others.
    """
    spark = open_session(config, spark)
    topic = describe_topic(spark, config)
    bronze, dlq = check_tables(spark, config, topic)
    if bronze.state is None:
        raise no_table_error("output-path", bronze.path)
    # In this order: a stream that runs meanwhile has put into the tables what its checkpoint and commits say, and Kafka
    # has it.
    checkpoint = _read_checkpoint(spark, config, bronze.state)
    known = find_dlqs(spark, bronze, dlq, topic.name)
    if dlq:
        check_known(known, bronze, dlq, topic.name)
    for place in known.missing:
        log.warning("Warning: the DLQ %s, which bronze names, is gone", place.path)
    is_known = topic.name in bronze.state.note.ledger or bool(known.missing)
    ledger = _select_ledger(known.ledger, checkpoint, is_known)
    dlqs = list_paths(known, bronze, dlq)[1:]
    tables = {"bronze": [bronze.path], "dlq": dlqs}
    log.info("Audit: counting the positions of %s in the tables", topic.name)
    found = _collect_bitmaps(spark, tables, topic.name)
    held = list_offsets(spark, config, topic)
    audits = [
        _audit_partition(p, found, held.get(p, (0, 0)), checkpoint, ledger)
        for p in sorted({*held, *found["bronze"].bits, *found["dlq"].bits})
    ]
    _add_doubled(spark, tables, topic.name, found, audits)
    explain_gaps(spark, config, audits, ledger.lost)
    _look_again(spark, [bronze.path, *dlqs], topic.name, audits)
    return AuditReport(topic.name, audits)


def _select_ledger(ledger: TopicLedger, checkpoint: Checkpoint | None, is_known: bool) -> TopicLedger:
    """What was read: as the commits say, or of a table of an older version, as the checkpoint does."""
    return ledger if is_known or not checkpoint else ledger.add_read(checkpoint.done, {}, checkpoint.begins)


def _read_checkpoint(spark: SparkSession, config: AuditConfig, table: TableState) -> Checkpoint | None:
    """The checkpoint, where one is given: it must be there, and of this table, or it would hide what is missing."""
    if not config.checkpoint_path:
        log.warning("Warning: without --checkpoint-path, what is missing after a partition's last row counts as lag")
        return None
    path = qualify_path(spark, config.checkpoint_path)
    checkpoint = read_checkpoint(spark, path, config.kafka_topic)
    if checkpoint is None:
        raise no_checkpoint_error(config.checkpoint_path)
    check_tables_of(spark, config, path, checkpoint, table)
    return checkpoint


def _collect_bitmaps(spark: SparkSession, tables: dict[str, list[str]], topic: str) -> dict[str, _Bitmaps]:
    """The positions in bronze and in all DLQs, from one Spark job."""
    labelled = [
        select_positions(spark, path, topic).withColumn("table", F.lit(name))
        for name, paths in tables.items()
        for path in paths
    ]
    found = {name: _Bitmaps() for name in tables}
    bitmaps = reduce(DataFrame.unionAll, labelled).transform(build_bitmaps, "table")
    for name, partition, bucket, bits, count in bitmaps.collect():
        found[name].add(partition, bucket, bits, count)
    return found


def _audit_partition(
    partition: int,
    found: dict[str, _Bitmaps],
    held: tuple[int, int],
    checkpoint: Checkpoint | None,
    ledger: TopicLedger,
) -> PartitionAudit:
    """What the bitmaps of a partition say, before Kafka is asked about the gaps."""
    in_bronze, in_dlq = (found[name].bits.get(partition, {}) for name in ("bronze", "dlq"))
    present = list_runs(combine_bitmaps(in_bronze, in_dlq, np.bitwise_or))
    last = present[-1][1] if present else -1
    read = ledger.read.get(partition, [])
    start, read_to = held[0], max(last, read[-1][1] if read else -1) + 1
    if checkpoint:
        start = checkpoint.begins.get(partition, 0)
        read_to = checkpoint.starts.get(partition, 0)
    promised_to = read_to
    if ledger.begins:
        start = ledger.begins.get(partition, 0)  # one that was added later begins at its first record
        promised_to = max(read_to, held[0])  # what Kafka deleted is no lag: nobody will read it
    elif present:
        start = min(start, present[0][0])
    promised = merge_ranges(read, [(start, promised_to - 1)] if start < promised_to else [])
    return PartitionAudit(
        partition=partition,
        first=present[0][0] if present else None,
        last=last if present else None,
        bronze_rows=found["bronze"].rows[partition],
        dlq_rows=found["dlq"].rows[partition],
        earliest=held[0],
        end=held[1],
        lag=max(0, held[1] - max(read_to, held[0])),
        in_both=list_runs(combine_bitmaps(in_bronze, in_dlq, np.bitwise_and)),
        beyond_checkpoint=clip_ranges(present, read_to, last + 1),
        read=read,
        records=ledger.records.get(partition, 0),
        gaps=subtract_ranges(promised, present),
    )


def _add_doubled(
    spark: SparkSession,
    tables: dict[str, list[str]],
    topic: str,
    found: dict[str, _Bitmaps],
    audits: list[PartitionAudit],
) -> None:
    """Name the offsets that a table has twice, and those in both tables that were not replayed from the DLQ."""
    doubled: OffsetRanges = {}
    for name, paths in tables.items():
        if suspicious := found[name].suspicious:
            positions = reduce(DataFrame.unionAll, (select_positions(spark, path, topic) for path in paths))
            counted = positions.where(is_within(suspicious)).groupBy("_kafka_partition", "_kafka_offset").count()
            for partition, ranges in collect_ranges(counted.where("count > 1").transform(build_bitmaps)).items():
                doubled[partition] = sorted({*doubled.get(partition, []), *ranges})
    shared = {a.partition: (a.in_both[0][0], a.in_both[-1][1] + 1) for a in audits if a.in_both}
    contradicting = _find_not_replayed(spark, tables, topic, shared) if shared else {}
    for audit in audits:
        audit.doubled += doubled.get(audit.partition, [])
        audit.contradicting += contradicting.get(audit.partition, [])


def _find_not_replayed(
    spark: SparkSession, tables: dict[str, list[str]], topic: str, shared: PlannedOffsets
) -> OffsetRanges:
    """Positions in both tables that were not replayed: a replay's row in bronze is valid, and the later one."""

    def read(path: str, name: str, *columns: str) -> DataFrame:
        rows = spark.read.format("delta").load(path).where(F.col("_kafka_topic") == topic).where(is_within(shared))
        return rows.select("_kafka_partition", "_kafka_offset", F.col("_ingested_at").alias(name), *columns)

    in_dlq = reduce(DataFrame.unionAll, (read(path, "dlq_time") for path in tables["dlq"]))
    in_bronze = read(tables["bronze"][0], "bronze_time", "_is_valid")
    both = in_bronze.join(in_dlq, ["_kafka_partition", "_kafka_offset"])
    is_replayed = F.expr("_is_valid AND bronze_time > dlq_time")
    return collect_ranges(both.where(~F.coalesce(is_replayed, F.lit(False))).transform(build_bitmaps))


def _look_again(spark: SparkSession, tables: list[str], topic: str, audits: list[PartitionAudit]) -> None:
    """Take back what a stream has committed since: the tables are not read at one moment."""
    absent = {a.partition: merge_ranges(a.missing, a.unread) for a in audits}
    present = find_present(spark, tables, topic, find_bounds({p: ranges for p, ranges in absent.items() if ranges}))
    for audit in audits:
        audit.missing = subtract_ranges(audit.missing, present.get(audit.partition, []))
        audit.unread = subtract_ranges(audit.unread, present.get(audit.partition, []))
