"""Options whose text is a list, a time or JSON, as the values that they mean."""

import json
import os
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bronze.errors import Hidden, InvalidOptionError
from bronze.offsets import EMPTY, OffsetSet

_NEGATIVE_OFFSETS = {"earliest": -2, "latest": -1}
_TIME = "an ISO 8601 time with a zone, such as 2026-01-31T23:00:00Z"
# Java's long and int; an offset must leave room for the exclusive end behind it.
_MAX_OFFSET, _MAX_PARTITION = 2**63 - 2, 2**31 - 1
# Each range is a condition of the query, which Spark plans anew for every batch.
_MAX_RANGES = 1_000


def parse_time(name: str, text: str) -> datetime | None:
    """The time of an option, ISO 8601 with a zone, in UTC; None where it is not set.

    Raises:
        InvalidOptionError: It is no such time, or has no zone.
    """
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:  # astimezone would take the machine's
            return time.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter where it is before the year 1 or after 9999 in UTC
        pass
    raise InvalidOptionError(name, text, _TIME)


def parse_error_types(text: str) -> list[str]:
    """The error types of a comma-separated list.

    Raises:
        InvalidOptionError: One of them does not exist.
    """
    from bronze.schema import ERROR_TYPES

    names = split_list(text)
    if not set(names) <= set(ERROR_TYPES):
        raise InvalidOptionError("error_type", text, f"some of {', '.join(ERROR_TYPES)}")
    return names


