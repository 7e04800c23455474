"""What a backfill would do: of the range that is asked for, what the tables have, what Kafka lost, what is to do. Pure.

Offsets are counted, not records: which of them are transaction markers or were compacted is known by reading only.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from bronze.offsets import (
    OffsetRanges,
    PlannedOffsets,
    clip_ranges,
    count_offsets,
    describe_ranges,
    invert_ranges,
)

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
