"""What is a valid event, and what each other value is called: one line per kind of value."""

import gzip
import json
import re
import time
from typing import Any

import pytest

from bronze.decode import Event, Invalid, decode, parse_timestamp
from bronze.schema import ERROR_TYPES
from tests.unit.builders import (
    EVENT_TIME,
    INGESTED_AT,
    KAFKA_TIME,
    REQUIRED,
    decode_member,
    decode_value,
    encode,
    make_event,
    make_value,
    to_micros,
    with_member,
)

OK = encode(REQUIRED)
DAY = 86_400_000_000
UTF8, JSON, OBJECT = "invalid_utf8", "malformed_json", "not_an_object"
SCHEMA, MISSING, TIME = "schema_mismatch", "missing_required", "invalid_timestamp"

# name, value, error type, what the detail must contain
BROKEN = [
    ("null value", None, "tombstone", "null"),
    ("zero bytes", b"", "empty", "zero bytes"),
    # not UTF-8
    ("one bad byte", b"\xff", UTF8, "byte 0 (0xff)"),
    ("UTF-16 with its mark", OK.decode().encode("utf-16"), UTF8, "byte 0"),
    ("gzip", gzip.compress(OK), UTF8, "byte 1 (0x8b)"),
    ("Latin-1 in a known field", b'{"event_id": "\xe9"}', UTF8, "byte 14 (0xe9)"),
    ("bad byte in an unknown field", with_member(b'"other": "\xff"'), UTF8, "(0xff)"),
    ("bad byte in an unknown key", with_member(b'"\xfe": 1'), UTF8, "(0xfe)"),
    ("bad byte after the document", OK + b"\xff", UTF8, f"byte {len(OK)}"),
    ("bad byte in no JSON at all", b"hello \x80", UTF8, "byte 6 (0x80)"),
    ("character cut at the end", b'{"event_id": "\xe2\x82', UTF8, "unexpected end"),
    ("overlong slash", with_member(b'"other": "\xc0\xaf"'), UTF8, "(0xc0)"),
    ("surrogate as bytes", with_member(b'"other": "\xed\xa0\x80"'), UTF8, "(0xed)"),
    ("beyond the last character", with_member(b'"other": "\xf5\x80\x80\x80"'), UTF8, "(0xf5)"),
    # not one JSON document
    ("a space", b" ", JSON, "truncated"),
    ("white space of every kind", b" \t\r\n", JSON, "truncated"),
    ("byte order mark", b"\xef\xbb\xbf" + OK, JSON, "byte 0"),
    ("UTF-16 without a mark", OK.decode().encode("utf-16-le"), JSON, "byte 1"),
    ("a NUL", b"\x00", JSON, "byte 0"),
    ("plain text", b"hello", JSON, "byte 0"),
    ("XML", b"<event/>", JSON, "byte 0"),
    ("single quotes", b"{'event_id': 'e'}", JSON, "byte 1"),
    ("no quotes", b"{event_id: 1}", JSON, "byte 1"),
    ("cut in the last string", OK[:-2], JSON, "truncated"),
    ("cut before the last brace", OK[:-1], JSON, "truncated"),
    ("cut after a key", b'{"event_id"', JSON, "truncated"),
    ("cut after a colon", b'{"event_id":', JSON, "truncated"),
    ("cut in a literal", b'{"other": tru', JSON, "truncated"),
    ("one brace", b"{", JSON, "truncated"),
    ("a closing brace", b"}", JSON, "byte 0"),
    ("text after the document", OK + b" hello", JSON, "trailing"),
    ("a brace after the document", OK + b"}", JSON, "trailing"),
    ("a comma after the document", OK + b",", JSON, "trailing"),
    ("a NUL after the document", OK + b"\x00", JSON, "trailing"),
    ("a comment after the document", OK + b"// done", JSON, "trailing"),
    ("two documents in a row", OK + OK, JSON, "trailing"),
    ("two documents on two lines", OK + b"\n" + OK, JSON, "trailing"),
    ("trailing comma in an object", OK[:-1] + b",}", JSON, "byte"),
    ("trailing comma in an array", with_member('"other": [1,]'), JSON, "trailing comma"),
    ("NaN in a known field", with_member('"response": {"latency_ms": NaN}'), JSON, "byte"),
    ("NaN in an unknown field", with_member('"other": NaN'), JSON, "byte"),
    ("Infinity", with_member('"response": {"latency_ms": Infinity}'), JSON, "byte"),
    ("minus Infinity", with_member('"other": -Infinity'), JSON, "byte"),
    ("leading zero", with_member('"sequence_number": 01'), JSON, "invalid number"),
    ("leading plus", with_member('"sequence_number": +1'), JSON, "byte"),
    ("no digit after the point", with_member('"other": 1.'), JSON, "invalid number"),
    ("no digit before the point", with_member('"other": .5'), JSON, "byte"),
    ("hexadecimal number", with_member('"other": 0x10'), JSON, "byte"),
    ("unknown escape", with_member(r'"other": "\x41"'), JSON, "escaped"),
    ("short unicode escape", with_member(r'"other": "\u12"'), JSON, "unicode escape"),
    ("raw control character in a known field", with_member(b'"event_version": "a\x01"'), JSON, "byte"),
    ("raw control character in an unknown field", with_member(b'"other": "a\x1f"'), JSON, "byte"),
    ("raw line break in a string", with_member(b'"other": "a\nb"'), JSON, "byte"),
    ("lone surrogate in a known field", with_member(r'"event_version": "\ud800 and more"'), JSON, "byte"),
    ("lone surrogate in an unknown field", with_member(r'"other": "\ud800 and more"'), JSON, "byte"),
    ("lone low surrogate", with_member(r'"other": "\udc00 and more"'), JSON, "surrogate"),
    ("lone surrogate in a map value", with_member(r'"custom_attributes": {"a": "\udc00"}'), JSON, "surrogate"),
    ("lone surrogate in a map key", with_member(r'"custom_attributes": {"\udc00": "a"}'), JSON, "surrogate"),
    (
        "lone surrogate in a map of bronze",
        with_member(r'"client": {"user_agent_parsed": {"a": "\udc00"}}'),
        JSON,
        "surr",
    ),
    ("lone surrogate deep in a map value", with_member(r'"custom_attributes": {"a": ["\udc00"]}'), JSON, "surrogate"),
    ("101 levels in an unknown field", with_member('"other": ' + "[" * 100 + "]" * 100), JSON, "deeper than 100"),
    ("101 levels of objects", with_member('"other": ' + '{"a":' * 100 + "1" + "}" * 100), JSON, "deeper than 100"),
    ("101 levels in a map value", with_member('"custom_attributes": {"a": ' + "[" * 99 + "]" * 99 + "}"), JSON, "100"),
    ("100,000 levels", b"[" * 100_000 + b"]" * 100_000, JSON, "deeper than 100 levels (byte 100)"),
    (
        "1,000 levels of objects",
        with_member('"other": ' + '{"a":' * 1_000 + "1" + "}" * 1_000),
        JSON,
        "deeper than 100",
    ),
    ("bytes that close a wrapper", OK + b'}]}, {"other": [{', JSON, "trailing"),
    ("a quote that closes a wrapper", b'"}, {"' + OK, OBJECT, "got `str`"),
    ("100,000 levels never closed", b'{"a":' * 100_000, JSON, "deeper than 100"),
    # JSON, but no object
    ("JSON null", b"null", OBJECT, "Expected `object`, got `null`"),
    ("an array", b"[]", OBJECT, "got `array`"),
    ("an array of events", b"[" + OK + b"]", OBJECT, "got `array`"),
    ("a string", b'"event"', OBJECT, "got `str`"),
    ("an event in a string", encode(OK.decode()), OBJECT, "got `str`"),
    ("an integer", b"42", OBJECT, "got `int`"),
    ("a float", b"4.2", OBJECT, "got `float`"),
    ("true", b"true", OBJECT, "got `bool`"),
    # a wrong type
    ("number in a string field", make_value(event_id=7), SCHEMA, "`str | null`, got `int` - at `$.event_id`"),
    ("float in a string field", make_value(event_version=1.5), SCHEMA, "got `float` - at `$.event_version`"),
    ("object in a string field", make_value(tenant_id={}), SCHEMA, "got `object` - at `$.tenant_id`"),
    ("array in a string field", make_value(tenant_id=["t"]), SCHEMA, "got `array` - at `$.tenant_id`"),
    ("bool in a string field", make_value(event_version=True), SCHEMA, "got `bool` - at `$.event_version`"),
    ("number in a timestamp", make_value(event_timestamp=1_780_000_000), SCHEMA, "got `int` - at `$.event_timestamp`"),
    ("milliseconds in a timestamp", make_value(event_timestamp=1_780_000_000_000), SCHEMA, "$.event_timestamp"),
    ("number in a nested string", make_value(request={"path": 1}), SCHEMA, "`$.request.path`"),
    ("numeric string in an int", make_value(response={"status_code": "200"}), SCHEMA, "`int | null`, got `str`"),
    ("numeric string in a long", make_value(sequence_number="1"), SCHEMA, "got `str` - at `$.sequence_number`"),
    ("numeric string in a double", make_value(geo={"latitude": "1.5"}), SCHEMA, "`float | null`, got `str`"),
    ("quoted NaN", make_value(response={"latency_ms": "NaN"}), SCHEMA, "got `str` - at `$.response.latency_ms`"),
    ("1.0 in a long", with_member('"sequence_number": 1.0'), SCHEMA, "`int | null`, got `float`"),
    ("1.0 in an int", with_member('"response": {"status_code": 200.0}'), SCHEMA, "$.response.status_code"),
    ("1e2 in a long", with_member('"sequence_number": 1e2'), SCHEMA, "got `float` - at `$.sequence_number`"),
    ("bool in an int", make_value(response={"status_code": True}), SCHEMA, "got `bool`"),
    ("bool in a double", make_value(geo={"latitude": False}), SCHEMA, "got `bool` - at `$.geo.latitude`"),
    ("number in a boolean", make_value(geo={"is_vpn": 1}), SCHEMA, "`bool | null`, got `int` - at `$.geo.is_vpn`"),
    ("string in a boolean", make_value(geo={"is_vpn": "true"}), SCHEMA, "got `str` - at `$.geo.is_vpn`"),
    ("int above 32 bits", make_value(response={"status_code": 2**31}), SCHEMA, "<= 2147483647 - at `$.response.st"),
    ("int below 32 bits", make_value(geo={"asn": -(2**31) - 1}), SCHEMA, ">= -2147483648 - at `$.geo.asn`"),
    ("long above 64 bits", make_value(sequence_number=2**63), SCHEMA, "<= 9223372036854775807"),
    ("long below 64 bits", make_value(sequence_number=-(2**63) - 1), SCHEMA, ">= -9223372036854775808"),
    ("long of 100 digits", make_value(sequence_number=10**100), SCHEMA, "$.sequence_number"),
    ("1e400 in a double", with_member('"response": {"latency_ms": 1e400}'), SCHEMA, "$.response.latency_ms"),
    ("400 digits in a double", make_value(geo={"latitude": 10**400}), SCHEMA, "$.geo.latitude"),
    ("null in a string array", make_value(identity={"scopes": ["a", None]}), SCHEMA, "got `null` - at `$.identity.sc"),
    ("number in a string array", make_value(identity={"scopes": [1]}), SCHEMA, "`$.identity.scopes[0]`"),
    ("array in a string array", make_value(abuse_signals={"risk_factors": [[]]}), SCHEMA, "risk_factors[0]`"),
    ("string for a string array", make_value(identity={"scopes": "a"}), SCHEMA, "`array | null`, got `str`"),
    ("object for a string array", make_value(identity={"scopes": {}}), SCHEMA, "got `object`"),
    ("array for an object", make_value(identity=[]), SCHEMA, "`object | null`, got `array` - at `$.identity`"),
    ("string for an object", make_value(geo="DE"), SCHEMA, "got `str` - at `$.geo`"),
    ("bool for an object", make_value(billing=False), SCHEMA, "got `bool` - at `$.billing`"),
    ("array for a map", make_value(custom_attributes=[]), SCHEMA, "got `array` - at `$.custom_attributes`"),
    ("string for a nested map", make_value(client={"user_agent_parsed": "x"}), SCHEMA, "$.client.user_agent_parsed"),
    ("wrong type where bronze has no column", make_value(metadata={"retention_days": "x"}), SCHEMA, "$.metadata.ret"),
    ("first of two duplicates wrong", with_member('"event_version": 1, "event_version": "2"'), SCHEMA, "event_version"),
    ("second of two duplicates wrong", with_member('"event_id": 1'), SCHEMA, "$.event_id"),
    # a required field is missing
    ("an empty object", b"{}", MISSING, "`$.event_id` is required, but is absent"),
    ("no event_id", encode({"event_timestamp": EVENT_TIME, "tenant_id": "t"}), MISSING, "`$.event_id`"),
    ("no event_timestamp", encode({"event_id": "e", "tenant_id": "t"}), MISSING, "`$.event_timestamp`"),
    ("no tenant_id", encode({"event_id": "e", "event_timestamp": EVENT_TIME}), MISSING, "`$.tenant_id`"),
    ("null event_id", make_value(event_id=None), MISSING, "`$.event_id` is required, but is null"),
    ("null event_timestamp", make_value(event_timestamp=None), MISSING, "`$.event_timestamp` is required, but is null"),
    ("empty tenant_id", make_value(tenant_id=""), MISSING, "`$.tenant_id` is required, but is empty"),
    ("empty event_timestamp", make_value(event_timestamp=""), MISSING, "but is empty"),
    ("keys in another case", encode({k.upper(): v for k, v in REQUIRED.items()}), MISSING, "`$.event_id`"),
    ("last of two duplicates null", with_member('"event_id": null'), MISSING, "but is null"),
    ("last of two duplicates empty", with_member('"tenant_id": ""'), MISSING, "`$.tenant_id`"),
    # no usable time
    ("words for a time", make_value(event_timestamp="yesterday"), TIME, "RFC 3339"),
    # the first rule that applies names the error
    ("bad byte before bad type", with_member(b'"event_version": 1, "other": "\xff"'), UTF8, "(0xff)"),
    ("bad byte before missing fields", b'{"other": "\xff"}', UTF8, "(0xff)"),
    ("depth before not an object", b"[" * 101 + b"]" * 101, JSON, "deeper than 100"),
    ("depth before bad type", b'{"event_id": 1, "other": ' + b"[" * 101 + b"]" * 101 + b"}", JSON, "deeper than 100"),
    ("bad type before missing fields", b'{"geo": []}', SCHEMA, "`$.geo`"),
    ("bad type before bad time", make_value(event_timestamp="x", geo=1), SCHEMA, "`$.geo`"),
    ("missing field before bad time", encode({"event_id": "e", "event_timestamp": "x"}), MISSING, "`$.tenant_id`"),
    ("of missing fields the first", make_value(event_id="", tenant_id=""), MISSING, "`$.event_id`"),
]

