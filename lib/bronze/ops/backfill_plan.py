"""The plan of a backfill: which offsets of the range exist, are lost in Kafka, or are to be added. No I/O.

The plan counts offsets, not records: only a read shows which offsets are transaction markers or were compacted.
"""

from collections import deque
from dataclasses import dataclass, field

import pandas as pd

from bronze.checkpoint import Checkpoint
from bronze.config import BackfillConfig
from bronze.kafka.client import KafkaClient
from bronze.kafka.times import find_offsets_at, find_timestamps, format_timestamp
from bronze.kafka.topic import unknown_partitions_error
from bronze.offsets import MAX_OFFSET, Bounds, OffsetSet, Range, format_ranges
from bronze.parsing import parse_timestamp

# Missing offsets closer together than this are read as one, because a separate batch costs more.
_NEAR = 100_000
_COLUMNS = [
    *("partition", "first", "end", "offsets", "in the tables", "lost in Kafka", "not in Kafka yet", "to do"),
    *("Kafka earliest", "Kafka end"),
]


@dataclass(frozen=True)
class BackfillPlan:
    """The plan of a backfill: each requested offset is in the tables, lost, beyond or missing.

    Attributes:
        topic: Kafka topic.
        requested: First and end (exclusive) offset per partition.
        available: First and end (exclusive) offset that Kafka holds, per partition.
        lost: Offsets that no table has and Kafka deleted.
        beyond: Offsets that no table has and Kafka has not reached yet, or that belong to open transactions.
        missing: Offsets that no table has and Kafka holds: to do.
        batches: The offsets that each batch reads; only the missing ones are added.
        outside: Why Kafka does not hold the whole range, a line per partition; empty if it does.
        notes: Other offsets that are skipped, and why.
    """

    topic: str
    requested: Bounds
    available: Bounds
    lost: OffsetSet
    beyond: OffsetSet
    missing: OffsetSet
    batches: list[Bounds]
    outside: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def offsets(self) -> int:
        """Number of requested offsets."""
        return OffsetSet.between(self.requested).count

    @property
    def planned(self) -> int:
        """Number of offsets to add."""
        return self.missing.count

    @property
    def present(self) -> int:
        """Number of requested offsets that the tables already have."""
        return self.offsets - self.lost.count - self.beyond.count - self.missing.count

    def to_frame(self) -> pd.DataFrame:
        """A row per partition; ``end`` and ``Kafka end`` are exclusive."""
        lost, beyond, missing = self.lost.counts, self.beyond.counts, self.missing.counts
        rows = []
        for p, (first, end) in self.requested.items():
            absent = (lost.get(p, 0), beyond.get(p, 0), missing.get(p, 0))
            rows.append((p, first, end, end - first, end - first - sum(absent), *absent, *self.available[p]))
        return pd.DataFrame(rows, columns=_COLUMNS).set_index("partition")

    def to_text(self) -> str:
        """The table, the skipped offsets, and the sum."""
        table = self.to_frame().reset_index().to_string(index=False)
        outside = [f"Kafka does not hold: {reason}" for reason in self.outside]
        return "\n".join([table, "", *outside, *self.notes, self.describe()])

    def describe(self) -> str:
        """The plan in one line."""
        return (
            f"{self.offsets:,} offsets of {self.topic} are requested: {self.present:,} in the tables already, "
            f"{self.lost.count:,} lost in Kafka, {self.planned:,} to do in {len(self.batches):,} batches"
        )


def plan_range(topic: str, requested: Bounds, available: Bounds, ingested: OffsetSet, max_offsets: int) -> BackfillPlan:
    """Divide the requested offsets by where they are, and plan the batches of the missing ones.

    Args:
        topic: Kafka topic.
        requested: First and end (exclusive) offset per partition.
        available: First and end (exclusive) offset that Kafka holds, per partition.
        ingested: The offsets that the tables have.
        max_offsets: Maximum number of offsets in a batch.
    """
    absent = OffsetSet.between(requested) - ingested
    missing = absent.clip(available)
    return BackfillPlan(
        topic,
        requested,
        available,
        lost=absent.clip({p: (0, earliest) for p, (earliest, _) in available.items()}),
        beyond=absent.clip({p: (end, MAX_OFFSET) for p, (_, end) in available.items()}),
        missing=missing,
        batches=plan_batches(missing, max_offsets),
    )


def explain_outside(plan: BackfillPlan, partition: int) -> str:
    """Why a part of a partition's range is not available; empty if all of it is in the tables or in Kafka."""
    (first, end), (earliest, latest) = plan.requested[partition], plan.available[partition]
    lost = plan.lost[partition]
    reasons = [f"offsets {format_ranges(lost)} are deleted"] if lost else []
    if plan.beyond[partition] or first > latest:
        reasons.append(f"it ends before offset {max(first, end - 1)}")
    if not reasons:
        return ""
    holds = f"holds {earliest} to {latest - 1}" if earliest < latest else f"holds nothing before offset {latest}"
    return f"partition {partition} {holds}, {' and '.join(reasons)}"


