"""Sets of offsets: the algebra of ranges and the bitmaps agree with Python's sets."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bronze.delta.positions import BUCKET_SIZE, list_ranges, list_runs
from bronze.offsets import EMPTY, OffsetSet, format_ranges

Positions = set[tuple[int, int]]
positions = st.sets(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=80)
bounds = st.dictionaries(st.integers(0, 3), st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=4)
offset_sets = st.sets(st.integers(0, 3 * BUCKET_SIZE).map(lambda n: n // 7 if n % 2 else n), max_size=300)


def make_set(found: Positions) -> OffsetSet:
    return OffsetSet({p: [(o, o) for q, o in found if q == p] for p, _ in found})


def expand(offsets: OffsetSet) -> Positions:
    return {(p, o) for p, ranges in offsets.items() for first, last in ranges for o in range(first, last + 1)}


def is_normal(offsets: OffsetSet) -> bool:
    """Ascending partitions with ascending ranges, which are not empty and not adjacent."""
    apart = all(last + 1 < first for ranges in offsets.values() for (_, last), (first, _) in pairwise(ranges))
    return apart and list(offsets) == sorted(offsets) and all(offsets.values())


@given(positions, positions)
def test_union_intersection_and_difference_are_those_of_the_positions(one: Positions, other: Positions):
    a, b = make_set(one), make_set(other)
    for found, expected in ((a | b, one | other), (a & b, one & other), (a - b, one - other)):
        assert expand(found) == expected
        assert is_normal(found)


@given(positions, positions)
def test_equal_positions_are_equal_sets_with_one_hash(one: Positions, other: Positions):
    assert (make_set(one) == make_set(other)) == (one == other)
    joined = make_set(one) | make_set(other)
    assert hash(joined) == hash(make_set(one | other))
    assert joined == make_set(one | other) == dict(joined)


@given(positions)
def test_counts_and_bounds_are_those_of_the_positions(found: Positions):
    offsets = make_set(found)
    assert (offsets.count, bool(offsets)) == (len(found), bool(found))
    each = {p: [o for q, o in found if q == p] for p, _ in found}
    assert offsets.counts == {p: len(of) for p, of in each.items()}
    assert offsets.bounds == {p: (min(of), max(of) + 1) for p, of in each.items()}


@given(positions, bounds)
def test_what_lies_within_bounds_is_clipped(found: Positions, spans: dict[int, tuple[int, int]]):
    within = {(p, o) for p, o in found if p in spans and spans[p][0] <= o < spans[p][1]}
    assert is_normal(make_set(found).clip(spans))
    assert expand(make_set(found).clip(spans)) == within == expand(make_set(found) & OffsetSet.between(spans))
    assert expand(OffsetSet.between(spans) - make_set(found)) == expand(OffsetSet.between(spans)) - found


@given(positions, st.integers(1, 40))
def test_parts_are_bounded_ascend_and_are_together_the_whole(found: Positions, size: int):
    parts = list(make_set(found).split(size))
    assert all(part.count == size for part in parts[:-1])
    assert [position for part in parts for position in sorted(expand(part))] == sorted(found)


@given(st.lists(positions, max_size=4))
def test_the_union_of_many_is_what_any_has(many: list[Positions]):
    union = OffsetSet.union(map(make_set, many))
    assert expand(union) == set().union(*many)
    assert is_normal(union)


def test_empty_and_inverted_bounds_hold_nothing():
    offsets = OffsetSet({0: [(0, 10)]})
    assert offsets.clip({0: (5, 5)}) == offsets.clip({0: (7, 3)}) == OffsetSet.between({0: (5, 5), 1: (7, 3)}) == EMPTY


def test_ranges_in_any_order_that_touch_or_overlap_become_one():
    assert OffsetSet({1: [(5, 9), (0, 4), (7, 12), (20, 20)], 0: []}) == {1: [(0, 12), (20, 20)]}


def test_a_partition_without_offsets_has_no_ranges_and_is_not_listed():
    offsets = OffsetSet({0: [(1, 2)]})
    assert (offsets[7], 7 in offsets, list(offsets), offsets.get(0)) == ([], False, [0], [(1, 2)])
    assert not EMPTY
    assert EMPTY.bounds == {}


def test_a_set_travels_to_an_executor():
    offsets = OffsetSet({0: [(1, 2)], 3: [(0, 2**62)]})
    assert pickle.loads(pickle.dumps(offsets)) == offsets


def test_a_set_reads_as_people_write_it():
    assert str(OffsetSet({3: [(3, 7), (9, 9)], 0: [(1, 1)]})) == "partition 0, offsets 1; partition 3, offsets 3-7, 9"
    assert format_ranges([(n, n) for n in range(0, 40, 2)], shown=2) == "0, 2, … (18 more)"


def make_bitmaps(offsets: set[int]) -> list[tuple[int, bytes]]:
    bitmaps = []
    for bucket in {offset // BUCKET_SIZE for offset in offsets}:
        bits = np.zeros(BUCKET_SIZE, dtype=np.uint8)
        bits[[offset % BUCKET_SIZE for offset in offsets if offset // BUCKET_SIZE == bucket]] = 1
        bitmaps.append((bucket, np.packbits(bits, bitorder="little").tobytes()))
    return bitmaps


@given(offset_sets)
def test_runs_are_the_offsets_of_the_bitmaps_merged_and_ascending(offsets: set[int]):
    runs = OffsetSet({0: list_runs(make_bitmaps(offsets))})
    assert expand(runs) == {(0, offset) for offset in offsets}
    assert runs[0] == list_runs(make_bitmaps(offsets))


@pytest.mark.parametrize("step", [1, -1])
def test_a_run_goes_on_from_one_bitmap_to_the_next(step: int):
    bitmaps = make_bitmaps(set(range(BUCKET_SIZE - 2, BUCKET_SIZE + 3)))
    assert list_runs(bitmaps[::step]) == [(BUCKET_SIZE - 2, BUCKET_SIZE + 2)]


@given(st.lists(st.integers(0, 200), min_size=1))
def test_ranges_of_offsets_in_any_order_are_theirs(offsets: list[int]):
    ranges = list_ranges(np.array(offsets, np.int64))
    assert OffsetSet({0: ranges}) == {0: ranges} == OffsetSet({0: [(o, o) for o in offsets]})