VALID = [
    ("required fields only", OK),
    ("white space around it", b" \r\n\t" + OK + b" \r\n\t"),
    ("unknown fields", with_member('"other": {"a": [1, null, "x"]}')),
    ("wrong case of an optional field", with_member('"Event_Version": 5')),
    ("1e400 in an unknown field", with_member('"other": 1e400')),
    ("1e400 in a map value", with_member('"custom_attributes": {"a": 1e400}')),
    ("null in every optional object", make_value(geo=None, client=None, custom_attributes=None, metadata=None)),
    ("null in optional fields", make_value(event_version=None, sequence_number=None, identity={"scopes": None})),
    ("empty objects", make_value(geo={}, client={}, custom_attributes={})),
    ("empty optional string", make_value(event_version="")),
    ("largest int", make_value(response={"status_code": 2**31 - 1})),
    ("smallest int", make_value(geo={"asn": -(2**31)})),
    ("largest long", make_value(sequence_number=2**63 - 1)),
    ("smallest long", make_value(sequence_number=-(2**63))),
    ("integer in a double", make_value(geo={"latitude": 52})),
    ("exponent in a double", with_member('"geo": {"latitude": -5.2e-1}')),
    ("100 levels", with_member('"other": ' + "[" * 99 + "]" * 99)),
    ("many short arrays", with_member('"other": [' + ",".join(["[]"] * 1_000) + "]")),
    ("brackets in a string", with_member('"other": "' + "[{" * 1_000 + '"')),
    ("brackets after an escaped quote", with_member(r'"other": "\"' + "[{" * 1_000 + '"')),
    ("brackets after an escaped backslash", with_member('"other": ["\\\\", "' + "[{" * 1_000 + '"]')),
    ("closing brackets in a string do not hide depth", with_member('"other": "' + "]}" * 200 + '"')),
    ("escaped control characters", with_member(r'"event_version": "\u0000\u001f\n\t\b\f"')),
    ("delete character", with_member(b'"event_version": "\x7f"')),
    ("escaped surrogate pair", with_member(r'"event_version": "\ud83d\ude00"')),
    ("escaped slash", with_member(r'"event_version": "a\/b"')),
    ("characters beyond ASCII", json.dumps(make_event(tenant_id="Zürich 東京 😀"), ensure_ascii=False).encode()),
    ("byte order mark in a string", make_value(tenant_id="\ufefft")),
]

