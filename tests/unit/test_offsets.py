"""Sets of offsets: ranges and bitmaps say the same."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bronze.offsets import (
    BUCKET_SIZE,
    clip_ranges,
    count_offsets,
    describe_ranges,
    invert_ranges,
    list_runs,
    select_overlap,
)

offset_sets = st.sets(st.integers(0, 3 * BUCKET_SIZE).map(lambda n: n // 7 if n % 2 else n), max_size=300)


def make_bitmaps(offsets: set[int]) -> list[tuple[int, bytes]]:
    bitmaps = []
    for bucket in {offset // BUCKET_SIZE for offset in offsets}:
        bits = np.zeros(BUCKET_SIZE, dtype=np.uint8)
        bits[[offset % BUCKET_SIZE for offset in offsets if offset // BUCKET_SIZE == bucket]] = 1
        bitmaps.append((bucket, np.packbits(bits, bitorder="little").tobytes()))
    return bitmaps


def expand(ranges: list[tuple[int, int]]) -> set[int]:
    return {offset for first, last in ranges for offset in range(first, last + 1)}


@given(offset_sets)
def test_runs_are_the_offsets_of_the_bitmaps_merged_and_ascending(offsets: set[int]):
    runs = list_runs(make_bitmaps(offsets))
    assert expand(runs) == offsets
    assert count_offsets(runs) == len(offsets)
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(runs))


def test_a_run_goes_on_from_one_bitmap_to_the_next():
    bitmaps = make_bitmaps(set(range(BUCKET_SIZE - 2, BUCKET_SIZE + 3)))
    assert list_runs(reversed(bitmaps)) == [(BUCKET_SIZE - 2, BUCKET_SIZE + 2)]


@given(offset_sets, st.integers(0, 1000), st.integers(0, 100_000))
def test_clipped_and_missing_offsets_are_the_whole_range(offsets: set[int], first: int, length: int):
    runs, end = list_runs(make_bitmaps(offsets)), first + length
    assert expand(clip_ranges(runs, first, end)) == {o for o in offsets if first <= o < end}
    assert expand(invert_ranges(runs, first, end)) == set(range(first, end)) - offsets


@pytest.mark.parametrize(
    ("planned", "overlap"),
    [
        ({0: (0, 5)}, {}),
        ({0: (0, 6)}, {0: [(5, 5)]}),
        ({0: (9, 30), 1: (0, 9)}, {0: [(9, 9), (20, 29)]}),
        ({0: (40, 50)}, {}),
        ({7: (0, 50)}, {}),
    ],
)
def test_only_what_a_plan_covers_overlaps(planned, overlap):
    assert select_overlap({0: [(5, 9), (20, 29)], 1: []}, planned) == overlap


def test_ranges_are_described_and_cut():
    assert describe_ranges([(3, 7), (9, 9)]) == "3-7, 9"
    assert describe_ranges([(n, n) for n in range(0, 40, 2)], shown=2) == "0, 2, … (18 more)"
