"""From Kafka records to the rows of bronze and of the DLQ."""

from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bronze.columns import BRONZE_ARROW
from bronze.offsets import OffsetSet
from bronze.transforms import Counts, drop_present, find_newest, split_records
from tests.support.builders import EVENT_TIME, INGESTED_AT, KAFKA_TIME, make_records, make_value, read_rows, to_micros

GOOD = make_value(geo={"city": "Ulm"}, client={"user_agent_parsed": {"os": "x", "v": 1.50}})
MIXED = [GOOD, None, b"", b"caf\xe9\x00{", b"{", b"[]", make_value(geo=1), b"{}", make_value(event_timestamp="x"), GOOD]
BAD_OFFSETS = list(range(1, 9))
ERRORS = [
    *["tombstone", "empty", "invalid_utf8", "malformed_json", "not_an_object", "schema_mismatch"],
    *["missing_required", "invalid_timestamp"],
]
PARSED = [name for name in BRONZE_ARROW.names if not name.startswith("_")]


def split(values: list[bytes | None], use_dlq: bool = True, **records: Any) -> tuple[list[dict], list[dict], Counts]:
    result = split_records(make_records(values, **records), 7, INGESTED_AT, use_dlq)
    return read_rows(result.bronze), read_rows(result.dlq), result.counts


def test_with_a_dlq_only_valid_records_are_in_bronze():
    bronze, _, _ = split(MIXED)
    assert [row["_kafka_offset"] for row in bronze] == [0, 9]
    assert all(row["_is_valid"] for row in bronze)


def test_with_a_dlq_each_invalid_record_is_in_it_with_its_error():
    _, dlq, _ = split(MIXED)
    assert [row["_kafka_offset"] for row in dlq] == BAD_OFFSETS
    assert [row["_error_type"] for row in dlq] == ERRORS
    assert all(row["_error_detail"] for row in dlq)


def test_a_dlq_row_has_the_exact_bytes_and_a_readable_text():
    _, dlq, _ = split(MIXED)
    assert [row["_raw_bytes"] for row in dlq] == MIXED[1:9]
    assert [row["_raw_value"] for row in dlq][:4] == [None, "", "caf\\xe9\x00{", "{"]


def test_a_dlq_row_says_where_the_record_came_from_and_who_wrote_it():
    _, (row,), _ = split([b"{"], partitions=[3], offsets=[77], keys=[b"\x00\xff"])
    assert (row["_kafka_topic"], row["_kafka_partition"], row["_kafka_offset"]) == ("events", 3, 77)
    assert (row["_kafka_key"], row["_kafka_timestamp"]) == (b"\x00\xff", KAFKA_TIME)
    assert (row["_batch_id"], row["_ingested_at"]) == (7, INGESTED_AT)


def test_a_record_without_key_and_timestamp_keeps_both_null():
    _, (row,), _ = split([None], keys=[None], timestamps=[None])
    assert (row["_kafka_key"], row["_kafka_timestamp"]) == (None, None)


@pytest.mark.parametrize(
    ("ingested_at", "expected"),
    [
        ("2026-06-01T00:00:00Z", date(2026, 6, 1)),
        ("2026-06-01T23:59:59.999Z", date(2026, 6, 1)),
        ("2026-06-01T23:30:00-02:00", date(2026, 6, 2)),
    ],
)
def test_the_dlq_date_is_the_utc_date_of_ingestion(ingested_at: str, expected: date):
    result = split_records(make_records([None]), 7, to_micros(ingested_at), use_dlq=True)
    assert result.dlq["_dlq_date"].to_pylist() == [expected]


def test_without_a_dlq_every_record_is_in_bronze_and_says_whether_it_is_valid():
    bronze, dlq, _ = split(MIXED, use_dlq=False)
    assert dlq == []
    assert [row["_kafka_offset"] for row in bronze] == list(range(10))
    assert [row["_is_valid"] for row in bronze] == [True, *[False] * 8, True]