VALID_TIMES = [
    ("2026-06-01T12:00:00Z", "2026-06-01T12:00:00+00:00"),
    ("2026-06-01t12:00:00z", "2026-06-01T12:00:00+00:00"),
    ("2026-06-01 12:00:00Z", "2026-06-01T12:00:00+00:00"),
    ("2026-06-01T12:00:00+00:00", "2026-06-01T12:00:00+00:00"),
    ("2026-06-01T12:00:00-00:00", "2026-06-01T12:00:00+00:00"),
    ("2026-06-01T12:00:00+23:59", "2026-05-31T12:01:00+00:00"),
    ("2026-05-31T12:00:00-23:59", "2026-06-01T11:59:00+00:00"),
    ("2026-06-01T12:00:00.5Z", "2026-06-01T12:00:00.500000+00:00"),
    ("2026-06-01T12:00:00.123456Z", "2026-06-01T12:00:00.123456+00:00"),
    ("2026-06-01T12:00:00.123456789Z", "2026-06-01T12:00:00.123456+00:00"),
    ("2000-01-01T00:00:00Z", "2000-01-01T00:00:00+00:00"),
    ("2024-02-29T23:59:59Z", "2024-02-29T23:59:59+00:00"),
    ("2026-06-02T12:00:00Z", "2026-06-02T12:00:00+00:00"),
]

