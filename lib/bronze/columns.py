"""Decodes the records of an Arrow batch together: the same results as ``decode``, at a third of its cost.

1. msgspec judges each record. Its type of an event has no unknown fields, so a value that passes is certainly valid; of
   the parsed value only the text of the event time is kept.
2. arrow-rs (package arro3-io) builds the columns of the records that passed, from their bytes. It is less strict than
   msgspec and cannot say which record it refuses, so it never decides.
3. All other records go to ``decode``, which alone names errors. So do records that arrow-rs reads differently: escaped
   surrogates (it takes half of all pairs for other characters), NUL, negative zeros, and a key that is twice in a map.

If arrow-rs is missing, fails or returns other records than the judge accepted, the whole batch goes to ``decode``.
Executors import this module.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import types as T
from pyspark.sql.pandas.types import to_arrow_schema

from bronze.decode import (
    DAY,
    EARLIEST,
    MAP_FIELDS,
    REQUIRED_FIELDS,
    Event,
    Invalid,
    check_text,
    decode,
    parse_timestamp,
    to_python_type,
)
from bronze.schema import get_bronze_schema, get_event_schema

try:
    import arro3.core
    import arro3.io

    HAS_BUILDER = True
except ImportError:  # an executor's environment of an older version: slower, with the same results
    HAS_BUILDER = False

Times = npt.NDArray[np.int64]
NO_TIME = np.iinfo(np.int64).min
BRONZE_ARROW = to_arrow_schema(get_bronze_schema(), timezone="UTC")
EVENT_ARROW = pa.schema([field for field in BRONZE_ARROW if not field.name.startswith("_")])
_ROWS_AT_ONCE = 1_000  # for arrow-rs; the columns of more rows leave the processor's cache
_SAMPLE = 100
_DIFFERENT = re.compile(rb"\\u(?:[dD]|0000)")
# The usual spelling of a time from the year 2000 on; Arrow parses each that matches. The others, and 29 February, are
# parsed one by one.
_USUAL_TIME = (
    r"\A2[0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?Z\z"
)


@dataclass(frozen=True)
class Decoded:
    """The decoded records of a batch.

    Attributes:
        times: Event time per record, in microseconds since 1970; NO_TIME if the record is invalid.
        texts: Text of the event time per record; null if the judge left the record to ``decode``.
        others: What ``decode`` returned, by row, for the records that the judge left to it.
        decode_row: Decodes one row, for a record that arrow-rs reads differently.
    """

    times: Times
    texts: pa.Array
    others: dict[int, Event | Invalid]
    decode_row: Callable[[int], Event | Invalid]

    @cached_property
    def invalid(self) -> dict[int, Invalid]:
        """The invalid records by row, in their order."""
        return {row: each for row, each in self.others.items() if type(each) is Invalid}


def decode_records(values: pa.Array, timestamps: pa.Array, ingested_at: int, by_rows: bool = False) -> Decoded:
    """Decode the records of a batch.

    Args:
        values: Kafka values.
        timestamps: Kafka timestamps.
        ingested_at: Start of the batch, in microseconds since 1970.
        by_rows: Decode each record with ``decode``.
    """
    raw, micros = values.to_pylist(), timestamps.cast(pa.int64())
    stamps = micros.to_pylist()

    def decode_row(row: int) -> Event | Invalid:
        return decode(raw[row], stamps[row], ingested_at)

    judge = None if by_rows else _choose_judge(raw)
    texts = pa.array([judge(value) for value in raw] if judge else [None] * len(raw), pa.string())
    times = _find_times(texts, _find_latest(micros, ingested_at))
    others = {row: decode_row(row) for row in np.flatnonzero(times == NO_TIME).tolist()}
    for row, each in others.items():
        if type(each) is Event:
            times[row] = each.event_time
    return Decoded(times, texts, others, decode_row)


def build_events(decoded: Decoded, rows: npt.NDArray[np.int64], values: pa.Array) -> pa.Table:
    """Build the event's columns (EVENT_ARROW) of some records; an invalid record has nulls in all of them.

    Args:
        decoded: The decoded records.
        rows: The records to build, in the order of the result.
        values: Their Kafka values, in the same order.
    """
    is_judged = ~np.isin(rows, list(decoded.others))
    judged = _build_columns(values if is_judged.all() else values.filter(pa.array(is_judged)))
    if judged is None or not judged["event_timestamp"].equals(pa.chunked_array([decoded.texts.take(rows[is_judged])])):
        is_judged[:], judged = False, EVENT_ARROW.empty_table()
    if (is_different := _find_double_keys(judged) | _find_negative_zeros(judged)).any():
        judged = judged.filter(pa.array(~is_different))
        is_judged[np.flatnonzero(is_judged)[is_different]] = False
    if is_judged.all():
        return judged
    others = [decoded.others.get(row) or decoded.decode_row(row) for row in rows[~is_judged].tolist()]
    fields = pa.array([each.fields if type(each) is Event else None for each in others], pa.struct(list(EVENT_ARROW)))
    both = pa.concat_tables([judged, pa.Table.from_arrays(fields.flatten(), schema=EVENT_ARROW)])
    position = np.where(is_judged, np.cumsum(is_judged) - 1, len(judged) + np.cumsum(~is_judged) - 1)
    return both.take(pa.array(position))


def _choose_judge(values: list[bytes]) -> Callable[[bytes], str | None] | None:
    """Choose the judge that accepts most of a sample; None if there is none or arrow-rs is missing."""
    sample = values[:: max(len(values) // _SAMPLE, 1)]
    for judge in (_judge_closed, _judge_open) if HAS_BUILDER else ():
        if 2 * sum(judge(value) is not None for value in sample) > len(sample):
            return judge
    return None


def _judge_closed(value: bytes) -> str | None:
    """Return the text of the event time if the record is valid, as far as only ``decode`` checks times; else None."""
    try:
        text: str = _CLOSED.decode(value).event_timestamp
    except Exception:  # whatever it is: ``decode`` explains it
        return None
    return None if _is_read_differently(value) else text


def _judge_open(value: bytes) -> str | None:
    """The same for records with unknown fields, which msgspec skips unchecked."""
    try:
        check_text(value)
        text: str = _OPEN.decode(value).event_timestamp
    except Exception:
        return None
    return None if _is_read_differently(value) else text


def _is_read_differently(value: bytes) -> bool:
    return b"\\" in value and bool(_DIFFERENT.search(value))  # most values have no escape


def _find_latest(timestamps: pa.Array, ingested_at: int) -> Times:
    """Return the latest event time that is valid per record, as ``decode`` bounds it."""
    stamps = pc.fill_null(timestamps, NO_TIME).to_numpy(zero_copy_only=False)
    is_plausible = (stamps >= EARLIEST) & (stamps <= ingested_at)
    return np.where(is_plausible, stamps, max(ingested_at, EARLIEST)) + DAY


def _find_times(texts: pa.Array, latest: Times) -> Times:
    """Return the event times that are certainly valid, else NO_TIME."""
    usual = pc.if_else(pc.match_substring_regex(texts, _USUAL_TIME), texts, None)
    parsed = usual.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    times: Times = np.array(pc.fill_null(parsed, NO_TIME).to_numpy(zero_copy_only=False))
    for row in np.flatnonzero(pc.and_(pc.is_valid(texts), pc.is_null(usual)).to_numpy(zero_copy_only=False)).tolist():
        found = parse_timestamp(texts[row].as_py())
        times[row] = NO_TIME if found is None else found
    times[(times < EARLIEST) | (times > latest)] = NO_TIME
    return times


def _build_columns(values: pa.Array) -> pa.Table | None:
    """Build the event's columns of judged values with arrow-rs; None if it fails."""
    if not len(values):
        return EVENT_ARROW.empty_table()
    try:
        _, offset_buffer, data = values.buffers()
        offsets = np.frombuffer(offset_buffer, np.int32)[values.offset : values.offset + len(values) + 1]
        source = memoryview(data.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))).cast("B")
        schema = arro3.core.Schema.from_arrow(EVENT_ARROW)
        batches = arro3.io.read_json(source, schema=schema, batch_size=_ROWS_AT_ONCE)
        return pa.Table.from_batches(map(pa.record_batch, batches)).cast(EVENT_ARROW)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # Rust panics are not an Exception
        return None


