"""What a backfill would do: of the range that is asked for, what the tables have, what Kafka lost, what is to do. Pure.

Offsets are counted, not records: which of them are transaction markers or were compacted is known by reading only.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
from pyspark.sql import SparkSession

from bronze.checkpoint import no_checkpoint_error, read_checkpoint
from bronze.config import BackfillConfig
from bronze.delta.tables import TableState
from bronze.kafka.times import find_offsets_at, find_timestamps, format_timestamp
from bronze.kafka.topic import Topic, unknown_partitions_error
from bronze.offsets import OffsetRanges, PlannedOffsets, clip_ranges, count_offsets, describe_ranges, invert_ranges
from bronze.parsing import parse_timestamp
from bronze.resume import check_tables_of
from bronze.runtime.paths import qualify_path

# Missing offsets that are nearer than this to one another are read as one; a batch of its own costs more.
_NEAR = 100_000


@dataclass(frozen=True)
class PartitionPlan:
    """One Kafka partition of the range.

    Attributes:
        partition: Kafka partition.
        first: First offset that is asked for.
        end: End of what is asked for, exclusive.
        held: Earliest offset that Kafka holds, and its end, exclusive.
        lost: Offsets that no table has and Kafka deleted.
        beyond: Offsets that no table has and Kafka has not reached, or that are of open transactions.
        missing: Offsets that no table has and Kafka can give: to do.
    """

    partition: int
    first: int
    end: int
    held: tuple[int, int]
    lost: list[tuple[int, int]]
    beyond: list[tuple[int, int]]
    missing: list[tuple[int, int]]

    @property
    def offsets(self) -> int:
        """Offsets that are asked for."""
        return self.end - self.first

    @property
    def present(self) -> int:
        """Offsets that the tables have already."""
        return self.offsets - sum(map(count_offsets, (self.lost, self.beyond, self.missing)))


@dataclass(frozen=True)
class BackfillPlan:
    """The plan of a backfill.

    Attributes:
        topic: Kafka topic.
        partitions: What is asked for and what is to do, per partition.
        batches: What is read at a time; only what is missing in it is added.
        outside: Why the range is not all to be had, a line per partition; empty where it is.
        notes: What else is left out, and why.
    """

    topic: str
    partitions: list[PartitionPlan]
    batches: list[PlannedOffsets]
    outside: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def missing(self) -> OffsetRanges:
        """The offsets to add."""
        return {p.partition: p.missing for p in self.partitions}

    @property
    def planned(self) -> int:
        """How many offsets are to be added."""
        return sum(count_offsets(p.missing) for p in self.partitions)

    @property
    def present(self) -> int:
        """How many offsets of the range are in the tables already."""
        return sum(p.present for p in self.partitions)

    @property
    def lost(self) -> int:
        """How many offsets of the range Kafka has deleted and no table has."""
        return sum(count_offsets(p.lost) for p in self.partitions)

    def to_frame(self) -> pd.DataFrame:
        """A row per partition; ``end`` and ``Kafka end`` are exclusive."""
        rows = [
            {
                "partition": p.partition,
                "first": p.first,
                "end": p.end,
                "offsets": p.offsets,
                "in the tables": p.present,
                "lost in Kafka": count_offsets(p.lost),
                "not in Kafka yet": count_offsets(p.beyond),
                "to do": count_offsets(p.missing),
                "Kafka earliest": p.held[0],
                "Kafka end": p.held[1],
            }
            for p in self.partitions
        ]
        return pd.DataFrame(rows).set_index("partition")

    def to_text(self) -> str:
        """The table, what is left out, and the sum."""
        table = self.to_frame().reset_index().to_string(index=False)
        outside = [f"outside of what Kafka holds: {reason}" for reason in self.outside]
        return "\n".join([table, "", *outside, *self.notes, self.describe()])

    def describe(self) -> str:
        """The plan in one line."""
        asked = sum(p.offsets for p in self.partitions)
        return (
            f"{asked:,} offsets of {self.topic} are asked for: {self.present:,} in the tables already, "
            f"{self.lost:,} lost in Kafka, {self.planned:,} to do in {len(self.batches):,} batches"
        )


def plan_partition(
    partition: int, wanted: tuple[int, int], held: tuple[int, int], present: Sequence[tuple[int, int]]
) -> PartitionPlan:
    """Divide what is asked for by where it is.

    Args:
        partition: Kafka partition.
        wanted: First and end (exclusive) offset that are asked for.
        held: First and end (exclusive) offset that Kafka holds.
        present: What the tables have, in ascending ranges.
    """
    absent = invert_ranges(present, *wanted)
    return PartitionPlan(
        partition,
        *wanted,
        held,
        lost=clip_ranges(absent, wanted[0], held[0]),
        beyond=clip_ranges(absent, held[1], wanted[1]),
        missing=clip_ranges(absent, *held),
    )


def describe_outside(plan: PartitionPlan) -> str:
    """Why a part of the range is not to be had; empty where all is in the tables or in Kafka."""
    reasons = [f"offsets {describe_ranges(plan.lost)} are deleted"] if plan.lost else []
    if plan.beyond or plan.first > plan.held[1]:
        reasons.append(f"it ends before offset {max(plan.first, plan.end - 1)}")
    if not reasons:
        return ""
    first, end = plan.held
    holds = f"holds {first} to {end - 1}" if first < end else f"holds nothing before offset {end}"
    return f"partition {plan.partition} {holds}, {' and '.join(reasons)}"


def plan_batches(missing: OffsetRanges, max_offsets: int, near: int = _NEAR) -> list[PlannedOffsets]:
    """Cover missing offsets by batches, all partitions side by side, each in ascending order.

    Args:
        missing: Ascending ranges per partition.
        max_offsets: Offsets in a batch at the most, those between near ranges included.
        near: Ranges of a partition with no more offsets between them are read as one.
    """
    left = {partition: deque(ranges) for partition, ranges in missing.items() if ranges}
    sizes = {partition: count_offsets(ranges) for partition, ranges in left.items()}
    batches = []
    while left:
        batch, total, room = {}, sum(sizes.values()), max_offsets
        for partition in list(left):
            # In proportion to what is left, so that all partitions are done at about the same time.
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


def _take_span(ranges: deque[tuple[int, int]], limit: int, near: int) -> tuple[tuple[int, int], int]:
    """Take a span off the front of ranges: its first and end (exclusive) offset, and how many it has of them."""
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


# Records at a partition's begin whose timestamps no clock could mean may stand before the first one of a time range.
_ODD = 100


def resolve_offsets(config: BackfillConfig, topic: Topic, held: PlannedOffsets) -> PlannedOffsets:
    """First and end offset of each partition that is named, of all where none is.

    Raises:
        ConfigError: A named partition does not exist.
    """
    starts, ends = config.parse_range()
    for name, offsets in (("starting_offsets", starts), ("ending_offsets", ends)):
        if unknown := sorted(set(offsets or ()) - set(topic.partitions)):
            raise unknown_partitions_error(name, topic.name, unknown)
    wanted = {}
    for partition in sorted(starts or ends or topic.partitions):
        first, end = (starts or {}).get(partition, -2), (ends or {}).get(partition, -1)
        earliest, latest = held[partition]
        first = earliest if first < 0 else first
        wanted[partition] = (first, max(first, latest if end < 0 else end))
    return wanted


def resolve_times(spark: SparkSession, config: BackfillConfig, topic: Topic, held: PlannedOffsets) -> PlannedOffsets:
    """The offsets from the first record at or after the one time to the first at or after the other.

    Kafka finds them per partition. Where a producer's timestamps do not ascend, records beside the borders may be of
    other times. A record whose timestamp no clock could mean is taken by its place.
    """
    names = ("start_timestamp", "end_timestamp")
    starts, ends = (
        {} if ms is None else find_offsets_at(spark, config, topic, ms, held, is_end=name == "end_timestamp")
        for name, ms in ((name, parse_timestamp(name, getattr(config, name))) for name in names)
    )
    wanted = {}
    for partition, (earliest, latest) in held.items():
        first, end = starts.get(partition, earliest), ends.get(partition, latest)
        first, end = latest if first < 0 else first, latest if end < 0 else end
        wanted[partition] = (min(first, latest), max(min(first, latest), min(end, latest)))
    return wanted


def describe_other_times(
    spark: SparkSession, config: BackfillConfig, topic: Topic, wanted: PlannedOffsets, held: PlannedOffsets
) -> str:
    """Why a time range holds nothing, where all of Kafka's records are earlier, or all later; else empty."""
    is_after = bool(config.start_timestamp) and all(wanted[p][0] == held[p][1] for p in wanted)
    is_before = bool(config.end_timestamp) and all(wanted[p][1] == held[p][0] for p in wanted)
    return f"its records are of {_describe_times(spark, config, topic, held)}" if is_after or is_before else ""


