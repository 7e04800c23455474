"""Parsers for options that are lists, times or JSON, and checks of texts and paths."""

import json
import os
import posixpath
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from bronze.errors import Hidden, InvalidOptionError, to_flag
from bronze.offsets import EMPTY, OffsetSet

_NEGATIVE_OFFSETS = {"earliest": -2, "latest": -1}
_TIME = "an ISO 8601 time with a zone, such as 2026-01-31T23:00:00Z"
# Java's long and int; the exclusive end of a range is one above its last offset.
_MAX_OFFSET, _MAX_PARTITION = 2**63 - 2, 2**31 - 1
_S3 = re.compile(r"s3[an]?://([^/]*)/*(.*)", re.DOTALL | re.IGNORECASE)
_AZURE = re.compile(r"(abfss?://[^/]*)/*(.*)", re.DOTALL)
# Each range is a condition in the query, and Spark plans the query again for every batch.
_MAX_RANGES = 1_000


def normalize_uri(path: str) -> str:
    """Return the one spelling of a place in an object store: ``s3://bucket/x/../bronze/`` becomes ``s3a://bucket/bronze``.

    A path in Azure keeps its scheme and host, of which ``check_paths`` compares all spellings. A local path begins with
    one slash, because Hadoop takes ``//name`` for a host. Paths elsewhere stay as they are.
    """
    if path.startswith("//"):
        return "/" + path.lstrip("/")
    if not (found := _S3.fullmatch(path) or _AZURE.fullmatch(path)):
        return path
    root = f"s3a://{found[1]}" if is_s3(path) else found[1]
    return f"{root}/{posixpath.normpath(f'/{found[2]}').lstrip('/')}".rstrip("/")


def find_object_store(path: str) -> str:
    """The object store of a path, ``s3`` or ``azure``; empty if it is elsewhere."""
    return "s3" if is_s3(path) else "azure" if _AZURE.fullmatch(path) else ""


def is_s3(path: str) -> bool:
    """Whether a path is in S3."""
    return _S3.fullmatch(path) is not None


def parse_time(name: str, text: str) -> datetime | None:
    """The time of an option, ISO 8601 with a zone, in UTC; None if it is not set.

    Raises:
        InvalidOptionError: It is not such a time, or has no zone.
    """
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:  # without a zone, astimezone would assume the machine's
            return time.astimezone(UTC)
    except (ValueError, OverflowError):  # OverflowError: before the year 1 or after 9999 in UTC
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
        raise InvalidOptionError("error_type", text, f"one or more of {', '.join(ERROR_TYPES)}")
    return names


def parse_offset_ranges(text: str) -> OffsetSet:
    """The offsets of inclusive ranges per partition, ``{"0": [[5, 9]]}``; empty if it is not set.

    Raises:
        InvalidOptionError: It is not such JSON.
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
    """Parse JSON and refuse duplicate names, because Python would silently drop one of two entries."""

    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("duplicate name")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=make)


def _read_partition(text: str) -> int:
    """Parse a partition from a JSON name; ``int`` would also accept ``1_0``, ``+1`` and non-ASCII digits."""
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
        InvalidOptionError: It is neither a keyword nor such JSON, or it names another topic.
    """
    return parse_offsets("starting_offsets", text, topic, ["earliest", "latest"])


def parse_offsets(name: str, text: str, topic: str, words: Sequence[str]) -> dict[int, int] | None:
    """Offsets per partition from JSON in Spark's format; None for one of the words, or if not set.

    Args:
        name: The option.
        text: Its value.
        topic: The topic that it must name.
        words: Accepted words for all partitions; in JSON, -2 (earliest) or -1 (latest) for one of them.

    Raises:
        InvalidOptionError: It is neither a word nor such JSON, or it names another topic.
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
    """Milliseconds since 1970 of an ISO 8601 time with a zone, rounded up to Kafka's precision; None if not set.

    Raises:
        InvalidOptionError: It is not such a time, has no zone, or is before 1970, where Kafka's times begin.
    """
    time = parse_time(name, text)
    if time is None:
        return None
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    if since < timedelta(0):
        raise InvalidOptionError(name, text, "a time from 1970 on, where Kafka's times begin")
    return -(-since // timedelta(milliseconds=1))


_MAX_NAME, _MAX_PATH = 255, 3_500  # bytes; Linux's limits, minus what the names of a table's files add
_BROKER = re.compile(r"(?:[A-Za-z_]+://)?\[?[\w.:%-]+\]?:([0-9]{1,5})")
_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
_CREDENTIALS = re.compile(r"//[^/]*:[^/]*@")


def check_text(name: str, text: str) -> None:
    """Refuse control characters and bytes that were not UTF-8: a log line and Java cannot hold them.

    Raises:
        InvalidOptionError: The text has such a character.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise InvalidOptionError(name, text, "UTF-8 text of one line, without control characters")


def check_json(name: str, text: str) -> None:
    """Refuse control characters. JSON may span several lines; its parser checks the rest.

    Raises:
        InvalidOptionError: The text has a character that JSON cannot contain.
    """
    check_text(name, " ".join(text.split()))


def check_path(name: str, path: str) -> None:
    """Refuse a path that no file system accepts, or that contains a password: messages and logs show paths.

    Raises:
        InvalidOptionError: A name in it is too long, or it contains credentials.
    """
    if _CREDENTIALS.search(path):
        raise InvalidOptionError(name, Hidden(), "a path without credentials; set them in Spark's or Hadoop's settings")
    check_file(name, path)


