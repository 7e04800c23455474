"""Sets of Kafka offsets: ranges per partition, with the algebra that guard, ledger, backfill and audit share.

Executors import this module, so it may import only packages that ``make env-archive`` packs
(``jars.list_executor_packages``).
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

# First and last offset, both inclusive.
Range = tuple[int, int]
# First and end (exclusive) offset per Kafka partition.
Bounds = dict[int, tuple[int, int]]

# The end of open-ended bounds.
MAX_OFFSET = 2**63 - 1


class OffsetSet(Mapping[int, list[Range]]):
    """Offsets of the partitions of one topic; immutable.

    As a mapping, it maps each partition that has offsets to its ascending ranges, and any other partition to ``[]``.
    Ranges are neither overlapping nor adjacent, so equal sets are equal mappings.
    """

    __slots__ = ("_ranges",)

    def __init__(self, ranges: Mapping[int, Iterable[Sequence[int]]] | None = None):
        """
        Args:
            ranges: First and last offset (inclusive) of ranges per partition, in any order.
        """
        merged = {partition: _merge(each) for partition, each in sorted((ranges or {}).items())}
        self._ranges = {partition: each for partition, each in merged.items() if each}

    @classmethod
    def between(cls, bounds: Mapping[int, tuple[int, int]]) -> "OffsetSet":
        """Return all offsets from the first (inclusive) to the end (exclusive) of each partition."""
        return cls({partition: [(first, end - 1)] for partition, (first, end) in bounds.items() if first < end})

    @classmethod
    def union(cls, sets: Iterable["OffsetSet"]) -> "OffsetSet":
        """Return the offsets that are in any of the sets."""
        ranges: dict[int, list[Range]] = {}
        for partition, each in (item for one in sets for item in one.items()):
            ranges.setdefault(partition, []).extend(each)
        return cls(ranges)

    @classmethod
    def _wrap(cls, ranges: Mapping[int, list[Range]]) -> "OffsetSet":
        """Return a set of ranges that are already merged."""
        wrapped = cls()
        wrapped._ranges = {partition: each for partition, each in sorted(ranges.items()) if each}
        return wrapped

    def __getitem__(self, partition: int) -> list[Range]:
        return self._ranges.get(partition, [])

    def __iter__(self) -> Iterator[int]:
        return iter(self._ranges)

    def __len__(self) -> int:
        return len(self._ranges)

    def __contains__(self, partition: object) -> bool:
        return partition in self._ranges

    def __hash__(self) -> int:
        return hash(tuple((partition, tuple(each)) for partition, each in self._ranges.items()))

    def __or__(self, other: "OffsetSet") -> "OffsetSet":
        changed = {partition: _merge([*self[partition], *each]) for partition, each in other.items()}
        return self._wrap(self._ranges | changed)

    def __and__(self, other: "OffsetSet") -> "OffsetSet":
        return self._wrap({p: [r for low, high in other[p] for r in _clip(self[p], low, high + 1)] for p in self})

    def __sub__(self, other: "OffsetSet") -> "OffsetSet":
        return self._wrap({p: [r for low, high in self[p] for r in _invert(other[p], low, high + 1)] for p in self})

    def __str__(self) -> str:
        return "; ".join(f"partition {p}, offsets {format_ranges(each)}" for p, each in self.items())

    def __repr__(self) -> str:
        return f"OffsetSet({self._ranges})"

    def clip(self, bounds: Mapping[int, tuple[int, int]]) -> "OffsetSet":
        """Return the offsets within the bounds; a partition without bounds has none."""
        return self._wrap({partition: _clip(self[partition], *span) for partition, span in bounds.items()})

    @property
    def count(self) -> int:
        """Number of offsets."""
        return sum(self.counts.values())

    @property
    def counts(self) -> dict[int, int]:
        """Number of offsets per partition."""
        return {p: sum(last - first + 1 for first, last in each) for p, each in self.items()}

    @property
    def bounds(self) -> Bounds:
        """First and end (exclusive) offset of each partition that has offsets."""
        return {partition: (each[0][0], each[-1][1] + 1) for partition, each in self.items()}

    def split(self, size: int) -> Iterator["OffsetSet"]:
        """Split the set into parts of at most ``size`` offsets, in ascending order."""
        part: dict[int, list[Range]] = {}
        room = size
        for partition, first, last in ((p, *each) for p, ranges in self.items() for each in ranges):
            while first <= last:
                end = min(last, first + room - 1)
                part.setdefault(partition, []).append((first, end))
                first, room = end + 1, room - (end - first + 1)
                if not room:
                    yield OffsetSet(part)
                    part, room = {}, size
        if part:
            yield OffsetSet(part)


EMPTY = OffsetSet()


def _merge(ranges: Iterable[Sequence[int]]) -> list[Range]:
    """Return the same offsets as ascending ranges that are neither overlapping nor adjacent."""
    merged: list[Range] = []
    for first, last in sorted((first, last) for first, last in ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _clip(ranges: Sequence[Range], first: int, end: int) -> list[Range]:
    """Return the part of ascending ranges between first (inclusive) and end (exclusive)."""
    if first >= end:
        return []
    start = bisect_left(ranges, first, key=lambda r: r[1])
    stop = bisect_left(ranges, end, lo=start, key=lambda r: r[0])
    return [(max(low, first), min(high, end - 1)) for low, high in ranges[start:stop]]


def _invert(ranges: Sequence[Range], first: int, end: int) -> list[Range]:
    """Return the gaps of ascending ranges between first (inclusive) and end (exclusive)."""
    missing = []
    for low, high in _clip(ranges, first, end):
        if low > first:
            missing.append((first, low - 1))
        first = high + 1
    return [*missing, (first, end - 1)] if first < end else missing


def format_ranges(ranges: Sequence[Range], shown: int = 10) -> str:
    """Format ranges for messages: ``3-7, 9, … (4 more)``."""
    texts = [f"{first}" if first == last else f"{first}-{last}" for first, last in ranges[:shown]]
    return ", ".join(texts) + (f", … ({len(ranges) - shown:,} more)" if len(ranges) > shown else "")
