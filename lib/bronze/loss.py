"""Records that Kafka deleted before they were read: which offsets they had, in a line for people."""

from collections.abc import Callable, Mapping

from bronze.ledger import TopicLedger
from bronze.offsets import OffsetRanges, PlannedOffsets, describe_ranges, find_bounds, subtract_ranges


def find_holes(
    ledger: TopicLedger,
    begins: Mapping[int, int],
    held: PlannedOffsets,
    find_present: Callable[[PlannedOffsets], OffsetRanges],
) -> OffsetRanges:
    """The offsets that were never read and that Kafka can no longer give, whatever was read beyond them.

    Args:
        ledger: What was read of the topic, and which losses were accepted.
        begins: Where the ingestion began, per partition; nothing is promised before.
        held: What Kafka holds.
        find_present: Looks up which offsets are in the tables; asked only where there may be a hole.
    """
    holes = {
        p: subtract_all([(first, held[p][0] - 1)], ledger.read.get(p, []), ledger.lost.get(p, []))
        for p, first in sorted(begins.items())
        if first < held.get(p, (0, 0))[0]
    }
    present = find_present(find_bounds(holes)) if any(holes.values()) else {}
    found = {p: subtract_ranges(ranges, present.get(p, [])) for p, ranges in holes.items()}
    return {p: ranges for p, ranges in found.items() if ranges}


def subtract_all(ranges: list[tuple[int, int]], *others: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The offsets of ascending ranges that are in none of the others."""
    for other in others:
        ranges = subtract_ranges(ranges, other)
    return ranges


def describe_lost(lost: OffsetRanges) -> str:
    """Lost offsets in one line."""
    return "; ".join(f"partition {p}, offsets {describe_ranges(ranges)}" for p, ranges in lost.items())
