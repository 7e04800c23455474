"""Drift: how far what producers send has moved away from the schema.

Fields that the schema lacks do not make a record invalid, so a sample of bronze is looked through as well as one of
the DLQ. A field conflicts where the decoder itself would refuse it: both use the same types.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, partial, reduce
from typing import Any, NamedTuple

import msgspec
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from bronze.decode import to_python_type
from bronze.masking import MASK, Path, cut_text, is_masked
from bronze.plots import collect_frame
from bronze.schema import get_event_schema

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KINDS = {'"': "string", "{": "object", "[": "array", "t": "boolean", "f": "boolean", "n": "null"}
_MAX_KINDS = 1_000  # in one task: names may be random
_SHOWN = 50
NOT_AN_OBJECT = "(the whole value)"


class Drift(NamedTuple):
    """One field that is not as the schema has it; ``expected`` is empty where the schema lacks it."""

    field: str
    expected: str
    found: str


def find_drift(value: bytes | None, schema: T.StructType) -> Iterator[tuple[Drift, str]]:
    """The fields of a value that the schema lacks or has with another type, each with its JSON text.

    Takes any bytes: what is no JSON object is one finding, without its text.
    """
    try:
        yield from list(_compare(value or b"", schema, ""))
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        yield Drift(NOT_AN_OBJECT, "a JSON object", "anything else"), ""


def _compare(text: bytes, schema: T.StructType, prefix: str) -> Iterator[tuple[Drift, str]]:
    known = {field.name: field.dataType for field in schema}
    for name, raw in _OBJECT.decode(text).items():
        data, path = bytes(raw), prefix + name
        kind = describe_kind(data)
        if name not in known:
            yield Drift(path, "", kind), data.decode("utf-8", "backslashreplace")
        elif isinstance(inner := known[name], T.StructType) and kind in ("object", "null"):
            yield from _compare(data if kind == "object" else b"{}", inner, f"{path}.")
        elif isinstance(inner, T.StructType) or not _fits(data, inner):
            shown = "object" if isinstance(inner, T.StructType) else inner.simpleString()
            yield Drift(path, shown, kind), data.decode("utf-8", "backslashreplace")


def describe_kind(text: bytes) -> str:
    """The JSON type of a value, by its first character."""
    first = text[:1].decode("latin-1")
    return _KINDS.get(first) or ("number" if set(text) & set(b".eE") else "integer")


def _fits(text: bytes, data_type: T.DataType) -> bool:
    try:
        _make_decoder(data_type.json()).decode(text)
    except msgspec.ValidationError:
        return False
    return True


@cache
def _make_decoder(data_type: str) -> Any:
    parsed = T._parse_datatype_json_string(data_type)
    return msgspec.json.Decoder(to_python_type(parsed, "field") | None)


def count_drift(batches: Iterator[pa.RecordBatch], mask: Sequence[Path], length: int) -> Iterator[pa.RecordBatch]:
    """What Spark runs in each task: values in, one row for each kind of drift out, with a count and an example."""
    counts, examples, schema = Counter[Drift](), dict[Drift, str](), get_event_schema()
    for batch in batches:
        for value in batch["value"].to_pylist():
            for drift, text in find_drift(value, schema):
                if drift in examples or len(examples) < _MAX_KINDS:
                    counts[drift] += 1
                    examples.setdefault(drift, MASK if is_masked(drift.field, mask) else cut_text(text, length))
    rows = [{**drift._asdict(), "records": counts[drift], "example": text} for drift, text in examples.items()]
    yield pa.RecordBatch.from_pylist(rows, schema=_COUNTED)


_COUNTED = pa.schema(
    [(name, pa.string()) for name in Drift._fields] + [("records", pa.int64()), ("example", pa.string())]
)
_COUNTED_DDL = "field string, expected string, found string, records bigint, example string"


def collect_drift(samples: dict[str, DataFrame], mask: Sequence[Path], length: int) -> pd.DataFrame:
    """Drift in samples of values, the most frequent first.

    Args:
        samples: DataFrames with the binary column ``value``, by what the result's column is to be called.
        mask: Fields whose examples are hidden.
        length: Characters of an example at the most.

    Returns:
        Columns ``field``, ``the schema has``, ``came as``, one with the records for each sample, ``example``.
    """
    counted = [
        values.mapInArrow(partial(count_drift, mask=mask, length=length), _COUNTED_DDL).withColumn(
            "sample", F.lit(name)
        )
        for name, values in samples.items()
    ]
    union = counted[0]
    for other in counted[1:]:
        union = union.unionAll(other)
    totals = [F.sum(F.when(F.col("sample") == name, F.col("records")).otherwise(0)).alias(name) for name in samples]
    grouped = reduce(DataFrame.unionAll, counted).groupBy(*Drift._fields)
    named = grouped.agg(*totals, F.min("example").alias("example"), F.sum("records").alias("n"))
    frame = collect_frame(named.orderBy(F.desc("n"), "field").limit(_SHOWN)).drop(columns="n")
    frame["field"] = frame["field"].map(lambda name: cut_text(name, 120))
    frame["expected"] = frame["expected"].replace("", "no such field")
    return frame.rename(columns={"expected": "the schema has", "found": "came as"})
