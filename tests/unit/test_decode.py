"""Which values are valid events, and which error type each other value gets: one line per kind of value."""

import re
import time
from typing import Any

import pytest

from bronze.decode import Event, Invalid, decode, parse_timestamp
from bronze.schema import ERROR_TYPES
from tests.support.builders import (
    EVENT_TIME,
    INGESTED_AT,
    KAFKA_TIME,
    REQUIRED,
    decode_member,
    decode_value,
    make_value,
    to_micros,
)
from tests.support.values import (
    BROKEN,
    INVALID_TIMES,
    JSON,
    LARGE,
    MISSING,
    OBJECT,
    OK,
    SCHEMA,
    TIME,
    UTF8,
    VALID,
    VALID_TIMES,
)

DAY = 86_400_000_000


def test_the_error_types_are_a_closed_set_in_order():
    assert ERROR_TYPES == ("tombstone", "empty", UTF8, JSON, OBJECT, SCHEMA, MISSING, TIME)


@pytest.mark.parametrize(("value", "error_type", "detail"), [c[1:] for c in BROKEN], ids=[c[0] for c in BROKEN])
def test_a_broken_value_is_called_by_the_first_rule_that_applies(value: bytes | None, error_type: str, detail: str):
    outcome = decode_value(value)
    assert isinstance(outcome, Invalid)
    assert outcome.error_type == error_type
    assert detail in outcome.error_detail


def test_every_error_type_is_in_the_table_of_broken_values():
    assert {error_type for _, _, error_type, _ in BROKEN} == set(ERROR_TYPES)


@pytest.mark.parametrize("value", [c[1] for c in VALID], ids=[c[0] for c in VALID])
def test_a_value_that_keeps_the_rules_is_an_event(value: bytes):
    outcome = decode_value(value)
    assert isinstance(outcome, Event), outcome
    assert outcome.event_time == to_micros(EVENT_TIME)


@pytest.mark.parametrize(("text", "instant"), VALID_TIMES)
def test_a_time_of_rfc_3339_is_read_in_utc(text: str, instant: str):
    outcome = decode_value(make_value(event_timestamp=text))
    assert isinstance(outcome, Event), outcome
    assert outcome.event_time == to_micros(instant)
    assert outcome.fields["event_timestamp"] == text


@pytest.mark.parametrize(("text", "detail"), [c[1:] for c in INVALID_TIMES], ids=[c[0] for c in INVALID_TIMES])
def test_any_other_time_is_invalid_and_the_detail_says_what_was_expected(text: str, detail: str):
    outcome = decode_value(make_value(event_timestamp=text))
    assert outcome[0] == TIME
    assert detail in outcome[1]
    assert f"got {text!r} - at `$.event_timestamp`" in outcome[1]


def test_a_time_that_is_no_time_has_no_microseconds():
    assert parse_timestamp("2026-02-30T00:00:00Z") is None


