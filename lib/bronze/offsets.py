"""Sets of offsets per Kafka partition: inclusive ranges for people and tasks, bitmaps where tables are counted."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

# Offsets per Kafka partition, as inclusive (first, last) ranges in ascending order.
OffsetRanges = dict[int, list[tuple[int, int]]]
# First and end (exclusive) offset per Kafka partition.
PlannedOffsets = dict[int, tuple[int, int]]

# No offset is above: the end of a plan that is open.
MAX_OFFSET = 2**63 - 1
# Offsets in one bitmap, as Spark's bitmap functions have it.
BUCKET_SIZE = 32_768


def list_runs(bitmaps: Iterable[tuple[int, bytes | bytearray]]) -> list[tuple[int, int]]:
    """The ranges of offsets whose bit is set.

    Args:
        bitmaps: Bucket and bits of one partition; bit ``b`` of bucket ``n`` is offset ``n * 32768 + b``.
    """
    runs = [_list_runs_of(bucket, bits) for bucket, bits in sorted(bitmaps)]
    first, last = np.concatenate(runs or [np.empty((2, 0), np.int64)], axis=1)
    is_gap = first[1:] != last[:-1] + 1
    starts, ends = np.append(True, is_gap), np.append(is_gap, True)
    return list(zip(first[starts].tolist(), last[ends].tolist(), strict=True)) if len(first) else []


def _list_runs_of(bucket: int, bits: bytes | bytearray) -> np.ndarray:
    """First and last offsets of the runs in one bitmap, shape (2, runs)."""
    is_set = np.unpackbits(_to_array(bits), bitorder="little").astype(np.int8)
    change = np.diff(is_set, prepend=0, append=0)
    return np.stack([np.flatnonzero(change == 1), np.flatnonzero(change == -1) - 1]) + bucket * BUCKET_SIZE


def clip_ranges(ranges: Sequence[tuple[int, int]], first: int, end: int) -> list[tuple[int, int]]:
    """The part of ascending ranges that lies within first (inclusive) and end (exclusive)."""
    start = bisect_left(ranges, first, key=lambda r: r[1])
    stop = bisect_left(ranges, end, lo=start, key=lambda r: r[0])
    return [(max(low, first), min(high, end - 1)) for low, high in ranges[start:stop]]


def invert_ranges(ranges: Sequence[tuple[int, int]], first: int, end: int) -> list[tuple[int, int]]:
    """What ascending ranges leave out of first (inclusive) to end (exclusive)."""
    missing = []
    for low, high in clip_ranges(ranges, first, end):
        if low > first:
            missing.append((first, low - 1))
        first = high + 1
    return [*missing, (first, end - 1)] if first < end else missing


def merge_ranges(ranges: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The offsets of either, as ascending ranges that do not touch one another."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted([*ranges, *others]):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def count_offsets(ranges: Iterable[tuple[int, int]]) -> int:
    """How many offsets ranges hold."""
    return sum(last - first + 1 for first, last in ranges)


def select_overlap(present: OffsetRanges, planned: PlannedOffsets) -> OffsetRanges:
    """The present offsets that a plan covers; no entry for a partition where nothing overlaps."""
    clipped = {
        partition: clip_ranges(present.get(partition, ()), first, end) for partition, (first, end) in planned.items()
    }
    return {partition: ranges for partition, ranges in clipped.items() if ranges}


def describe_ranges(ranges: Sequence[tuple[int, int]], shown: int = 10) -> str:
    """Ranges as people read them: ``3-7, 9, … (4 more)``."""
    texts = [f"{first}" if first == last else f"{first}-{last}" for first, last in ranges[:shown]]
    return ", ".join(texts) + (f", … ({len(ranges) - shown:,} more)" if len(ranges) > shown else "")


def combine_bitmaps(
    one: Mapping[int, bytes | bytearray], other: Mapping[int, bytes | bytearray], operation: np.ufunc
) -> list[tuple[int, bytes]]:
    """Buckets and bits of what is in either (``np.bitwise_or``) or in both (``np.bitwise_and``) of two sets."""
    empty = bytes(BUCKET_SIZE // 8)
    return [
        (bucket, operation(_to_array(one.get(bucket, empty)), _to_array(other.get(bucket, empty))).tobytes())
        for bucket in one.keys() | other.keys()
    ]


def _to_array(bits: bytes | bytearray) -> np.ndarray:
    return np.frombuffer(bits, np.uint8)


def subtract_ranges(ranges: Sequence[tuple[int, int]], other: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The offsets of ascending ranges that are in none of the others."""
    return [rest for first, last in ranges for rest in invert_ranges(other, first, last + 1)]


def split_ranges(ranges: OffsetRanges, size: int) -> Iterator[OffsetRanges]:
    """Parts of at most ``size`` offsets, in ascending order; all of them together are the whole."""
    part: OffsetRanges = {}
    room = size
    for partition, first, last in ((p, *r) for p, listed in sorted(ranges.items()) for r in listed):
        while first <= last:
            end = min(last, first + room - 1)
            part.setdefault(partition, []).append((first, end))
            first, room = end + 1, room - (end - first + 1)
            if not room:
                yield part
                part, room = {}, size
    if part:
        yield part


def find_bounds(ranges: OffsetRanges) -> PlannedOffsets:
    """First and end (exclusive) offset of each partition that has ranges."""
    return {partition: (listed[0][0], listed[-1][1] + 1) for partition, listed in ranges.items() if listed}


def subtract_all(ranges: list[tuple[int, int]], *others: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The offsets of ascending ranges that are in none of the others."""
    for other in others:
        ranges = subtract_ranges(ranges, other)
    return ranges
