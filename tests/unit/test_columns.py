"""Decoding a batch together gives what decoding each record on its own gives, for every value."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import arro3.io
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import types as T

from bronze import columns
from bronze.columns import decode_records
from bronze.transforms import split_records
from tests.support.builders import (
    EVENT_TIME,
    INGESTED_AT,
    KAFKA_TIME,
    decode_value,
    encode,
    make_records,
    make_value,
    to_micros,
    with_member,
)
from tests.support.strategies import LEAVES, odd_events, put, valid_events
from tests.support.values import BROKEN, INVALID_TIMES, LARGE, OK, VALID, VALID_TIMES

FEWER = settings(max_examples=max(settings.default.max_examples // 5, 1))
DAY = 86_400_000_000
# Most records of a batch decide which judge it gets.
FILLERS = {"closed": OK, "open": with_member('"other": {"a": [1]}')}


def assert_same(values: list[bytes | None], judge: str = "closed", **records: Any) -> None:
    """Split the values, among as many valid records of the judge and once more, both ways."""
    mixed = [each for value in values for each in (FILLERS[judge], value, FILLERS[judge])]
    batch = make_records(mixed, **{name: [k for k in given for _ in range(3)] for name, given in records.items()})
    for use_dlq in (True, False):
        together, apart = (split_records(batch, 5, INGESTED_AT, use_dlq, by_rows=by_rows) for by_rows in (False, True))
        assert together.bronze.equals(apart.bronze)
        assert read_signs(together.bronze) == read_signs(apart.bronze)  # zero equals minus zero
        assert together.dlq.equals(apart.dlq)
        assert together.counts == apart.counts


def read_signs(table: pa.Table) -> list[list[bool]]:
    """The sign bits of all columns of doubles."""
    doubles = [column for column in table.flatten().columns if pa.types.is_floating(column.type)]
    return [np.signbit(column.fill_null(1.0).to_numpy()).tolist() for column in doubles]


def is_judged(value: bytes, judge: str = "closed") -> bool:
    """Whether arrow-rs builds the columns of a value, if it stands in a batch of the judge."""
    filler = FILLERS[judge]
    decoded = decode_records(pa.array([filler, value, filler]), make_records([OK] * 3)["timestamp"], INGESTED_AT)
    assert 0 not in decoded.others
    return 1 not in decoded.others


def surround(path: tuple[str, ...], json_text: str) -> bytes:
    """A valid event with a JSON text at a path."""
    for name in reversed(path[1:]):
        json_text = f'{{"{name}": {json_text}}}'
    return with_member(f'"{path[0]}": {json_text}')


@pytest.mark.parametrize("judge", FILLERS)
@pytest.mark.parametrize("values", [BROKEN, VALID, LARGE], ids=["broken", "valid", "large"])
def test_a_batch_of_known_values_is_decoded_the_same(values: list[tuple], judge: str):
    assert_same([value for _, value, *_ in values], judge)


def test_each_time_is_read_the_same():
    texts = [text for text, _ in VALID_TIMES] + [text for _, text, _ in INVALID_TIMES]
    assert_same([make_value(event_timestamp=text) for text in texts])


def test_each_day_of_a_leap_year_and_of_another_is_read_the_same():
    days = itertools.product((2000, 2023, 2024), range(14), range(33))
    assert_same([make_value(event_timestamp=f"{year}-{month:02}-{day:02}T23:59:59Z") for year, month, day in days])


@pytest.mark.parametrize("digits", range(8))
def test_each_number_of_decimals_is_read_the_same(digits: int):
    assert_same([make_value(event_timestamp=f"2026-06-01T00:00:00.{'123456789'[:digits]}Z")])


@pytest.mark.parametrize("kafka_time", [None, 0, -1, KAFKA_TIME, INGESTED_AT, INGESTED_AT + 1, KAFKA_TIME * 1_000])
def test_the_latest_event_time_is_the_same(kafka_time: int | None):
    bound = (KAFKA_TIME if kafka_time == KAFKA_TIME else INGESTED_AT) + DAY
    seconds = [bound // 1_000_000 + extra for extra in (-1, 0, 1)]
    texts = [f"2026-06-02T12:00:{second % 60:02}.{bound % 1_000_000:06}Z" for second in seconds]
    assert to_micros(texts[1]) == bound
    assert_same([make_value(event_timestamp=text) for text in texts], timestamps=[kafka_time] * 3)


NUMBERS = [
    "0",
    "-0",
    "-0.0",
    "0.1",
    "1.0",
    "1e2",
    "1E-7",
    "5e-324",
    "1.7976931348623157e308",
    "1e400",
    "9007199254740993.0",
]
NUMBERS += [
    "9007199254740993.0",
    "2147483647",
    "2147483648",
    "-2147483649",
    "9223372036854775807",
    "9223372036854775808",
    "0.30000000000000004",
]
TEXTS = ['""', '"é"', r'"\u00e9"', r'"\u0000"', r'"\ud83d\ude00"', r'"\ud840\udc00"', r'"\uD840\uDC00"', r'"\\ud83d"']
TEXTS += [r'"\n\t\"\\\/"', '"null"', "null", "true", "[]", '["a", null]', '["a", 1]', "{}", '{"a": "b"}', '{"a": null}']
TEXTS += ['{"a": 1}', '{"a": "1", "a": "2"}', '{"a": "1", "b": "2", "\\u0061": "3"}', '{"a": {"b": 1}}', "[[]]"]


@pytest.mark.parametrize("judge", FILLERS)
@pytest.mark.parametrize("text", NUMBERS + TEXTS)
def test_a_json_value_in_any_field_is_read_the_same(text: str, judge: str):
    paths = [path for path, _ in LEAVES]
    objects = sorted({path[:1] for path in paths})
    assert_same([surround(path, text) for path in paths + objects], judge)


@pytest.mark.parametrize("judge", FILLERS)
def test_a_key_that_occurs_twice_is_read_the_same_at_every_depth(judge: str):
    assert_same(
        [
            with_member('"event_id": "second"'),
            with_member('"geo": {"asn": 1, "asn": 2, "city": "Ulm"}'),
            with_member('"geo": {"asn": 1}, "geo": {"city": "Ulm"}'),
            with_member('"client": {"user_agent_parsed": {"a": "1", "b": "2", "a": "3"}}'),
            with_member('"custom_attributes": {"a": "1", "a": "2"}'),
        ],
        judge,
    )


@FEWER
@given(st.lists(valid_events().map(encode) | odd_events().map(encode), max_size=8), st.sampled_from(list(FILLERS)))
def test_any_events_are_decoded_the_same(values: list[bytes], judge: str):
    assert_same(list(values), judge)


@FEWER
@given(valid_events(), st.data())
def test_an_event_with_one_byte_changed_is_decoded_the_same(event: dict[str, Any], data: st.DataObject):
    value = bytearray(encode(event))
    value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    assert_same([bytes(value)])


@FEWER
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=100, max_size=100))
def test_doubles_are_read_bit_for_bit(numbers: list[float]):
    spellings = ("%r", "%.17g", "%.20e", "%.3f")
    assert_same([surround(("geo", "latitude"), spelling % number) for number in numbers for spelling in spellings])


def test_all_escapes_of_characters_are_read_the_same():
    codes = [*range(0, 0x10000, 7), *range(0xD7F0, 0xE010)]
    texts = ["".join(f"\\u{code:04x}" for code in codes[start : start + 50]) for start in range(0, len(codes), 50)]
    assert_same([surround(("geo", "city"), f'"{text}"') for text in texts])


def test_random_pairs_of_surrogates_are_read_the_same():
    draw = random.Random(1)
    pairs = [f"\\u{draw.randrange(0xD800, 0xDC00):04x}\\u{draw.randrange(0xDC00, 0xE000):04x}" for _ in range(300)]
    assert_same([surround(("geo", "city"), f'"{pair}"') for pair in pairs])


def test_usual_events_are_judged():
    event = {"custom_attributes": {"seats": 5, "trial": True, "ratio": 0.5, "none": None, "text": "é"}}
    for path, data_type in LEAVES:
        if isinstance(data_type, T.DoubleType):
            put(event, path, 1.5)
    assert is_judged(make_value(**event))
    assert is_judged(make_value(client={"user_agent_parsed": {"a": "\u00e9", "b": None}}))
    assert is_judged(make_value(event_timestamp="2026-06-01T11:59:58+00:00"))


def test_events_with_unknown_fields_are_judged_if_most_of_the_batch_have_some():
    assert is_judged(with_member('"another": 1'), "open")
    assert not is_judged(with_member('"another": 1'), "closed")


@pytest.mark.parametrize(
    "member",
    [r'"geo": {"city": "\ud840\udc00"}', r'"geo": {"city": "\u0000"}', '"client": {"user_agent_parsed": {"a": 1}}'],
)
def test_what_arrow_rs_reads_differently_is_left_to_the_row_decoder(member: str):
    assert not is_judged(with_member(member))


def test_usual_events_are_built_without_the_row_decoder(monkeypatch: pytest.MonkeyPatch):
    values = [make_value(client={"user_agent_parsed": {"a": "1"}}), OK]
    expected = split_records(make_records(values), 5, INGESTED_AT, use_dlq=True, by_rows=True).bronze
    monkeypatch.setattr(columns, "decode", None)
    assert split_records(make_records(values), 5, INGESTED_AT, use_dlq=True).bronze.equals(expected)


class PanicError(BaseException):
    """As pyo3 raises a panic of Rust."""


def fail(*_: Any, **__: Any) -> Any:
    raise PanicError


def leave_out_a_row(read: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: [pa.record_batch(batch).slice(1) for batch in read(*args, **kwargs)]


def turn_around(read: Callable[..., Any]) -> Callable[..., Any]:
    def read_turned(*args: Any, **kwargs: Any) -> Any:
        batches = [pa.record_batch(batch) for batch in read(*args, **kwargs)]
        return [batch.take(pa.array(range(len(batch) - 1, -1, -1))) for batch in batches]

    return read_turned


FAULTS = {"panics": lambda _: fail, "leaves out a row": leave_out_a_row, "returns another order": turn_around}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_builder_that_fails_changes_no_result(fault: str, monkeypatch: pytest.MonkeyPatch):
    values = [make_value(event_timestamp=f"2026-06-01T0{hour}:00:00Z", geo={"asn": hour}) for hour in (3, 1, 2)]
    monkeypatch.setattr(arro3.io, "read_json", FAULTS[fault](arro3.io.read_json))
    assert_same([*values, b"{", None])


def test_without_the_builder_each_record_is_decoded_on_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(columns, "HAS_BUILDER", False)
    decoded = decode_records(pa.array([OK, b"{"]), make_records([OK] * 2)["timestamp"], INGESTED_AT)
    assert decoded.others == {0: decode_value(OK), 1: decode_value(b"{")}
    assert_same([OK, b"{", None])


def test_a_batch_of_mostly_invalid_records_is_not_decoded_twice():
    decoded = decode_records(pa.array([OK, b"{", b"["]), make_records([OK] * 3)["timestamp"], INGESTED_AT)
    assert set(decoded.others) == {0, 1, 2}


def test_bronze_rows_are_in_the_order_of_their_hours():
    hours = [3, 1, 2, 1, 3]
    values = [make_value(event_timestamp=f"2026-06-01T0{hour}:00:00Z") for hour in hours]
    rows = split_records(make_records(values), 5, INGESTED_AT, use_dlq=True).bronze
    assert rows["_event_hour"].to_pylist() == sorted(hours)
    assert rows["_kafka_offset"].to_pylist() == [1, 3, 2, 0, 4]


def test_the_last_record_of_a_slice_of_an_arrow_batch_is_decoded():
    batch = make_records([b"{", OK, make_value(event_id="last"), b"["]).slice(1, 2)
    rows = split_records(batch, 5, INGESTED_AT, use_dlq=True).bronze
    assert rows["event_id"].to_pylist() == ["e-1", "last"]
    assert rows["event_timestamp"].to_pylist() == [EVENT_TIME] * 2