# Kafka's timestamp, and the latest event time that it allows
BOUNDS = [
    ("Kafka's own", KAFKA_TIME, KAFKA_TIME + DAY),
    ("an old record's", to_micros("2020-01-01T00:00:00Z"), to_micros("2020-01-02T00:00:00Z")),
    ("missing", None, INGESTED_AT + DAY),
    ("zero", 0, INGESTED_AT + DAY),
    ("a millisecond", 1_000, INGESTED_AT + DAY),
    ("in seconds", KAFKA_TIME // 1_000, INGESTED_AT + DAY),
    ("a month's uptime", 30 * DAY, INGESTED_AT + DAY),
    ("a microsecond before 2000", to_micros("2000-01-01T00:00:00Z") - 1, INGESTED_AT + DAY),
    ("the first of 2000", to_micros("2000-01-01T00:00:00Z"), to_micros("2000-01-02T00:00:00Z")),
    ("minus one", -1, INGESTED_AT + DAY),
    ("minus one millisecond", -1_000, INGESTED_AT + DAY),
    ("the batch's", INGESTED_AT, INGESTED_AT + DAY),
    ("in the future", INGESTED_AT + 1, INGESTED_AT + DAY),
    ("far in the future", 9 * 10**17, INGESTED_AT + DAY),
    ("in microseconds", KAFKA_TIME * 1_000, INGESTED_AT + DAY),
]


def format_micros(micros: int) -> str:
    seconds, rest = divmod(micros, 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:06d}Z"


@pytest.mark.parametrize(("kafka_time", "latest"), [b[1:] for b in BOUNDS], ids=[b[0] for b in BOUNDS])
def test_an_event_may_be_a_day_ahead_of_its_record_but_no_microsecond_more(kafka_time: int | None, latest: int):
    in_time, too_late = (make_value(event_timestamp=format_micros(latest + extra)) for extra in (0, 1))
    assert decode(in_time, kafka_time, INGESTED_AT)[1] == latest
    assert decode(too_late, kafka_time, INGESTED_AT)[0] == TIME


@pytest.mark.parametrize("kafka_time", [b[1] for b in BOUNDS], ids=[b[0] for b in BOUNDS])
def test_the_expected_range_is_one_that_times_are_in_and_says_what_bounds_it(kafka_time: int | None):
    outcome = decode(make_value(event_timestamp="1999-12-31T23:59:59Z"), kafka_time, INGESTED_AT)
    found = re.search("Expected a time from (.*) to (.*), a day after the (record|batch's start), got", outcome[1])
    assert found is not None
    first, last = to_micros(found[1] + "T00:00:00Z"), to_micros(found[2])
    assert first < last == (kafka_time if found[3] == "record" else INGESTED_AT) + DAY


def test_a_driver_without_a_clock_prints_no_empty_range():
    assert "from 2000-01-01 to 2000-01-02T" in decode(make_value(event_timestamp="2030-01-01T00:00:00Z"), 0, 0)[1]


def test_a_long_timestamp_is_shortened_in_the_detail():
    outcome = decode_value(make_value(event_timestamp="9" * 1_000_000))
    assert outcome[0] == TIME
    assert len(outcome[1]) < 300


@pytest.mark.parametrize(
    ("json_text", "text"),
    [
        ('"plain"', "plain"),
        ('""', ""),
        (r'"tab\t, \"quotes\", \u00e9, \ud83d\ude00"', 'tab\t, "quotes", é, 😀'),
        ('"null"', "null"),
        ("null", None),
        ("1.50", "1.50"),
        ("-0", "-0"),
        ("1E+2", "1E+2"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("true", "true"),
        ("false", "false"),
        ("[]", "[]"),
        ('[1, "a",  null]', '[1, "a",  null]'),
        ('{ "b" : {"c": 1.0} }', '{ "b" : {"c": 1.0} }'),
        ('["é \\u00e9"]', '["é \\u00e9"]'),
    ],
)
def test_a_map_value_is_its_text_and_what_is_no_string_keeps_its_json(json_text: str, text: str | None):
    found = decode_member(f'"client": {{"user_agent_parsed": {{"a": \n{json_text} }}}}')["client"]
    assert found["user_agent_parsed"] == [("a", text)]


def test_a_map_keeps_the_order_of_its_keys_and_the_last_of_equal_ones():
    found = decode_member('"client": {"user_agent_parsed": {"b": "1", "a": 2, "b": 3, "": null}}')["client"]
    assert found["user_agent_parsed"] == [("b", "3"), ("a", "2"), ("", None)]


def test_the_last_of_duplicate_keys_wins():
    fields = decode_member('"event_id": "second", "event_id": "third"')
    assert fields["event_id"] == "third"


def test_a_later_duplicate_object_replaces_the_earlier_one_whole():
    assert decode_member('"geo": {"city": "Ulm"}, "geo": {"region": "BW"}')["geo"] == {"region": "BW"}


def test_unknown_fields_are_not_among_the_decoded_ones():
    assert set(decode_member('"other": 1, "geo": {"other": 2}')) == {*REQUIRED, "geo"}


@pytest.mark.parametrize(("value", "expected"), [c[1:] for c in LARGE], ids=[c[0] for c in LARGE])
def test_a_large_value_is_decided_quickly(value: bytes, expected: str):
    started = time.perf_counter()
    outcome: Any = decode_value(value)
    assert time.perf_counter() - started < 30  # what grows with the square of the size takes hours
    assert getattr(outcome, "error_type", "valid") == expected


def test_decoding_leaves_nothing_behind_for_the_next_record():
    assert decode_value(b"{")[0] == JSON
    assert isinstance(decode_value(OK), Event)
    assert decode_value(OK) == decode_value(OK)
