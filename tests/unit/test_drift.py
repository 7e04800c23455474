"""Drift: a value that the decoder refuses is a conflict, unknown fields are named, and no bytes cause an error."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bronze.decode import Invalid
from bronze.ops.drift import NOT_AN_OBJECT, Drift, compile_fields, find_drift, name_kind
from bronze.schema import get_event_schema
from sandbox.invalid import FLAVOURS
from tests.support.builders import decode_value, make_value

SCHEMA = get_event_schema()
FIELDS = compile_fields(SCHEMA)


def list_drift(value: bytes | None) -> dict[Drift, str]:
    return dict(find_drift(value, FIELDS))


def test_a_valid_event_shows_none():
    value = make_value(response={"status_code": 200, "latency_ms": 3}, identity=None, custom_attributes={"a": 1})
    assert list_drift(value) == {}


def test_a_changed_type_is_named_with_what_came():
    value = make_value(response={"status_code": "200"})
    assert list_drift(value) == {Drift("response.status_code", "int", "string"): '"200"'}


def test_new_fields_are_named_at_any_level_of_the_schema():
    value = make_value(region={"code": "eu"}, client={"device": True})
    assert list_drift(value) == {
        Drift("region", "", "object"): '{"code": "eu"}',
        Drift("client.device", "", "boolean"): "true",
    }


@pytest.mark.parametrize(
    ("fields", "drift"),
    [
        ({"client": "x"}, Drift("client", "object", "string")),
        ({"response": {"status_code": 1.0}}, Drift("response.status_code", "int", "number")),
        ({"response": {"status_code": 2**31}}, Drift("response.status_code", "int", "integer")),
        ({"identity": {"scopes": ["a", None]}}, Drift("identity.scopes", "array<string>", "array")),
        ({"custom_attributes": []}, Drift("custom_attributes", "map<string,string>", "array")),
        ({"tenant_id": 7}, Drift("tenant_id", "string", "integer")),
    ],
)
def test_each_type_that_the_decoder_refuses_is_a_conflict(fields: dict, drift: Drift):
    assert list(list_drift(make_value(**fields))) == [drift]


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"{", b"[1]", b'"x"', b'{"a": 1', b'{"a":' * 100_000])
def test_what_is_no_object_is_one_finding_without_its_text(value: bytes | None):
    assert list_drift(value) == {Drift(NOT_AN_OBJECT, "a JSON object", "anything else"): ""}


@pytest.mark.parametrize("flavour", FLAVOURS["schema_mismatch"])
def test_every_schema_mismatch_of_the_sandbox_is_found(flavour):
    value = flavour(make_value(response={}, rate_limiting={}, billing={}, identity={}, request={}, geo={}, client={}))
    outcome = decode_value(value)
    assert isinstance(outcome, Invalid)
    assert [f"`$.{drift.field}" in outcome.error_detail for drift in list_drift(value)] == [True]


@given(
    st.dictionaries(
        st.sampled_from([f.name for f in SCHEMA] + ["other"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        ),
    )
)
def test_an_event_conflicts_exactly_where_the_decoder_refuses_it(event: dict):
    try:
        value = msgspec.json.encode(event)
    except (OverflowError, ValueError, UnicodeEncodeError):
        return
    outcome = decode_value(value)
    is_refused = isinstance(outcome, Invalid) and outcome.error_type == "schema_mismatch"
    assert any(drift.expected for drift in list_drift(value)) == is_refused


@given(st.binary(max_size=60))
def test_any_bytes_are_survived(value: bytes):
    for text in (value, b'{"client": ' + value + b"}"):
        list_drift(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b'"a"', "string"),
        (b"-1", "integer"),
        (b"1e5", "number"),
        (b"null", "null"),
        (b"true", "boolean"),
        (b"", "integer"),
    ],
)
def test_the_kind_of_a_value_is_told_by_its_text(text: bytes, kind: str):
    assert name_kind(text) == kind
