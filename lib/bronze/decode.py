"""Decodes one record into an event, or explains why it is invalid: pure Python on msgspec, without Spark.

All rules for valid events are in this module. The order of the checks is part of the contract: the first that applies
names the error type.

A producer may write seconds, an uptime, microseconds or nothing as the Kafka timestamp. Bronze stores such a timestamp
unchanged, but does not use it: a record's time is its Kafka timestamp or, if that is missing, before 2000 or after the
start of the batch that ingested the record, the start of that batch. The age of a batch comes from its records with a
plausible timestamp or, if it has none, from the batch's start. Executors import this module.
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
# How far a producer's clock may be ahead: the brokers' default (message.timestamp.after.max.ms).
MAX_AHEAD = timedelta(hours=1) // MICROSECOND


def is_plausible(kafka_timestamp: int | None, now: int) -> bool:
    """Whether a Kafka timestamp can be a real time; both in microseconds since 1970."""
    return kafka_timestamp is not None and EARLIEST <= kafka_timestamp <= now + MAX_AHEAD


def choose_time(kafka_timestamp: int | None, start: int) -> int:
    """Return a record's time by the rule above, in microseconds since 1970, never before 2000.

    Args:
        kafka_timestamp: Kafka timestamp of the record.
        start: Start of the batch that ingested it.
    """
    if kafka_timestamp is not None and EARLIEST <= kafka_timestamp <= start:
        return kafka_timestamp
    return max(start, EARLIEST)


REQUIRED_FIELDS = ("event_id", "event_timestamp", "tenant_id")
MAX_DEPTH = 100
NOT_UTF8 = "invalid_utf8"  # the error type of each value that is not text, whatever else is wrong with it

DAY = 86_400_000_000

# RFC 3339 with a zone. fromisoformat alone also takes week dates, commas and, from Python 3.13, hour 24.
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
# The next brackets outside of strings, or the end, to which an unterminated string runs; so a scan stays linear.
_BRACKETS = re.compile(rb'(?s)(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z|\\\Z))*+([\[{]++|[\]}]++|\Z)')


class Event(NamedTuple):
    """A valid record: the decoded fields, and its event time in microseconds since 1970 (UTC)."""

    fields: dict[str, Any]
    event_time: int


class Invalid(NamedTuple):
    """An invalid record: one of ERROR_TYPES, and a detail with the field, the expected and the actual value."""

    error_type: str
    error_detail: str


def decode(value: bytes | None, kafka_timestamp: int | None, ingested_at: int) -> Event | Invalid:
    """Decode one record.

    Args:
        value: The Kafka value, None for a tombstone.
        kafka_timestamp: The record's Kafka timestamp in microseconds since 1970.
        ingested_at: Start of the batch, in microseconds since 1970; it bounds the event time if the Kafka timestamp is
            missing, before 2000 or in the future.

    Returns:
        The event, or the reason why the record is invalid; this function never raises an exception. Map fields that
        have a column in bronze are lists of (key, text) pairs.
    """
    if value is None:
        return Invalid("tombstone", "the value is null")
    if not value:
        return Invalid("empty", "the value has zero bytes")
    try:
        check_text(value)
        event = _STRUCT_DECODER.decode(value)
    except UnicodeDecodeError as error:
        return Invalid(NOT_UTF8, f"byte {error.start} (0x{value[error.start]:02x}): {error.reason}")
    except msgspec.ValidationError as error:
        return _explain_mismatch(str(error))
    except (msgspec.DecodeError, _TooDeepError) as error:
        return Invalid("malformed_json", str(error))
    for name in REQUIRED_FIELDS:
        if not (text := getattr(event, name)):
            state = "absent" if text is msgspec.UNSET else "null" if text is None else "empty"
            return Invalid("missing_required", f"`$.{name}` is required, but is {state}")
    event_time = _read_event_time(event.event_timestamp, kafka_timestamp, ingested_at)
    return event_time if isinstance(event_time, Invalid) else Event(_read_maps(_DECODER.decode(value)), event_time)


def _explain_mismatch(message: str) -> Invalid:
    # msgspec's message has a path unless the outermost value is wrong.
    return Invalid("schema_mismatch" if " - at `$" in message else "not_an_object", message)


class _TooDeepError(Exception):
    """Raised when arrays and objects nest deeper than MAX_DEPTH."""


def check_text(value: bytes) -> None:
    """Refuse what msgspec lets pass: invalid UTF-8 in fields that it skips, and nesting as deep as the stack allows."""
    value.decode("utf-8")
    # Cutting a byte out is faster than counting it, which CPython does byte by byte.
    if 2 * len(value) - len(value.replace(b"{", b"")) - len(value.replace(b"[", b"")) <= MAX_DEPTH:
        return
    depth = 0
    for run in _BRACKETS.finditer(value):
        if not run[1].startswith((b"[", b"{")):
            depth -= len(run[1])
        elif (depth := depth + len(run[1])) > MAX_DEPTH:
            raise _TooDeepError(f"nested deeper than {MAX_DEPTH} levels (byte {run.end() + MAX_DEPTH - depth})")


def _read_event_time(text: str, kafka_timestamp: int | None, ingested_at: int) -> int | Invalid:
    event_time = parse_timestamp(text)
    if event_time is None:
        expected = "an RFC 3339 date and time with a zone, such as 2026-01-31T23:59:59Z"
        return Invalid("invalid_timestamp", f"Expected {expected}, got {_shorten(text)} - at `$.event_timestamp`")
    record_time = choose_time(kafka_timestamp, ingested_at)
    if not EARLIEST <= event_time <= record_time + DAY:
        bound = "record" if record_time == kafka_timestamp else "batch's start"
        expected = f"a time from 2000-01-01 to {_format_time(record_time + DAY)}, a day after the {bound}"
        return Invalid("invalid_timestamp", f"Expected {expected}, got {_shorten(text)} - at `$.event_timestamp`")
    return event_time


def parse_timestamp(text: str) -> int | None:
    """Return an RFC 3339 timestamp in microseconds since 1970, truncated; None if the text is not one."""
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
    for owner, name in MAP_FIELDS:
        holder = (fields.get(owner) or {}) if owner else fields
        if (values := holder.get(name)) is not None:
            holder[name] = [(key, _read_text(bytes(raw))) for key, raw in values.items()]
    return fields


def _read_text(raw: bytes) -> str | None:
    """Return the text of one map value: a string without its quotes, None for null, otherwise its JSON text."""
    if raw.startswith(b'"'):
        return _JSON_STRING.decode(raw)
    return None if raw == b"null" else raw.decode()


def _integer(bits: int) -> Any:
    return Annotated[int, msgspec.Meta(ge=-(2 ** (bits - 1)), le=2 ** (bits - 1) - 1)]


def to_python_type(data_type: T.DataType, name: str, as_struct: bool = False) -> Any:
    """Return the Python type that msgspec decodes a Spark type into, strictly; a Struct is faster than a dict."""
    match data_type:
        case T.StructType(fields=fields):
            members = {f.name: to_python_type(f.dataType, f.name, as_struct) | None for f in fields}
            if as_struct:
                optional = [(key, each | msgspec.UnsetType, msgspec.UNSET) for key, each in members.items()]
                return msgspec.defstruct(name, optional, gc=False)
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


_STRUCT_DECODER = msgspec.json.Decoder(to_python_type(get_event_schema(), "Event", as_struct=True))
_DECODER = msgspec.json.Decoder(to_python_type(get_event_schema(), "Event"))
_JSON_STRING = msgspec.json.Decoder(str)
MAP_FIELDS = list(_find_maps(get_bronze_schema()))  # msgspec checks the others too; decoding them costs 25 % more
