"""The plan of a backfill: each requested offset has exactly one state, and bounded batches cover the missing ones."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bronze.config import BackfillConfig
from bronze.errors import BronzeError, ConfigError, InvalidOptionError
from bronze.offsets import OffsetSet
from bronze.ops.backfill_plan import explain_outside, plan_batches, plan_range, resolve_offsets

TOPIC = "api-usage-events.v1"
offset_sets = st.sets(st.integers(0, 300), max_size=150)
offset_ranges = offset_sets.map(lambda offsets: [(offset, offset) for offset in offsets])


def expand(ranges: list[tuple[int, int]]) -> set[int]:
    return {offset for first, last in ranges for offset in range(first, last + 1)}


def make_config(**changes: Any) -> BackfillConfig:
    as_json = {name: json.dumps({TOPIC: value}) for name, value in changes.items() if isinstance(value, dict)}
    return BackfillConfig(kafka_brokers="localhost:9092", output_path="/lake/bronze", **(changes | as_json))


@given(offset_ranges, st.integers(0, 300), st.integers(0, 200), st.integers(0, 300), st.integers(0, 200))
def test_each_offset_is_present_or_lost_or_beyond_or_to_do(present, first, length, earliest, held):
    wanted, holds = (first, first + length), (earliest, earliest + held)
    plan = plan_range(TOPIC, {0: wanted}, {0: holds}, OffsetSet({0: present, 1: [(0, 500)]}), 10)
    parts = [expand(part[0]) for part in (plan.lost, plan.beyond, plan.missing)]
    assert sum(map(len, parts)) + plan.present == len(set().union(*parts)) + plan.present == length
    assert plan.present == len(expand(present) & set(range(*wanted)))
    assert parts[2] == {o for o in range(*wanted) if o not in expand(present) and earliest <= o < earliest + held}


@given(st.dictionaries(st.integers(0, 5), offset_ranges), st.integers(1, 80), st.integers(0, 20))
def test_batches_cover_all_that_is_missing_once_and_are_bounded(missing, max_offsets, near):
    batches = plan_batches(OffsetSet(missing), max_offsets, near)
    for batch in batches:
        assert 0 < sum(end - first for first, end in batch.values()) <= max_offsets
    covered = [(p, o) for batch in batches for p, span in batch.items() for o in range(*span)]
    assert len(covered) == len(set(covered))
    assert set(covered) >= {(p, o) for p, ranges in missing.items() for o in expand(ranges)}


def test_all_partitions_are_read_side_by_side():
    missing = OffsetSet({0: [(0, 99)], 1: [(0, 299)]})
    assert plan_batches(missing, 100)[0] == {0: (0, 25), 1: (0, 75)}
    assert len(plan_batches(missing, 100)) == 4


def test_a_range_of_a_partition_in_which_kafka_holds_nothing_is_not_to_do():
    plan = plan_range(TOPIC, {0: (0, 100)}, {0: (50, 50)}, OffsetSet(), 10)
    assert (plan.missing.count, plan.batches) == (0, [])


def test_near_holes_are_read_at_once_and_far_ones_are_not():
    missing = OffsetSet({0: [(0, 0), (5, 5), (500, 500)]})
    assert plan_batches(missing, 100, near=10) == [{0: (0, 6)}, {0: (500, 501)}]


@pytest.mark.parametrize(
    ("wanted", "held", "reason"),
    [
        ((0, 10), (0, 10), ""),
        ((0, 10), (4, 10), "partition 3 holds 4 to 9, offsets 0-3 are deleted"),
        ((0, 12), (0, 10), "partition 3 holds 0 to 9, it ends before offset 11"),
        ((20, 20), (0, 10), "partition 3 holds 0 to 9, it ends before offset 20"),
        ((0, 5), (10, 10), "partition 3 holds nothing before offset 10, offsets 0-4 are deleted"),
        ((10, 10), (0, 10), ""),
    ],
)
def test_a_range_that_is_not_all_there_is_explained(wanted, held, reason):
    assert explain_outside(plan_range(TOPIC, {3: wanted}, {3: held}, OffsetSet(), 10), 3) == reason


@pytest.mark.parametrize(
    ("range_", "wanted"),
    [
        ({"starting_offsets": "earliest"}, {0: (5, 50), 1: (0, 20)}),
        ({"ending_offsets": {"1": 7}}, {1: (0, 7)}),
        ({"starting_offsets": {"0": 3}, "ending_offsets": {"0": 60}}, {0: (3, 60)}),
        ({"starting_offsets": {"0": -2, "1": 30}}, {0: (5, 50), 1: (30, 30)}),
        ({"starting_offsets": {"1": 4}, "ending_offsets": {"1": -1}}, {1: (4, 20)}),
    ],
)
def test_offsets_are_resolved_by_what_kafka_holds(range_: dict[str, Any], wanted):
    assert resolve_offsets(make_config(**range_), {0: (5, 50), 1: (0, 20)}) == wanted


@pytest.mark.parametrize(
    ("range_", "error", "message"),
    [
        ({}, ConfigError, "no range is given"),
        ({"starting_offsets": "earliest", "end_timestamp": "2026-01-01T00:00Z"}, ConfigError, "is given twice"),
        ({"starting_offsets": "latest"}, InvalidOptionError, "--starting-offsets: expected earliest or JSON"),
        ({"ending_offsets": "earliest"}, InvalidOptionError, "--ending-offsets: expected latest or JSON"),
        ({"starting_offsets": {"0": -1}}, InvalidOptionError, "--starting-offsets: expected earliest or JSON"),
        ({"ending_offsets": {"0": -2}}, InvalidOptionError, "--ending-offsets: expected latest or JSON"),
        ({"starting_offsets": {}}, InvalidOptionError, "JSON with one partition or more"),
        ({"starting_offsets": {"0": 1}, "ending_offsets": {"1": 1}}, InvalidOptionError, "only one option names 0, 1"),
        (
            {"starting_offsets": {"0": 5}, "ending_offsets": {"0": 4}},
            InvalidOptionError,
            "no offset below --starting-offsets",
        ),
        ({"start_timestamp": "2026-01-01T00:00:00"}, InvalidOptionError, "ISO 8601 time with a zone"),
        ({"start_timestamp": "2026-01-01"}, InvalidOptionError, "ISO 8601 time with a zone"),
        ({"start_timestamp": "1969-12-31T23:59Z"}, InvalidOptionError, "a time from 1970 on"),
        (
            {"start_timestamp": "2026-01-02T00:00Z", "end_timestamp": "2026-01-01T00:00Z"},
            InvalidOptionError,
            "a time after",
        ),
        ({"starting_offsets": "earliest", "max_offsets_per_trigger": 0}, InvalidOptionError, "a whole number from 1"),
    ],
)
def test_a_range_that_cannot_be_meant_is_refused(range_: dict[str, Any], error: type[BronzeError], message: str):
    with pytest.raises(error, match=message) as caught:
        make_config(**range_)
    assert caught.value.exit_code == 2
