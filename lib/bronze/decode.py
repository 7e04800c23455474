"""Which Kafka timestamps a clock could mean, and what stands for the others. One rule, for every use of them.

A producer may stamp a record with seconds, an uptime, microseconds, or nothing. Such a timestamp is kept as it came,
and says nothing: a record's time is its Kafka timestamp; where that is missing, before 2000 or after the start of the
batch that ingested the record, it is that start. A batch is as old as its records that have a usable one; where none
has, the batch's start stands for them. Executors import this module.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple, TypedDict

import msgspec
from pyspark.sql import types as T

from bronze.schema import get_bronze_schema, get_event_schema

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
EARLIEST = (datetime(2000, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
# How far a producer's clock may be ahead: what brokers allow by default (message.timestamp.after.max.ms).
MAX_AHEAD = timedelta(hours=1) // MICROSECOND


def is_plausible(kafka_timestamp: int | None, now: int) -> bool:
    """Whether a clock could mean a Kafka timestamp; both in microseconds since 1970."""
    return kafka_timestamp is not None and EARLIEST <= kafka_timestamp <= now + MAX_AHEAD


def choose_time(kafka_timestamp: int | None, start: int) -> int:
    """A record's time, by the rule above; microseconds since 1970, never before 2000.

    Args:
        kafka_timestamp: The record's.
        start: When the batch that ingested it started.
    """
    if kafka_timestamp is not None and EARLIEST <= kafka_timestamp <= start:
        return kafka_timestamp
    return max(start, EARLIEST)


REQUIRED_FIELDS = ("event_id", "event_timestamp", "tenant_id")
MAX_DEPTH = 100

_DAY = 86_400_000_000

# RFC 3339 with a zone. fromisoformat alone also takes week dates, commas and, from Python 3.13, hour 24.
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
# Strings are skipped whole; one that never ends is taken to the end, so that a scan stays linear.
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z|\\\Z)|[\[{]|[\]}]', re.DOTALL)


class Event(NamedTuple):
    """A valid record: the decoded fields, and its event time in microseconds since 1970 (UTC)."""

    fields: dict[str, Any]
    event_time: int


class Invalid(NamedTuple):
    """A record that is not an event: one of ERROR_TYPES, and which field, what was expected, what came."""

    error_type: str
    error_detail: str


def decode(value: bytes | None, kafka_timestamp: int | None, ingested_at: int) -> Event | Invalid:
    """Decode one record.

    Args:
        value: The Kafka value, None for a tombstone.
        kafka_timestamp: The record's Kafka timestamp in microseconds since 1970.
        ingested_at: When the batch started, in microseconds since 1970; it bounds the event time where Kafka's
            own timestamp is missing, before 2000 or in the future.

    Returns:
        The event, or what is wrong with it; never raises for any value. Map fields that bronze has a column for are
        lists of (key, text) pairs.
    """
    if not value:
        return _explain_absence(value)
    try:
        value.decode("utf-8")  # the whole of it: msgspec accepts bad bytes in fields it skips
        _check_depth(value)
        fields = _read_maps(_DECODER.decode(value))
    except UnicodeDecodeError as error:
        return Invalid("invalid_utf8", f"byte {error.start} (0x{value[error.start]:02x}): {error.reason}")
    except msgspec.ValidationError as error:
        return _explain_mismatch(str(error))
    except (msgspec.DecodeError, _TooDeepError) as error:
        return Invalid("malformed_json", str(error))
    for name in REQUIRED_FIELDS:
        if not fields.get(name):
            return Invalid("missing_required", _explain_missing(name, fields))
    return _read_event_time(fields, kafka_timestamp, ingested_at)


def _explain_absence(value: bytes | None) -> Invalid:
    if value is None:
        return Invalid("tombstone", "the value is null")
    return Invalid("empty", "the value has zero bytes")


def _explain_mismatch(message: str) -> Invalid:
    # Only the outermost value has no path in msgspec's message.
    if " - at `$" not in message:
        return Invalid("not_an_object", message)
    return Invalid("schema_mismatch", message)


def _explain_missing(name: str, fields: dict[str, Any]) -> str:
    state = "absent" if name not in fields else "null" if fields[name] is None else "empty"
    return f"`$.{name}` is required, but is {state}"


class _TooDeepError(Exception):
    """Raised when arrays and objects nest deeper than MAX_DEPTH."""


def _check_depth(value: bytes) -> None:
    """Refuse deep nesting before decoding, because the decoder's own limit depends on the stack."""
    if value.count(b"{") + value.count(b"[") <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKENS.finditer(value):
        first = value[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise _TooDeepError(f"nested deeper than {MAX_DEPTH} levels (byte {token.start()})")
        elif first in b"]}":
            depth -= 1


def _read_event_time(fields: dict[str, Any], kafka_timestamp: int | None, ingested_at: int) -> Event | Invalid:
    text = fields["event_timestamp"]
    event_time = parse_timestamp(text)
    if event_time is None:
        expected = "an RFC 3339 date and time with a zone, such as 2026-01-31T23:59:59Z"
        return Invalid("invalid_timestamp", f"Expected {expected}, got {_shorten(text)} - at `$.event_timestamp`")
    record_time = choose_time(kafka_timestamp, ingested_at)
    if not EARLIEST <= event_time <= record_time + _DAY:
        bound = "record" if record_time == kafka_timestamp else "batch's start"
        expected = f"a time from 2000-01-01 to {_format_time(record_time + _DAY)}, a day after the {bound}"
        return Invalid("invalid_timestamp", f"Expected {expected}, got {_shorten(text)} - at `$.event_timestamp`")
    return Event(fields, event_time)


def parse_timestamp(text: str) -> int | None:
    """Microseconds since 1970 of an RFC 3339 timestamp, None where it is not one (finer digits are cut)."""
    if not _RFC3339.fullmatch(text):
        return None
    try:
        return (datetime.fromisoformat(text.upper()) - EPOCH) // MICROSECOND
    except (ValueError, OverflowError):  # 30 February, a zone of +99:00, year 0
        return None


def _format_time(microseconds: int) -> str:
    return (EPOCH + microseconds * MICROSECOND).isoformat(timespec="milliseconds")


def _shorten(text: str, length: int = 100) -> str:
    return repr(text if len(text) <= length else text[:length] + "…")


def _read_maps(fields: dict[str, Any]) -> dict[str, Any]:
    """Replace each JSON object of a map field by (key, text) pairs, in place."""
    for owner, name in _MAP_FIELDS:
        holder = (fields.get(owner) or {}) if owner else fields
        if (values := holder.get(name)) is not None:
            holder[name] = [(key, _read_text(bytes(raw))) for key, raw in values.items()]
    return fields


def _read_text(raw: bytes) -> str | None:
    """The text of one map value: a string is its text, null is null, anything else keeps its JSON."""
    if raw.startswith(b'"'):
        return _JSON_STRING.decode(raw)
    return None if raw == b"null" else raw.decode()


def _integer(bits: int) -> Any:
    return Annotated[int, msgspec.Meta(ge=-(2 ** (bits - 1)), le=2 ** (bits - 1) - 1)]


def to_python_type(data_type: T.DataType, name: str) -> Any:
    """The type that msgspec decodes a Spark type into; it is strict about each."""
    match data_type:
        case T.StructType(fields=fields):
            members = {f.name: to_python_type(f.dataType, f.name) | None for f in fields}
            return TypedDict(name, members, total=False)  # type: ignore[operator]
        case T.ArrayType(elementType=element):
            return list[to_python_type(element, name)]  # type: ignore[misc]
        case T.MapType():
            return dict[str, msgspec.Raw]
        case T.IntegerType():
            return _integer(32)
        case T.LongType():
            return _integer(64)
        case T.DoubleType():
            return float
        case T.BooleanType():
            return bool
        case _:
            return str


def _find_maps(schema: T.StructType, owner: str = "") -> Iterator[tuple[str, str]]:
    for field in schema:
        if isinstance(field.dataType, T.MapType):
            yield owner, field.name
        elif isinstance(field.dataType, T.StructType):
            yield from _find_maps(field.dataType, field.name)


_DECODER = msgspec.json.Decoder(to_python_type(get_event_schema(), "Event"))
_JSON_STRING = msgspec.json.Decoder(str)
_MAP_FIELDS = list(_find_maps(get_bronze_schema()))  # others are checked, but reading them costs a quarter more