def parse_offset_ranges(text: str) -> OffsetSet:
    """The offsets of inclusive ranges per partition, ``{"0": [[5, 9]]}``; empty where it is not set.

    Raises:
        InvalidOptionError: It is no such JSON.
    """
    if not text:
        return EMPTY
    try:
        listed = _load_object(text)
        ranges = {_read_partition(p): [(first, last) for first, last in pairs] for p, pairs in listed.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        ranges = {}
    pairs = [pair for listed in ranges.values() for pair in listed]
    if not pairs or not all(_is_offset(first) and _is_offset(last) and first <= last for first, last in pairs):
        raise InvalidOptionError("offsets", text, 'JSON such as {"0": [[5, 9], [12, 12]]}')
    if len(pairs) > _MAX_RANGES:
        raise InvalidOptionError(
            "offsets", text, f"at most {_MAX_RANGES:,} ranges; run the command several times for more"
        )
    return OffsetSet(ranges)


def _load_object(text: str) -> Any:
    """JSON whose objects have no name twice: of two entries for a partition, one would be left out unsaid."""

    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a name is there twice")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=make)


def _read_partition(text: str) -> int:
    """A partition as JSON has it, the name of a member; int() would also take ``1_0``, ``+1`` and other digits."""
    if not re.fullmatch("0|[1-9][0-9]{0,9}", text) or int(text) > _MAX_PARTITION:
        raise ValueError("no partition")
    return int(text)


def _is_offset(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_OFFSET


def split_list(text: str) -> list[str]:
    """The entries of a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_starting_offsets(text: str, topic: str) -> dict[int, int] | None:
    """Offsets per partition of ``{"topic": {"0": 23, "1": -2}}``; None for earliest, latest or not set.

    Raises:
        InvalidOptionError: Neither a keyword nor such JSON, or offsets of another topic.
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
        InvalidOptionError: Neither a word nor such JSON, or offsets of another topic.
    """
    if text in ("", *words):
        return None
    negative = {_NEGATIVE_OFFSETS[word] for word in words}
    expected = f'{", ".join(words)} or JSON such as {{"{topic}": {{"0": 23, "1": {min(negative)}}}}}'
    try:
        by_topic = _load_object(text)
        offsets = {_read_partition(partition): offset for partition, offset in by_topic[topic].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InvalidOptionError(name, text, expected) from None
    if set(by_topic) != {topic} or not all(
        _is_offset(o) or (type(o) is int and o in negative) for o in offsets.values()
    ):
        raise InvalidOptionError(name, text, expected)
    return offsets


def parse_timestamp(name: str, text: str) -> int | None:
    """Milliseconds since 1970 of an ISO 8601 time with a zone, rounded up as Kafka has no shorter; None where not set.

    Raises:
        InvalidOptionError: No such time, or one without a zone or before 1970, where Kafka has no times.
    """
    time = parse_time(name, text)
    if time is None:
        return None
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    if since < timedelta(0):
        raise InvalidOptionError(name, text, "a time from 1970 on, where Kafka's times begin")
    return -(-since // timedelta(milliseconds=1))


_MAX_NAME, _MAX_PATH = 255, 3_500  # bytes; the limits of Linux, less what a table's files add to its path
_BROKER = re.compile(r"(?:[A-Za-z_]+://)?\[?[\w.:%-]+\]?:([0-9]{1,5})")
_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
_CREDENTIALS = re.compile(r"//[^/]*:[^/]*@")


def check_text(name: str, text: str) -> None:
    """Refuse what neither a line of a log nor Java can hold: control characters, and bytes that were not UTF-8.

    Raises:
        InvalidOptionError: The text has such a character.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise InvalidOptionError(name, text, "UTF-8 text of one line, without control characters")


def check_json(name: str, text: str) -> None:
    """Refuse what is not text; JSON may have several lines, and its parser says the rest.

    Raises:
        InvalidOptionError: The text has a character that is no part of JSON.
    """
    check_text(name, " ".join(text.split()))


def check_path(name: str, path: str) -> None:
    """Refuse a path that no file system takes, and one that holds a password: paths are in messages and logs.

    Raises:
        InvalidOptionError: A name in it is too long, or it has credentials.
    """
    if _CREDENTIALS.search(path):
        raise InvalidOptionError(
            name, Hidden(), "a path without credentials; give them to Spark's or Hadoop's settings"
        )
    check_file(name, path)


def check_file(name: str, path: str) -> None:
    """Refuse a path that no file system takes.

    Raises:
        InvalidOptionError: It has a control character, or a name that is too long.
    """
    check_text(name, path)
    encoded = os.fsencode(path)
    if len(encoded) > _MAX_PATH or any(len(part) > _MAX_NAME for part in encoded.split(b"/")):
        expected = f"a path of at most {_MAX_PATH:,} bytes, and {_MAX_NAME} between two slashes"
        raise InvalidOptionError(name, path, expected)


def check_brokers(name: str, text: str) -> None:
    """Refuse what is not a list of ``host:port``.

    Raises:
        InvalidOptionError: One of them is not.
    """
    check_text(name, text)
    found = [_BROKER.fullmatch(broker.strip()) for broker in text.split(",")]
    if not all(match and 0 < int(match[1]) <= 65535 for match in found):
        shown = Hidden() if "@" in text else text  # Kafka itself would take user:password@host:port
        raise InvalidOptionError(name, shown, "host:port, comma-separated, such as localhost:9092")


def check_topic(name: str, text: str) -> None:
    """Refuse what cannot be a topic's name.

    Raises:
        InvalidOptionError: Kafka has no such topics.
    """
    if not _TOPIC.fullmatch(text):
        raise InvalidOptionError(name, text, "a topic's name: up to 249 letters, digits, dots, underscores and hyphens")


def check_host(name: str, text: str) -> None:
    """Refuse what is neither a host's name nor an address.

    Raises:
        InvalidOptionError: It is something else, or an IPv6 address in brackets.
    """
    if not re.fullmatch(r"[A-Za-z0-9.:%_-]{1,255}", text):
        raise InvalidOptionError(name, text, "a host's name or its address, such as 127.0.0.1 or ::1, without brackets")


def check_properties_file(name: str, file: str) -> None:
    """Refuse what is not a text file.

    Raises:
        InvalidOptionError: There is none, or it cannot be read.
    """
    shown = Hidden() if re.search("[=;\\s]", file) else file  # the properties themselves instead of their file
    try:
        text = read_properties_text(file) if Path(file).is_file() else None
    except (OSError, UnicodeError):
        text = None
    if text is None or "\0" in text:
        raise InvalidOptionError(name, shown, "a readable Kafka properties file in UTF-8")


def read_properties_text(file: str) -> str:
    """The text of a Kafka properties file.

    Raises:
        OSError: It cannot be read.
        UnicodeError: It is not UTF-8.
    """
    return Path(file).read_text(encoding="utf-8-sig")


CHECKS = {
    "checkpoint_path": check_path,
    "dlq_path": check_path,
    "ending_offsets": check_json,
    "http_host": check_host,
    "kafka_brokers": check_brokers,
    "kafka_config": check_properties_file,
    "kafka_topic": check_topic,
    "offsets": check_json,
    "output_path": check_path,
    "starting_offsets": check_json,
    "stop_file": check_file,
}
