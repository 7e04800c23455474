"""Drift: how the producers' records differ from the schema.

Unknown fields do not make a record invalid, so the drift report samples bronze as well as the DLQ. A field conflicts
if the decoder would refuse it: both use the same types. Executors import this module, so it may import only packages
that ``make env-archive`` packs (``jars.list_executor_packages``).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import msgspec
import pyarrow as pa
from pyspark.sql import types as T

from bronze.decode import to_python_type
from bronze.ops.masking import MASK, Path, cut_text, is_masked
from bronze.schema import get_event_schema

# For each field: its type in the schema and a decoder for that type or, for an object, its fields.
Fields = dict[str, tuple[str, Any]]

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KINDS = {'"': "string", "{": "object", "[": "array", "t": "boolean", "f": "boolean", "n": "null"}
_MAX_KINDS = 1_000  # limit in one task, because names may be random
NOT_AN_OBJECT = "(the whole value)"


@dataclass(frozen=True)
class Drift:
    """A field that differs from the schema; ``expected`` is empty if the schema lacks the field."""

    field: str
    expected: str
    found: str


_COUNTED = pa.schema(
    [(field.name, pa.string()) for field in fields(Drift)] + [("records", pa.int64()), ("example", pa.string())]
)
COUNTED_DDL = "field string, expected string, found string, records bigint, example string"


def compile_fields(schema: T.StructType) -> Fields:
    """Prepare the fields of a schema for comparison with values."""
    return {field.name: _compile(field.dataType) for field in schema}


def _compile(data_type: T.DataType) -> tuple[str, Any]:
    if isinstance(data_type, T.StructType):
        return "object", compile_fields(data_type)
    return data_type.simpleString(), msgspec.json.Decoder(to_python_type(data_type, "field") | None)


def find_drift(value: bytes | None, fields: Fields) -> Iterator[tuple[Drift, str]]:
    """The fields of a value that the schema (``compile_fields``) lacks or has with another type, with their JSON text.

    Accepts any bytes: a value that is not a JSON object is one finding, without its text.
    """
    try:
        yield from list(_compare(value or b"", fields, ""))
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        yield Drift(NOT_AN_OBJECT, "a JSON object", "anything else"), ""


def _compare(text: bytes, fields: Fields, prefix: str) -> Iterator[tuple[Drift, str]]:
    for name, raw in _OBJECT.decode(text).items():
        data, path = bytes(raw), prefix + name
        expected, known = fields.get(name, ("", None))
        if isinstance(known, dict) and (kind := name_kind(data)) in ("object", "null"):
            yield from _compare(data if kind == "object" else b"{}", known, f"{path}.")
        elif known is None or isinstance(known, dict) or not _fits(data, known):
            yield Drift(path, expected, name_kind(data)), data.decode("utf-8", "backslashreplace")


def _fits(text: bytes, decoder: msgspec.json.Decoder[Any]) -> bool:
    try:
        decoder.decode(text)
    except msgspec.ValidationError:
        return False
    return True


def name_kind(text: bytes) -> str:
    """The JSON type of a value, by its first character."""
    first = text[:1].decode("latin-1")
    return _KINDS.get(first) or ("number" if set(text) & set(b".eE") else "integer")


def count_drift(batches: Iterator[pa.RecordBatch], mask: Sequence[Path], length: int) -> Iterator[pa.RecordBatch]:
    """Count drift within a Spark task: reads values, returns a row per kind of drift with a count and an example."""
    counts, examples, known = Counter[Drift](), dict[Drift, str](), compile_fields(get_event_schema())
    for batch in batches:
        for value in batch["value"].to_pylist():
            for drift, text in find_drift(value, known):
                if drift in examples or len(examples) < _MAX_KINDS:
                    counts[drift] += 1
                    examples.setdefault(drift, MASK if is_masked(drift.field, mask) else cut_text(text, length))
    rows = [{**asdict(drift), "records": counts[drift], "example": text} for drift, text in examples.items()]
    yield pa.RecordBatch.from_pylist(rows, schema=_COUNTED)
