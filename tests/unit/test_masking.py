"""How values are shown to people: hidden fields never leak, whatever the bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bronze.ops.masking import is_masked, parse_mask, show_value
from tests.support.builders import encode

SECRET = "192.0.2.77"
MASK = parse_mask("client.ip_address, identity.user_id")


def show(value: bytes | None, length: int = 1_000) -> str:
    return show_value(value, MASK, length)


def test_named_fields_are_hidden_and_the_others_shown():
    value = encode({"tenant_id": "t", "client": {"ip_address": SECRET, "ip_version": "4"}, "identity": {"user_id": 7}})
    assert json.loads(show(value)) == {
        "tenant_id": "t",
        "client": {"ip_address": "***", "ip_version": "4"},
        "identity": {"user_id": "***"},
    }


@pytest.mark.parametrize(
    "event",
    [
        {"client": SECRET},
        {"client": [SECRET, {"ip_address": SECRET}]},
        [{"client": {"ip_address": SECRET}}],
        {"client": {"ip_address": {"v4": SECRET}}},
        {"Client": {"IP_Address": SECRET}},
        SECRET,
    ],
    ids=["parent is text", "parent is a list", "events in a list", "an object", "another case", "bare text"],
)
def test_a_hidden_field_of_another_shape_is_hidden_whole(event: object):
    assert SECRET not in show(encode(event))


@pytest.mark.parametrize(
    "value",
    [b'{"client": {"ip_address": "%s"' % SECRET.encode(), SECRET.encode() + b"\xff", b"[" * 200_000 + SECRET.encode()],
    ids=["cut off", "not UTF-8", "too deep"],
)
def test_what_is_not_json_shows_its_length_only(value: bytes):
    assert show(value) == f"({len(value):,} bytes that are not JSON, hidden by mask_fields)"


def test_both_of_two_equal_keys_are_gone():
    assert SECRET not in show(b'{"client": {"ip_address": "%s", "ip_address": "x"}}' % SECRET.encode())


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_bytes_around_a_hidden_field_neither_leak_it_nor_fail(before: bytes, after: bytes):
    assert SECRET not in show(before + b'{"client": {"ip_address": "%s"}}' % SECRET.encode() + after)


def test_without_a_mask_bytes_are_escaped_and_long_values_cut():
    assert show_value(b"\xff{", [], 10) == "\\xff{"
    assert show_value(b"x" * 11, [], 10) == "x" * 10 + "…"
    assert (show_value(None, MASK, 10), show_value(b"", MASK, 10)) == ("(null)", "(zero bytes)")


def test_a_mask_is_applied_before_a_value_is_cut():
    assert show(encode({"client": {"ip_address": SECRET}}), 30) == '{"client":{"ip_address":"***"}…'


@pytest.mark.parametrize("field", ["client.ip_address", "client", "client.ip_address.v4", "CLIENT.ip_address"])
def test_what_is_around_or_within_a_hidden_field_is_hidden(field: str):
    assert is_masked(field, MASK)
    assert not is_masked("client.ip_version", MASK)