def test_an_invalid_record_in_bronze_has_no_parsed_values_and_no_partition():
    bronze, _, _ = split(MIXED, use_dlq=False)
    for row in bronze[1:9]:
        assert {row[name] for name in [*PARSED, "_event_date", "_event_hour"]} == {None}
    assert all(bronze[0][name] is not None for name in ("event_id", "geo", "_event_date", "_event_hour"))


def test_an_invalid_record_in_bronze_keeps_its_raw_value_with_other_bytes_escaped():
    bronze, _, _ = split(MIXED, use_dlq=False)
    assert [row["_raw_value"] for row in bronze][1:5] == [None, "", "caf\\xe9\x00{", "{"]
    assert bronze[0]["_raw_value"] == GOOD.decode()


def test_an_invalid_record_in_bronze_keeps_its_origin():
    ((row,), _, _) = split([None], use_dlq=False, partitions=[3], offsets=[77])
    assert (row["_kafka_topic"], row["_kafka_partition"], row["_kafka_offset"]) == ("events", 3, 77)
    assert (row["_kafka_timestamp"], row["_ingested_at"]) == (KAFKA_TIME, INGESTED_AT)


def test_parsed_values_arrive_in_their_columns():
    ((row,), _, _) = split([GOOD])
    assert (row["event_id"], row["tenant_id"], row["event_timestamp"]) == ("e-1", "t-1", EVENT_TIME)
    assert row["geo"]["city"] == "Ulm"
    assert row["client"]["user_agent_parsed"] == [("os", "x"), ("v", "1.5")]


@pytest.mark.parametrize("object_value", [None, "absent"])
def test_an_object_that_is_absent_or_null_is_null_and_not_an_object_of_nulls(object_value: str | None):
    value = make_value(geo=None) if object_value is None else make_value()
    assert split([value])[0][0]["geo"] is None


def test_an_empty_object_is_an_object_of_nulls():
    assert set(split([make_value(geo={})])[0][0]["geo"].values()) == {None}


@pytest.mark.parametrize(
    ("timestamp", "day", "hour"),
    [
        ("2026-06-01T00:30:00+02:00", date(2026, 5, 31), 22),
        ("2026-05-31T23:30:00-02:00", date(2026, 6, 1), 1),
        ("2026-06-01T00:00:00Z", date(2026, 6, 1), 0),
        ("2026-05-31T23:59:59.999999Z", date(2026, 5, 31), 23),
        ("2024-03-01T00:15:00+00:30", date(2024, 2, 29), 23),
        ("2000-01-01T00:00:00Z", date(2000, 1, 1), 0),
    ],
)
def test_event_date_and_hour_are_in_utc(timestamp: str, day: date, hour: int):
    ((row,), _, _) = split([make_value(event_timestamp=timestamp)])
    assert (row["_event_date"], row["_event_hour"]) == (day, hour)


@pytest.mark.parametrize("use_dlq", [True, False])
def test_the_row_hash_is_handed_on(use_dlq: bool):
    bronze, _, _ = split(MIXED, use_dlq)
    assert [row["_row_hash"] for row in bronze] == [1_000 + row["_kafka_offset"] for row in bronze]


def test_no_records_are_no_rows():
    bronze, dlq, counts = split([])
    assert (bronze, dlq) == ([], [])
    assert counts == Counts()


@pytest.mark.parametrize("use_dlq", [True, False])
def test_counts_are_by_partition_and_by_error_type_wherever_the_records_went(use_dlq: bool):
    _, _, counts = split(MIXED, use_dlq, partitions=[0, 1, 1, 2, 2, 2, 2, 2, 2, 0])
    assert counts.by_partition == {0: 2, 1: 2, 2: 6}
    assert counts.by_error_type == dict.fromkeys(ERRORS, 1)
    assert counts.present == 0


def test_records_that_are_present_are_counted_but_not_written():
    result = split_records(make_records(MIXED), 7, INGESTED_AT, use_dlq=True, present=OffsetSet({0: [(0, 1), (8, 8)]}))
    assert result.counts.present == 3
    assert result.counts.by_partition == {0: 10}
    assert result.counts.by_error_type == dict.fromkeys(ERRORS[1:7], 1)
    assert result.bronze["_kafka_offset"].to_pylist() == [9]
    assert sorted(result.dlq["_kafka_offset"].to_pylist()) == [2, 3, 4, 5, 6, 7]


