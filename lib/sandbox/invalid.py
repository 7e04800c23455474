"""Invalid sample events: every error type, each in several variants."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET

Flavour = Callable[[bytes], bytes | None]


def corrupt(value: bytes, turn: int) -> tuple[bytes | None, str]:
    """Return the value of the ``turn``-th invalid record, made from a valid one, and its error type.

    The turns cycle through the error types first, then through their variants.
    """
    error_types = list(FLAVOURS)
    error_type = error_types[turn % len(error_types)]
    flavours = FLAVOURS[error_type]
    return flavours[turn // len(error_types) % len(flavours)](value), error_type


def _set(path: str, wrong: Any) -> Flavour:
    """A variant with a wrong value in the field at ``path`` (``struct.field``), or without the field if UNSET."""
    *structs, field = path.split(".")

    def change(value: bytes) -> bytes:
        event = msgspec.json.decode(value)
        target = event[structs[0]] if structs else event
        target[field] = wrong
        if wrong is UNSET:
            del target[field]
        return msgspec.json.encode(event)

    return change


def _insert(field: bytes) -> Flavour:
    """A variant with raw bytes as the last member of the event's object."""
    return lambda value: value[:-1] + b"," + field + b"}"


FLAVOURS: dict[str, list[Flavour]] = {
    "tombstone": [lambda value: None],
    "empty": [lambda value: b""],
    "invalid_utf8": [
        _insert('"note":"Malmö"'.encode("latin-1")),
        _insert(b'"custom_attributes":{"note":"cut \xe6\x9d"}'),
        _insert(b'"note":"lone surrogate \xed\xa0\x80"'),
        lambda value: value.decode().encode("utf-16"),
        lambda value: b"\x1f\x8b\x08\x00" + value[:400],  # the head of a gzip stream
    ],
    "malformed_json": [
        lambda value: value[: len(value) // 2],
        lambda value: value + value,
        lambda value: b" \r\n\t ",
        _insert(b'"debug":' + b"[" * 150 + b"]" * 150),
        lambda value: value.replace(b'"', b"'"),
        _insert(b'"ratio":NaN'),
        lambda value: b"<html><body>502 Bad Gateway</body></html>",
    ],
    "not_an_object": [
        lambda value: b"[" + value + b"]",
        lambda value: msgspec.json.encode(value.decode()),  # JSON in a JSON string: encoded twice
        lambda value: b"null",
        lambda value: b"42",
        lambda value: b"true",
    ],
    "schema_mismatch": [
        _set("response.status_code", "200"),
        _set("identity.user_id", {"id": "usr_1", "realm": "internal"}),
        _insert(b'"rate_limiting":{"limit":1.0}'),
        _set("rate_limiting.remaining", 2**31),
        _set("sequence_number", 2**63),
        _set("tenant_id", 4711),
        _set("identity.scopes", ["orders:read", None]),
        _set("geo", []),
        _set("billing.billable", "yes"),
        _set("response.latency_ms", "12.5"),
    ],
    "missing_required": [
        _set(field, wrong) for wrong in (UNSET, None, "") for field in ("event_id", "event_timestamp", "tenant_id")
    ],
    "invalid_timestamp": [
        _set("event_timestamp", timestamp)
        for timestamp in (
            "2025-06-01T12:00:00.000",
            "2025-06-01",
            "1748779200",
            "1999-12-31T23:59:59.999Z",
            "2999-01-01T00:00:00Z",
            "2025-02-30T12:00:00Z",
            "2025-06-01T25:00:00Z",
            "2025-W23-1T12:00:00Z",
            "2025-06-01T12:00:00,500Z",
            "0001-01-01T00:00:00+14:00",
            "yesterday",
        )
    ],
}
