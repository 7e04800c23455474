"""Options whose text is a list, a time or JSON, as the values that they mean."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from bronze.errors import InvalidOption

_NEGATIVE_OFFSETS = {"earliest": -2, "latest": -1}


def parse_time(name: str, text: str) -> datetime | None:
    """The time of an option, ISO 8601 with a zone; None where it is not set.

    Raises:
        InvalidOption: It is no such time, or has no zone.
    """
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = datetime.min
    if time.tzinfo is None:
        raise InvalidOption(name, text, "an ISO 8601 time with a zone, such as 2026-01-31T23:00:00Z")
    return time


def parse_error_types(text: str) -> list[str]:
    """The error types of a comma-separated list.

    Raises:
        InvalidOption: One of them does not exist.
    """
    from bronze.decode import ERROR_TYPES  # here: most commands answer bad arguments without it

    names = split_list(text)
    if not set(names) <= set(ERROR_TYPES):
        raise InvalidOption("error_type", text, f"some of {', '.join(ERROR_TYPES)}")
    return names


def parse_offset_ranges(text: str) -> dict[int, list[tuple[int, int]]]:
    """Inclusive ranges per partition of ``{"0": [[5, 9]]}``; empty where it is not set.

    Raises:
        InvalidOption: It is no such JSON.
    """
    try:
        ranges = {int(p): [(first, last) for first, last in listed] for p, listed in json.loads(text or "{}").items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        ranges = {-1: []}
    pairs = [pair for listed in ranges.values() for pair in listed]
    is_usable = all(type(o) is int for pair in pairs for o in pair) and all(0 <= a <= b for a, b in pairs)
    if text and (not pairs or min(ranges) < 0 or not is_usable):
        raise InvalidOption("offsets", text, 'JSON such as {"0": [[5, 9], [12, 12]]}')
    return ranges


def split_list(text: str) -> list[str]:
    """The entries of a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_starting_offsets(text: str, topic: str) -> dict[int, int] | None:
    """Offsets per partition of ``{"topic": {"0": 23, "1": -2}}``; None for earliest, latest or not set.

    Raises:
        InvalidOption: Neither a keyword nor such JSON, or offsets of another topic.
    """
    return parse_offsets("starting_offsets", text, topic, ["earliest", "latest"])


def parse_offsets(name: str, text: str, topic: str, words: Sequence[str]) -> dict[int, int] | None:
    """Offsets per partition of such JSON as Spark's; None for one of the words or not set.

    Args:
        name: The option.
        text: Its value.
        topic: The topic that it must name.
        words: What may stand for all offsets, and in JSON, as -2 (earliest) or -1 (latest), for one.

    Raises:
        InvalidOption: Neither a word nor such JSON, or offsets of another topic.
    """
    if text in ("", *words):
        return None
    negative = {_NEGATIVE_OFFSETS[word] for word in words}
    expected = f'{", ".join(words)} or JSON such as {{"{topic}": {{"0": 23, "1": {min(negative)}}}}}'
    try:
        by_topic = json.loads(text)
        offsets = {int(partition): offset for partition, offset in by_topic[topic].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InvalidOption(name, text, expected) from None
    if set(by_topic) != {topic} or not all(type(o) is int and (o >= 0 or o in negative) for o in offsets.values()):
        raise InvalidOption(name, text, expected)
    return offsets


def parse_timestamp(name: str, text: str) -> int | None:
    """Milliseconds since 1970 of an ISO 8601 time with a zone, rounded up as Kafka has no shorter; None where not set.

    Raises:
        InvalidOption: No such time, or one without a zone or before 1970, where Kafka has no times.
    """
    if not text:
        return None
    expected = "an ISO 8601 time with a zone, such as 2026-01-31T12:00:00Z"
    try:
        since = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, TypeError):  # the latter without a zone
        raise InvalidOption(name, text, expected) from None
    if since < timedelta(0):
        raise InvalidOption(name, text, expected)
    return -(-since // timedelta(milliseconds=1))