def test_records_of_one_error_are_together_in_the_dlq():
    dlq = split_records(make_records([*MIXED, b"{", b""]), 7, INGESTED_AT, use_dlq=True).dlq
    assert dlq["_error_type"].to_pylist() == sorted([*ERRORS, "malformed_json", "empty"])


@pytest.mark.parametrize(
    ("times", "newest"),
    [([5, 9, 7], 9), ([5, 11, 7], 7), ([None, 5], 5), ([10], 10), ([11], 0), ([None], 0), ([], 0)],
)
def test_the_newest_timestamp_is_not_after_the_start_of_the_batch(times: list[int | None], newest: int):
    assert find_newest(pa.array(times, pa.timestamp("us", "UTC")), 10) == newest


def test_the_newest_timestamp_of_several_tasks_is_the_newest_of_all():
    assert (Counts(newest=5) + Counts(newest=9) + Counts()).newest == 9


def test_counts_add_up():
    total = sum((split([GOOD, None])[2] for _ in range(2)), Counts())
    assert (total.by_partition, total.by_error_type, total.present) == ({0: 4}, {"tombstone": 2}, 0)
    assert (total.total, total.valid, total.invalid) == (4, 2, 2)


Ranges = dict[int, list[tuple[int, int]]]
TEN = make_records([b"x"] * 10, partitions=[0] * 5 + [1] * 5, offsets=[10, 11, 12, 13, 14] * 2)


def positions(records: pa.RecordBatch) -> list[tuple[int, int]]:
    return list(zip(records["partition"].to_pylist(), records["offset"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("present", "left_in_partition_0"),
    [
        ({}, [10, 11, 12, 13, 14]),
        ({0: [(0, 9)]}, [10, 11, 12, 13, 14]),
        ({0: [(15, 99)]}, [10, 11, 12, 13, 14]),
        ({0: [(0, 10)]}, [11, 12, 13, 14]),
        ({0: [(14, 99)]}, [10, 11, 12, 13]),
        ({0: [(12, 12)]}, [10, 11, 13, 14]),
        ({0: [(11, 13)]}, [10, 14]),
        ({0: [(10, 10), (14, 14)]}, [11, 12, 13]),
        ({0: [(0, 3), (11, 11), (13, 20), (30, 40)]}, [10, 12]),
        ({0: [(10, 14)]}, []),
        ({0: [(0, 2**63 - 1)]}, []),
        ({7: [(0, 99)]}, [10, 11, 12, 13, 14]),
    ],
)
def test_exactly_the_offsets_in_the_ranges_of_their_partition_are_dropped(
    present: Ranges, left_in_partition_0: list[int]
):
    found = positions(drop_present(TEN, OffsetSet(present)))
    assert found == [(0, o) for o in left_in_partition_0] + [(1, o) for o in range(10, 15)]


def test_ranges_of_every_partition_can_drop_all_records():
    assert positions(drop_present(TEN, OffsetSet({0: [(10, 14)], 1: [(10, 14)]}))) == []


@st.composite
def offset_ranges(draw: st.DrawFn) -> list[tuple[int, int]]:
    edges = sorted(draw(st.sets(st.integers(0, 40), min_size=2, max_size=10)))
    return list(zip(edges[::2], edges[1::2], strict=False))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=30),
    st.dictionaries(st.integers(0, 3), offset_ranges(), max_size=4),
)
def test_dropping_agrees_with_looking_up_each_position(found: list[tuple[int, int]], present: Ranges):
    records = make_records([b"x"] * len(found), [p for p, _ in found], [o for _, o in found])
    naive = {(p, o) for p, ranges in present.items() for first, last in ranges for o in range(first, last + 1)}
    assert positions(drop_present(records, OffsetSet(present))) == [
        position for position in found if position not in naive
    ]
