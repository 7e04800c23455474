"""Why an offset has no row: Kafka deleted it, has no record there, or the record is missing in the tables."""

import logging
from collections.abc import Sequence

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from bronze.config import KafkaConfig
from bronze.errors import RecordUnreadableError
from bronze.kafka.read import read_positions
from bronze.offsets import (
    MAX_OFFSET,
    OffsetRanges,
    PlannedOffsets,
    clip_ranges,
    count_offsets,
    merge_ranges,
    subtract_ranges,
)
from bronze.ops.audit_report import ABORTED, ACCEPTED, NO_RECORD, READ, PartitionAudit
from bronze.runtime.spark_errors import explain_failure

log = logging.getLogger(__name__)

# Gaps that are nearer than this to one another are read as one; a Kafka read of its own costs more.
_NEAR = 100_000
# Reads of Kafka at the most for one audit.
_READS = 20


def explain_gaps(
    spark: SparkSession, config: KafkaConfig, audits: Sequence[PartitionAudit], accepted: OffsetRanges
) -> None:
    """Move the gaps of each partition into ``explained`` or a finding; reads Kafka only around the gaps.

    Args:
        spark: Session.
        config: Where Kafka is.
        audits: The partitions.
        accepted: Offsets whose loss was accepted.
    """
    absent = {audit.partition: audit.gaps for audit in audits}
    for audit in audits:
        _explain_gone(audit, accepted.get(audit.partition, []))
    open_gaps = {audit.partition: audit.gaps for audit in audits if audit.gaps}
    committed = _read_within(spark, config, open_gaps, "read_committed") if open_gaps else {}
    without = {p: subtract_ranges(ranges, committed.get(p, [])) for p, ranges in open_gaps.items()}
    closed = {p: ranges for p, ranges in without.items() if ranges}
    written = _read_within(spark, config, closed, "read_uncommitted") if closed else {}
    for audit in audits:
        _explain(audit, without.get(audit.partition, []), written.get(audit.partition, []))
        find_removed(audit, absent[audit.partition])


def _explain_gone(audit: PartitionAudit, accepted: list[tuple[int, int]]) -> None:
    """Explain the gaps that Kafka does not hold any more: only the commits say whether they were read."""
    rest = subtract_ranges(audit.gaps, accepted)
    gone = [*clip_ranges(rest, 0, audit.earliest), *clip_ranges(rest, audit.end, MAX_OFFSET)]
    audit.unread = subtract_ranges(gone, audit.read)
    reasons = {ACCEPTED: subtract_ranges(audit.gaps, rest), READ: subtract_ranges(gone, audit.unread)}
    audit.explained |= {reason: ranges for reason, ranges in reasons.items() if ranges}
    audit.gaps = clip_ranges(rest, audit.earliest, audit.end)


def _explain(audit: PartitionAudit, without: list[tuple[int, int]], written: list[tuple[int, int]]) -> None:
    audit.missing = subtract_ranges(audit.gaps, without)
    never_written = subtract_ranges(without, written)
    reasons = {
        ABORTED: subtract_ranges(without, never_written),
        NO_RECORD: never_written,
    }
    audit.explained |= {reason: ranges for reason, ranges in reasons.items() if ranges}
    audit.gaps = []


def find_removed(audit: PartitionAudit, absent: list[tuple[int, int]]) -> None:
    """Compare with the number of records that the commits say were read: fewer positions were removed since.

    Which of the offsets without a row held them cannot be told where Kafka does not hold them any more.

    Args:
        audit: The partition, with all gaps explained.
        absent: All offsets that no table has.
    """
    unread = subtract_ranges(absent, audit.read)
    present = count_offsets(audit.read) - count_offsets(subtract_ranges(absent, unread))
    missing = count_offsets(subtract_ranges(audit.missing, unread))
    audit.removed_records = max(0, audit.records - present - missing)
    if audit.removed_records:
        candidates = merge_ranges(audit.explained.pop(READ, []), audit.explained.pop(NO_RECORD, []))
        audit.removed = subtract_ranges(candidates, unread) or subtract_ranges(absent, unread)
        if rest := subtract_ranges(candidates, audit.removed):
            audit.explained[NO_RECORD] = rest


def _read_within(spark: SparkSession, config: KafkaConfig, gaps: OffsetRanges, isolation: str) -> OffsetRanges:
    """The offsets at which Kafka has records, in and around gaps."""
    found: OffsetRanges = {}
    for planned in plan_reads(gaps):
        log.info("Audit: looking in Kafka for %s offsets that no table has", f"{_count(gaps, planned):,}")
        for partition, ranges in _read_readable(spark, config, planned, isolation).items():
            found.setdefault(partition, []).extend(ranges)
    return found


def _read_readable(spark: SparkSession, config: KafkaConfig, planned: PlannedOffsets, isolation: str) -> OffsetRanges:
    """The offsets at which Kafka has records; one that Spark cannot read is there all the same."""
    try:
        return read_positions(spark, config, planned, isolation)
    except (Py4JJavaError, PySparkException) as error:
        record = explain_failure(error)
        if not isinstance(record, RecordUnreadableError):
            raise
    first, end = planned[record.partition]
    found: OffsetRanges = {record.partition: [(record.offset, record.offset)]}
    for rest in (planned | {record.partition: (first, record.offset)}, {record.partition: (record.offset + 1, end)}):
        for partition, ranges in _read_readable(spark, config, rest, isolation).items():
            found[partition] = merge_ranges(found.get(partition, []), ranges)
    return found


def _count(gaps: OffsetRanges, planned: PlannedOffsets) -> int:
    return sum(count_offsets(clip_ranges(gaps[p], *span)) for p, span in planned.items())


def plan_reads(gaps: OffsetRanges, near: int = _NEAR, reads: int = _READS) -> list[PlannedOffsets]:
    """Cover gaps by a few reads, each of one span in a partition; near gaps share a span.

    Args:
        gaps: Ascending ranges per partition.
        near: Gaps with no more offsets between them are read as one.
        reads: At the most; with more, ``near`` is doubled until they are enough.
    """
    spans = {partition: _join_near(ranges, near) for partition, ranges in gaps.items() if ranges}
    count = max(map(len, spans.values()), default=0)
    if count > reads:
        return plan_reads(gaps, near * 2, reads)
    return [{p: joined[n] for p, joined in spans.items() if n < len(joined)} for n in range(count)]


def _join_near(ranges: Sequence[tuple[int, int]], near: int) -> list[tuple[int, int]]:
    """First and end (exclusive) offsets of spans."""
    joined: list[tuple[int, int]] = []
    for first, last in ranges:
        if joined and first - joined[-1][1] <= near:
            joined[-1] = (joined[-1][0], last + 1)
        else:
            joined.append((first, last + 1))
    return joined
