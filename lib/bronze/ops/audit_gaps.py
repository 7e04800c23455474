"""Explain why an offset has no row: Kafka deleted it, has no record there, or the tables lack the record."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from bronze.delta.ledger import TopicLedger
from bronze.delta.positions import collect_offsets
from bronze.errors import RecordUnreadableError
from bronze.kafka.client import KafkaClient
from bronze.kafka.read import read_records
from bronze.offsets import EMPTY, Bounds, OffsetSet, Range
from bronze.ops.audit_report import ABORTED, ACCEPTED, NO_RECORD, READ
from bronze.runtime.spark_errors import explain_failure

log = logging.getLogger(__name__)

# Gaps that are closer together than this are read as one, because each separate read of Kafka costs more.
_NEAR = 100_000
# Maximum number of Kafka reads per audit.
_READS = 20


@dataclass(frozen=True)
class Gaps:
    """The offsets that no table has, by reason.

    Attributes:
        missing: Finding: Kafka has a record there.
        unread: Finding: no commit has read them, and Kafka no longer holds them.
        removed: Finding: some of them held a record that was committed and is no longer in any table.
        removed_records: Number of such records, per partition.
        explained: The other offsets, by reason.
    """

    missing: OffsetSet
    unread: OffsetSet
    removed: OffsetSet
    removed_records: dict[int, int]
    explained: dict[str, OffsetSet]


def explain_gaps(client: KafkaClient, gaps: OffsetSet, ledger: TopicLedger, available: Bounds) -> Gaps:
    """Explain each offset that no table has. Reads Kafka only around the gaps.

    Args:
        client: Client of Kafka.
        gaps: The offsets.
        ledger: The offsets that were read, and those whose loss was accepted.
        available: The offsets that Kafka holds.
    """
    held = (gaps - ledger.lost) & OffsetSet.between(available)
    gone = gaps - ledger.lost - held  # only the commits tell whether they were read
    missing = held & _read_within(client, held, "read_committed")
    absent = held - missing
    written = _read_within(client, absent, "read_uncommitted")
    explained = {
        ACCEPTED: gaps & ledger.lost,
        READ: gone & ledger.read,
        ABORTED: absent & written,
        NO_RECORD: absent - written,
    }
    return find_removed(Gaps(missing, gone - ledger.read, EMPTY, {}, explained), gaps, ledger)


def find_removed(gaps: Gaps, absent: OffsetSet, ledger: TopicLedger) -> Gaps:
    """Compare the positions with the number of records that the commits read. If there are fewer, rows were removed.

    If Kafka no longer holds the offsets, it is unknown which of those without a row held the removed records.

    Args:
        gaps: All offsets without a row, by reason.
        absent: All offsets without a row.
        ledger: The offsets that were read.
    """
    without_row, missing = (ledger.read & absent).counts, (ledger.read & gaps.missing).counts
    removed, records = EMPTY, {}
    for p, count in ledger.read.counts.items():
        found = count - without_row.get(p, 0) + missing.get(p, 0)
        if found < ledger.records.get(p, 0):
            records[p] = ledger.records[p] - found
            only = OffsetSet({p: absent[p]}) & ledger.read
            removed |= (only & (gaps.explained[READ] | gaps.explained[NO_RECORD])) or only
    explained = gaps.explained | {reason: gaps.explained[reason] - removed for reason in (READ, NO_RECORD)}
    for p in removed:  # its other deleted offsets count as offsets without a record in Kafka
        rest = OffsetSet({p: explained[READ][p]})
        explained[READ], explained[NO_RECORD] = explained[READ] - rest, explained[NO_RECORD] | rest
    return Gaps(gaps.missing, gaps.unread, removed, records, explained)


def _read_within(client: KafkaClient, gaps: OffsetSet, isolation: str) -> OffsetSet:
    """The offsets at which Kafka has records, in and around gaps."""
    found = EMPTY
    for bounds in plan_reads(gaps):
        log.info("Audit: looking in Kafka for %s offsets that no table has", f"{gaps.clip(bounds).count:,}")
        found |= _read_offsets(client, bounds, isolation)
    return found


def _read_offsets(client: KafkaClient, bounds: Bounds, isolation: str) -> OffsetSet:
    """The offsets at which Kafka has records, from a read of the topic. A record that Spark cannot read counts too."""
    try:
        return collect_offsets(read_records(client, bounds, isolation).transform(select_offsets))
    except (Py4JJavaError, PySparkException) as error:
        record = explain_failure(error)
        if not isinstance(record, RecordUnreadableError):
            raise
    (first, end), offset = bounds[record.partition], record.offset
    found = OffsetSet({record.partition: [(offset, offset)]})
    for rest in (bounds | {record.partition: (first, offset)}, {record.partition: (offset + 1, end)}):
        found |= _read_offsets(client, rest, isolation)
    return found


def select_offsets(records: DataFrame) -> DataFrame:
    """Rename Kafka's columns to the tables' names: ``_kafka_partition``, ``_kafka_offset``."""
    return records.selectExpr("partition AS _kafka_partition", "offset AS _kafka_offset")


def plan_reads(gaps: OffsetSet, near: int = _NEAR, reads: int = _READS) -> list[Bounds]:
    """Cover gaps with a few reads, each of one span per partition. Gaps that are close together share a span.

    Args:
        gaps: The offsets.
        near: Gaps with at most this many offsets between them are read as one.
        reads: Maximum number of reads; ``near`` is doubled until they suffice.
    """
    spans = {partition: _join_near(ranges, near) for partition, ranges in gaps.items()}
    count = max(map(len, spans.values()), default=0)
    if count > reads:
        return plan_reads(gaps, near * 2, reads)
    return [{p: joined[n] for p, joined in spans.items() if n < len(joined)} for n in range(count)]


def _join_near(ranges: Sequence[Range], near: int) -> list[tuple[int, int]]:
    """Join ranges that are close together; return first and end (exclusive) offsets."""
    joined: list[tuple[int, int]] = []
    for first, last in ranges:
        if joined and first - joined[-1][1] <= near:
            joined[-1] = (joined[-1][0], last + 1)
        else:
            joined.append((first, last + 1))
    return joined