# name, text, what the detail must contain
INVALID_TIMES = [
    ("no zone", "2026-06-01T12:00:00", "RFC 3339"),
    ("date only", "2026-06-01", "RFC 3339"),
    ("date with a zone", "2026-06-01Z", "RFC 3339"),
    ("no seconds", "2026-06-01T12:00Z", "RFC 3339"),
    ("seconds since 1970 in a string", "1780000000", "RFC 3339"),
    ("milliseconds since 1970 in a string", "1780000000000", "RFC 3339"),
    ("year 0", "0000-01-01T00:00:00Z", "RFC 3339"),
    ("year 1 east of Greenwich", "0001-01-01T00:00:00+10:00", "2000-01-01"),
    ("1969", "1969-12-31T23:59:59Z", "2000-01-01"),
    ("a microsecond before 2000", "1999-12-31T23:59:59.999999Z", "2000-01-01"),
    ("2000 by its zone only", "2000-01-01T00:00:00+00:01", "2000-01-01"),
    ("year 9999", "9999-12-31T23:59:59Z", "2026-06-02T12:00:00.000+00:00"),
    ("year 9999 west of Greenwich", "9999-12-31T23:59:59-10:00", "Expected"),
    ("year 10000", "10000-01-01T00:00:00Z", "RFC 3339"),
    ("signed year", "+2026-06-01T12:00:00Z", "RFC 3339"),
    ("leap second", "2016-12-31T23:59:60Z", "RFC 3339"),
    ("30 February", "2026-02-30T12:00:00Z", "RFC 3339"),
    ("29 February of a common year", "2025-02-29T12:00:00Z", "RFC 3339"),
    ("month 13", "2026-13-01T12:00:00Z", "RFC 3339"),
    ("hour 24", "2026-06-01T24:00:00Z", "RFC 3339"),
    ("minute 60", "2026-06-01T12:60:00Z", "RFC 3339"),
    ("comma before the fraction", "2026-06-01T12:00:00,5Z", "RFC 3339"),
    ("point without a fraction", "2026-06-01T12:00:00.Z", "RFC 3339"),
    ("week date", "2026-W22-1T12:00:00Z", "RFC 3339"),
    ("day of the year", "2026-152T12:00:00Z", "RFC 3339"),
    ("no separators", "20260601T120000Z", "RFC 3339"),
    ("zone without a colon", "2026-06-01T12:00:00+0200", "RFC 3339"),
    ("zone of hours only", "2026-06-01T12:00:00+02", "RFC 3339"),
    ("zone with seconds", "2026-06-01T12:00:00+02:00:30", "RFC 3339"),
    ("zone +24:00", "2026-06-01T12:00:00+24:00", "RFC 3339"),
    ("zone +99:00", "2026-06-01T12:00:00+99:00", "RFC 3339"),
    ("zone by name", "2026-06-01T12:00:00 UTC", "RFC 3339"),
    ("minus sign of typography", "2026-06-01T12:00:00\u221202:00", "RFC 3339"),
    ("Arabic-Indic digits", "\u0662\u0660\u0662\u0666-06-01T12:00:00Z", "RFC 3339"),
    ("full-width digits", "\uff12026-06-01T12:00:00Z", "RFC 3339"),
    ("space before", " 2026-06-01T12:00:00Z", "RFC 3339"),
    ("line break after", "2026-06-01T12:00:00Z\n", "RFC 3339"),
    ("American order", "06/01/2026 12:00:00", "RFC 3339"),
    ("RFC 1123", "Mon, 01 Jun 2026 12:00:00 GMT", "RFC 3339"),
    ("two days after the record", "2026-06-03T12:00:00Z", "a day after the record"),
]


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