def check_file(name: str, path: str) -> None:
    """Refuse a path that no file system accepts.

    Raises:
        InvalidOptionError: It has a control character, or a name that is too long.
    """
    check_text(name, path)
    encoded = os.fsencode(path)
    if len(encoded) > _MAX_PATH or any(len(part) > _MAX_NAME for part in encoded.split(b"/")):
        expected = f"a path of at most {_MAX_PATH:,} bytes, and {_MAX_NAME} between two slashes"
        raise InvalidOptionError(name, path, expected)


def check_metrics_file(name: str, path: str) -> None:
    """Refuse a file that node_exporter would not read, or that cannot be created.

    Raises:
        InvalidOptionError: It does not end in .prom, or its folder does not exist.
    """
    check_file(name, path)
    if not path.endswith(".prom") or not Path(path).parent.is_dir():
        raise InvalidOptionError(name, path, "a file that ends in .prom, in a folder that exists")


def check_url(name: str, url: str) -> None:
    """Refuse a text that is not a URL, or that contains a password: messages and logs show it.

    Raises:
        InvalidOptionError: It is something else, or it contains credentials.
    """
    if not re.fullmatch(r"https?://[^\s@?#]+", url):
        shown = Hidden() if re.search("[@?#]", url) else url
        raise InvalidOptionError(name, shown, "an address without credentials, such as http://localhost:5000")


def check_brokers(name: str, text: str) -> None:
    """Refuse a text that is not a list of ``host:port``.

    Raises:
        InvalidOptionError: One of them is not.
    """
    check_text(name, text)
    found = [_BROKER.fullmatch(broker.strip()) for broker in text.split(",")]
    if not all(match and 0 < int(match[1]) <= 65535 for match in found):
        shown = Hidden() if "@" in text else text  # Kafka itself would accept user:password@host:port
        raise InvalidOptionError(name, shown, "host:port, comma-separated, such as localhost:9092")


def check_topic(name: str, text: str) -> None:
    """Refuse a text that cannot be a topic's name.

    Raises:
        InvalidOptionError: Kafka does not allow such a name.
    """
    if not _TOPIC.fullmatch(text):
        raise InvalidOptionError(name, text, "a topic's name: up to 249 letters, digits, dots, underscores and hyphens")


def check_host(name: str, text: str) -> None:
    """Refuse a text that is neither a host name nor an address.

    Raises:
        InvalidOptionError: It is something else, or an IPv6 address in brackets.
    """
    if not re.fullmatch(r"[A-Za-z0-9.:%_-]{1,255}", text):
        raise InvalidOptionError(name, text, "a host name or address, such as 127.0.0.1 or ::1, without brackets")


def check_properties_file(name: str, file: str) -> None:
    """Refuse a path that is not a text file.

    Raises:
        InvalidOptionError: The file does not exist or cannot be read.
    """
    shown = Hidden() if re.search("[=;\\s]", file) else file  # it may be the properties themselves instead of a path
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


def check_paths(given: Mapping[str, str]) -> None:
    """Refuse tables and checkpoints inside one another: VACUUM would delete files that do not belong to the table.

    deltalake decodes percent escapes in a path, reads a backslash as a slash, and in an object store ends a path at ?
    or #, so it would look in another folder.

    Args:
        given: The paths of tables and checkpoint, by option; empty if not given.

    Raises:
        InvalidOptionError: Names the option.
    """
    paths = {name: _resolve_path(path) for name, path in given.items() if path}
    for name, path in paths.items():
        store = find_object_store(given[name])
        refused = r"%[0-9A-Fa-f]{2}|\\|[?#]" if store else r"%[0-9A-Fa-f]{2}|\\"
        is_direct = (store or isinstance(path, Path)) and name != "checkpoint_path"
        if is_direct and re.search(refused, f"{given[name]} {path}"):
            more = ", ? and #" if store else ""
            expected = f"a path without percent escapes such as %20 and without backslashes{more} ({path})"
            raise InvalidOptionError(name, given[name], expected)
    for name, other in permutations(paths, 2):
        if paths[name].is_relative_to(paths[other]):
            raise InvalidOptionError(name, given[name], f"a path outside {to_flag(other)} ({given[other]})")


def _resolve_path(path: str) -> PurePath:
    """Normalize a path to compare it: ``data/bronze`` and ``file:/…/data/../data/bronze/`` are the same."""
    scheme, colon, rest = path.partition(":")
    if not colon or "/" in scheme:
        return Path(os.path.realpath(path))  # Path.resolve raises an error for circular links
    if scheme == "file":
        return Path(os.path.realpath(f"/{rest.lstrip('/')}"))
    if find_object_store(path) == "azure":  # an account has two hosts, and each host two schemes
        scheme, rest = "abfss", re.sub(r"^(//[^/]*)\.blob\.", r"\1.dfs.", rest)
    return PurePosixPath(f"{scheme}:", posixpath.normpath(rest).lstrip("/"))


CHECKS = {
    "checkpoint_path": check_path,
    "dlq_path": check_path,
    "ending_offsets": check_json,
    "http_host": check_host,
    "kafka_brokers": check_brokers,
    "kafka_config": check_properties_file,
    "kafka_topic": check_topic,
    "lineage_url": check_url,
    "metrics_file": check_metrics_file,
    "offsets": check_json,
    "output_path": check_path,
    "starting_offsets": check_json,
    "stop_file": check_file,
}
