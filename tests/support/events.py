"""Small events as the bytes of a Kafka record, and values that are not events."""

import json
from datetime import UTC, datetime
from typing import Any

START = datetime(2026, 5, 1, tzinfo=UTC)


def make_event(number: int = 0, **fields: Any) -> bytes:
    """A small valid event, with some fields replaced."""
    event = {
        "event_id": f"event-{number}",
        "event_timestamp": "2026-01-31T23:30:00+01:00",
        "tenant_id": f"tenant-{number % 7}",
        "request": {"method": "GET", "path": f"/v1/things/{number}", "content_length": number},
        "response": {"status_code": 200, "latency_ms": 12.5},
        "identity": {"scopes": ["read", "write"]},
        # Every fourth event has a number in its map, which only the row decoder reads.
        "client": {"user_agent_parsed": {"browser": "curl", "major": "8" if number % 4 else 8}},
    }
    return json.dumps({**event, **fields}).encode()


def make_events(count: int, first: int = 0) -> list[bytes]:
    """Small valid events."""
    return [make_event(number) for number in range(first, first + count)]


# One of each error type, in the order of bronze.schema.ERROR_TYPES.
BAD = [None, b"", b"\xff", b"{", b"[1]", b'{"event_id": 1}', b"{}", make_event(event_timestamp="yesterday")]