# name, value, error type or "valid"
LARGE = [
    ("escaped quotes", b'"' + rb"\"" * 5_000_000, JSON),
    ("deep and escaped quotes", b"[" * 101 + b'"' + rb"\"" * 5_000_000, JSON),
    ("a million objects", with_member('"other": [' + "{}," * 1_000_000 + '"' + r"\"" * 1_000_000), JSON),
    ("5 MB string", with_member('"event_version": "' + "x" * 5_000_000 + '"'), "valid"),
    ("100,000 keys", with_member(",".join(f'"key{n}": {{"a": [{n}]}}' for n in range(100_000))), "valid"),
    (
        "big map",
        with_member('"custom_attributes": {' + ",".join(f'"k{n}": {n}' for n in range(100_000)) + "}"),
        "valid",
    ),
]


@pytest.mark.parametrize(("value", "expected"), [c[1:] for c in LARGE], ids=[c[0] for c in LARGE])
def test_a_large_value_is_decided_quickly(value: bytes, expected: str):
    started = time.perf_counter()
    outcome: Any = decode_value(value)
    assert time.perf_counter() - started < 2
    assert getattr(outcome, "error_type", "valid") == expected


def test_decoding_leaves_nothing_behind_for_the_next_record():
    assert decode_value(b"{")[0] == JSON
    assert isinstance(decode_value(OK), Event)
    assert decode_value(OK) == decode_value(OK)