def _find_double_keys(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Find the rows in which a map has a key twice: msgspec keeps its last value, arrow-rs both."""
    found = np.zeros(len(table), bool)
    for owner, name in MAP_FIELDS:
        column = pc.struct_field(table[owner], name) if owner else table[name]
        maps = column.combine_chunks()
        offsets = maps.offsets.to_numpy()
        codes = maps.keys.slice(offsets[0], offsets[-1] - offsets[0]).dictionary_encode().indices.to_numpy()
        rows = np.repeat(np.arange(len(maps)), np.diff(offsets))
        pairs = np.sort(rows * (len(codes) + 1) + codes)
        found[pairs[1:][pairs[1:] == pairs[:-1]] // (len(codes) + 1)] = True
    return found


def _find_negative_zeros(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Find the rows with a negative zero: of ``-0`` in a double field, msgspec makes zero."""
    found = np.zeros(len(table), bool)
    for column in table.flatten().columns:
        if pa.types.is_floating(column.type):
            numbers = pc.fill_null(column, 1.0).to_numpy()
            found |= (numbers == 0) & np.signbit(numbers)
    return found


def _to_judge_type(data_type: T.DataType, name: str, is_closed: bool) -> Any:
    """Return the type that the judge decodes a Spark type into; it is never looser than that of ``decode``."""
    match data_type:
        case T.StructType(fields=fields):
            required = [f.name for f in fields if name == "Event" and f.name in REQUIRED_FIELDS]
            members: list[Any] = [(each, Annotated[str, msgspec.Meta(min_length=1)]) for each in required]
            for f in fields:
                if f.name not in required:
                    members.append((f.name, _to_judge_type(f.dataType, f.name, is_closed) | None, None))
            return msgspec.defstruct(name, members, gc=False, forbid_unknown_fields=is_closed)
        case T.MapType() if name in {field for _, field in MAP_FIELDS}:
            return dict[str, str | None]  # ``decode`` keeps other values as the JSON text that came
        case T.MapType():
            return dict[str, str | int | float | bool | None] if is_closed else dict[str, msgspec.Raw]
        case _:
            return to_python_type(data_type, name)


_CLOSED = msgspec.json.Decoder(_to_judge_type(get_event_schema(), "Event", True))
_OPEN = msgspec.json.Decoder(_to_judge_type(get_event_schema(), "Event", False))