def plan_batches(missing: OffsetSet, max_offsets: int, near: int = _NEAR) -> list[Bounds]:
    """Cover missing offsets with batches over all partitions, each partition in ascending order.

    Args:
        missing: The offsets.
        max_offsets: Maximum number of offsets in a batch, including those between ranges that are read as one.
        near: Ranges of a partition with at most this many offsets between them are read as one.
    """
    left = {partition: deque(ranges) for partition, ranges in missing.items()}
    sizes = missing.counts
    batches = []
    while left:
        batch, total, room = {}, sum(sizes.values()), max_offsets
        for partition in list(left):
            # In proportion to what is left, so that all partitions finish at about the same time.
            limit = min(room, max(1, max_offsets * sizes[partition] // total))
            if not limit:
                break
            batch[partition], taken = _take_span(left[partition], limit, near)
            room -= batch[partition][1] - batch[partition][0]
            sizes[partition] -= taken
            if not left[partition]:
                del left[partition], sizes[partition]
        batches.append(batch)
    return batches


def _take_span(ranges: deque[Range], limit: int, near: int) -> tuple[tuple[int, int], int]:
    """Take a span off the front of ranges: its first and end (exclusive) offset, and how many offsets it takes."""
    first = end = ranges[0][0]
    taken = 0
    while ranges and ranges[0][0] < first + limit and ranges[0][0] - end <= near:
        low, high = ranges.popleft()
        end = min(high + 1, first + limit)
        taken += end - low
        if end <= high:
            ranges.appendleft((end, high))
            break
    return (first, end), taken


# Up to this many records at the start of a partition with implausible timestamps may precede a time range.
_ODD = 100


def resolve_offsets(config: BackfillConfig, available: Bounds) -> Bounds:
    """First and end offset of each named partition, or of all partitions if none is named.

    Raises:
        ConfigError: A named partition does not exist.
    """
    starts, ends = config.parse_range()
    for name, offsets in (("starting_offsets", starts), ("ending_offsets", ends)):
        if unknown := sorted(set(offsets or ()) - set(available)):
            raise unknown_partitions_error(name, config.kafka_topic, unknown)
    requested = {}
    for partition in sorted(starts or ends or available):
        first, end = (starts or {}).get(partition, -2), (ends or {}).get(partition, -1)
        earliest, latest = available[partition]
        first = earliest if first < 0 else first
        requested[partition] = (first, max(first, latest if end < 0 else end))
    return requested


def resolve_times(client: KafkaClient, config: BackfillConfig, available: Bounds) -> Bounds:
    """The offsets from the first record at or after the start time to the first at or after the end time.

    Kafka finds them per partition. If timestamps do not ascend, the range may include or miss records near its
    bounds. A record with an implausible timestamp is included if it lies within the range.
    """
    names = ("start_timestamp", "end_timestamp")
    starts, ends = (
        {} if ms is None else find_offsets_at(client, ms, available, is_end=name == "end_timestamp")
        for name, ms in ((name, parse_timestamp(name, getattr(config, name))) for name in names)
    )
    requested = {}
    for partition, (earliest, latest) in available.items():
        first, end = starts.get(partition, earliest), ends.get(partition, latest)
        first, end = latest if first < 0 else first, latest if end < 0 else end
        requested[partition] = (min(first, latest), max(min(first, latest), min(end, latest)))
    return requested


def limit_to_planned(requested: Bounds, checkpoint: Checkpoint) -> Bounds:
    """End each partition where the checkpoint's query has planned to; the rest is left to that query."""
    # The query reads a partition that it does not know yet from the first record.
    ends = checkpoint.end_offsets
    return {p: (first, max(first, min(end, ends.get(p, 0)))) for p, (first, end) in requested.items()}


def explain_other_times(client: KafkaClient, config: BackfillConfig, requested: Bounds, available: Bounds) -> str:
    """Why a time range has no records, if all of Kafka's records are earlier or all are later; otherwise empty."""
    is_after = bool(config.start_timestamp) and all(requested[p][0] == available[p][1] for p in requested)
    is_before = bool(config.end_timestamp) and all(requested[p][1] == available[p][0] for p in requested)
    return f"its records are from {_format_times(client, available)}" if is_after or is_before else ""


def find_cut_off(client: KafkaClient, config: BackfillConfig, requested: Bounds, available: Bounds) -> dict[int, str]:
    """Partitions whose earliest record in Kafka is later than the start time, and whose earlier records were deleted.

    How many of the deleted records were in the time range is unknown.
    """
    start = parse_timestamp("start_timestamp", config.start_timestamp) or 0
    begun = [p for p, (first, _) in requested.items() if available[p][0] > 0 and first - available[p][0] <= _ODD]
    if not begun:
        return {}
    times = find_timestamps(client, available)
    return {
        p: f"partition {p} holds {available[p][0]} to {available[p][1] - 1}, from {format_timestamp(times[p][0])} on, "
        "and records before that are deleted"
        for p in begun
        if times[p][0] > start
    }


def _format_times(client: KafkaClient, available: Bounds) -> str:
    times = [t for t in find_timestamps(client, available).values() if t[0] >= 0]
    if not times:
        return "no time, because it has none"
    return f"{format_timestamp(min(t[0] for t in times))} to {format_timestamp(max(t[1] for t in times))}"
