"""Properties of decoding and splitting that hold for every possible value."""

import copy
import json
from typing import Any

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bronze.columns import BRONZE_ARROW
from bronze.decode import Event, Invalid
from bronze.schema import ERROR_TYPES
from bronze.transforms import DLQ_ARROW, split_records
from tests.support.builders import EVENT_TIME, INGESTED_AT, decode_value, encode, make_records
from tests.support.strategies import ANY_JSON, LEAVES, odd_events, valid_events

# For tests whose examples take milliseconds rather than microseconds.
FEWER = settings(max_examples=max(settings.default.max_examples // 5, 1))


def expect_fields(event: dict[str, Any], ascii_only: bool = True) -> dict[str, Any]:
    """The event with the map of a bronze column as pairs of key and text, and without the other map."""
    expected = copy.deepcopy(event)
    expected.pop("custom_attributes", None)
    client = expected.get("client") or {}
    if client.get("user_agent_parsed") is not None:
        pairs = client["user_agent_parsed"].items()
        client["user_agent_parsed"] = [(key, expect_text(value, ascii_only)) for key, value in pairs]
    return expected


def expect_text(value: Any, ascii_only: bool) -> str | None:
    return value if value is None or type(value) is str else json.dumps(value, ensure_ascii=ascii_only)


def assert_decided(value: bytes | None) -> None:
    outcome = decode_value(value)
    assert type(outcome) is Event or (type(outcome) is Invalid and outcome.error_type in ERROR_TYPES)
    if type(outcome) is Invalid:
        assert outcome.error_detail.encode()  # text that can be stored


@given(st.none() | st.binary(max_size=200))
@example(b"{\xed\xa0\x80}")
def test_any_bytes_are_an_event_or_a_known_error(value: bytes | None):
    assert_decided(value)


@given(st.text('{}[]":,\\0123456789eE+-. \n\tntrufalsdx', max_size=60))
def test_anything_that_looks_like_json_is_an_event_or_a_known_error(text: str):
    assert_decided(text.encode())


@given(ANY_JSON)
def test_any_json_is_an_event_or_a_known_error(value: Any):
    assert_decided(encode(value))


@given(odd_events())
def test_any_values_in_the_fields_of_an_event_are_an_event_or_a_known_error(event: dict[str, Any]):
    assert_decided(encode(event))


@FEWER
@given(valid_events(), st.booleans())
def test_a_valid_event_decodes_to_the_fields_that_it_has(event: dict[str, Any], ascii_only: bool):
    outcome = decode_value(json.dumps(event, ensure_ascii=ascii_only).encode())
    assert isinstance(outcome, Event), outcome
    found = {name: value for name, value in outcome.fields.items() if name != "custom_attributes"}
    assert found == expect_fields(event, ascii_only)


@FEWER
@given(valid_events(), st.data())
def test_an_event_with_one_byte_changed_is_an_event_or_a_known_error(event: dict[str, Any], data: st.DataObject):
    value = bytearray(encode(event))
    value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    assert_decided(bytes(value))


VALUES = st.lists(
    st.none() | st.binary(max_size=30) | valid_events().map(encode) | odd_events().map(encode), max_size=8
)


@FEWER
@given(VALUES, st.booleans())
def test_each_record_is_a_row_of_exactly_one_table(values: list[bytes | None], use_dlq: bool):
    split = split_records(make_records(values), 5, INGESTED_AT, use_dlq)
    found = sorted(split.bronze["_kafka_offset"].to_pylist() + split.dlq["_kafka_offset"].to_pylist())
    assert found == list(range(len(values)))
    assert (split.bronze.schema, split.dlq.schema) == (BRONZE_ARROW, DLQ_ARROW)
    assert use_dlq or len(split.dlq) == 0


@FEWER
@given(VALUES)
def test_the_dlq_keeps_each_value_byte_by_byte_and_bronze_the_exact_text(values: list[bytes | None]):
    split = split_records(make_records(values), 5, INGESTED_AT, use_dlq=True)
    for offset, raw in zip(split.dlq["_kafka_offset"].to_pylist(), split.dlq["_raw_bytes"].to_pylist(), strict=True):
        assert raw == values[offset]
    for offset, raw in zip(
        split.bronze["_kafka_offset"].to_pylist(), split.bronze["_raw_value"].to_pylist(), strict=True
    ):
        assert raw.encode() == values[offset]


@FEWER
@given(valid_events())
def test_a_valid_event_arrives_in_its_bronze_row(event: dict[str, Any]):
    (row,) = split_records(make_records([encode(event)]), 5, INGESTED_AT, use_dlq=True).bronze.to_pylist()
    expected = expect_fields(event)
    for path, _ in LEAVES:
        if path[0] in BRONZE_ARROW.names:
            assert reach(row, path) == reach(expected, path), path
    assert row["event_timestamp"] == EVENT_TIME


def reach(holder: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        holder = (holder or {}).get(name)
    return holder


def test_the_schemas_that_splitting_promises_are_those_of_the_tables():
    assert len(BRONZE_ARROW) == 24
    assert len(DLQ_ARROW) == 12
    assert BRONZE_ARROW.field("_kafka_timestamp").type == pa.timestamp("us", "UTC")