def find_cut_off(
    spark: SparkSession, config: BackfillConfig, topic: Topic, wanted: PlannedOffsets, held: PlannedOffsets
) -> dict[int, str]:
    """Partitions in which Kafka's earliest record is later than the start time, and it has deleted earlier ones.

    How many of those were of the time range cannot be known.
    """
    start = parse_timestamp("start_timestamp", config.start_timestamp) or 0
    begun = [p for p, (first, _) in wanted.items() if held[p][0] > 0 and first - held[p][0] <= _ODD]
    if not begun:
        return {}
    times = find_timestamps(spark, config, topic, held)
    return {
        p: f"partition {p} holds {held[p][0]} to {held[p][1] - 1}, from {format_timestamp(times[p][0])} on, and "
        "records before that are deleted"
        for p in begun
        if times[p][0] > start
    }


def limit_to_planned(
    spark: SparkSession, config: BackfillConfig, table: TableState | None, wanted: PlannedOffsets
) -> PlannedOffsets:
    """End each partition where the live query of the checkpoint has planned to; the rest is left to it.

    Raises:
        ConfigError: There is none, or it has planned nothing. A file of it is missing or cut off. It has the offsets of
            another topic, or was used with another bronze table.
    """
    path = qualify_path(spark, config.checkpoint_path)
    checkpoint = read_checkpoint(spark, path, config.kafka_topic)
    if checkpoint is None:
        raise no_checkpoint_error(config.checkpoint_path)
    check_tables_of(spark, config, path, checkpoint, table)
    # A partition that the query does not know yet is read by it from the first record on.
    return {p: (first, max(first, min(end, checkpoint.ends.get(p, 0)))) for p, (first, end) in wanted.items()}


def _describe_times(spark: SparkSession, config: BackfillConfig, topic: Topic, held: PlannedOffsets) -> str:
    times = [t for t in find_timestamps(spark, config, topic, held).values() if t[0] >= 0]
    if not times:
        return "no time, because it has none"
    return f"{format_timestamp(min(t[0] for t in times))} to {format_timestamp(max(t[1] for t in times))}"
