"""Builders that need neither Kafka nor Spark: values, Kafka records as Arrow batches, and Delta tables on disk."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, Schema

from bronze.decode import Event, Invalid, decode
from bronze.schema import TableSpec


def to_micros(text: str) -> int:
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


KAFKA_TIME = to_micros("2026-06-01T12:00:00Z")
INGESTED_AT = to_micros("2026-06-01T12:00:05Z")
EVENT_TIME = "2026-06-01T11:59:58.250Z"
REQUIRED = {"event_id": "e-1", "event_timestamp": EVENT_TIME, "tenant_id": "t-1"}


def make_fields(**changes: Any) -> dict[str, Any]:
    """The fields of a valid event, some of them replaced."""
    return {**REQUIRED, **changes}


def encode(event: Any) -> bytes:
    return json.dumps(event).encode()


def make_value(**changes: Any) -> bytes:
    return encode(make_fields(**changes))


def with_member(member: bytes | str) -> bytes:
    """A valid event with one more member, as raw JSON text."""
    text = member if isinstance(member, bytes) else member.encode()
    return encode(REQUIRED)[:-1] + b", " + text + b"}"


def decode_value(value: bytes | None) -> Event | Invalid:
    return decode(value, KAFKA_TIME, INGESTED_AT)


def decode_member(member: bytes | str) -> dict[str, Any]:
    outcome = decode_value(with_member(member))
    assert isinstance(outcome, Event), outcome
    return outcome.fields


def make_records(
    values: Sequence[bytes | None],
    partitions: Sequence[int] | None = None,
    offsets: Sequence[int] | None = None,
    timestamps: Sequence[int | None] | None = None,
    keys: Sequence[bytes | None] | None = None,
) -> pa.RecordBatch:
    """Kafka records as Spark passes them to the tasks; the row hash is 1,000 + the offset."""
    count = len(values)
    offsets = list(range(count)) if offsets is None else offsets
    times = pa.array([KAFKA_TIME] * count if timestamps is None else timestamps, pa.int64())
    return pa.record_batch(
        {
            "value": pa.array(values, pa.binary()),
            "key": pa.array([b"key"] * count if keys is None else keys, pa.binary()),
            "topic": pa.array(["events"] * count, pa.string()),
            "partition": pa.array([0] * count if partitions is None else partitions, pa.int32()),
            "offset": pa.array(offsets, pa.int64()),
            "timestamp": times.cast(pa.timestamp("us", "UTC")),
            "row_hash": pa.array([1_000 + offset for offset in offsets], pa.int64()),
        }
    )


def create_table(folder: Path, spec: TableSpec) -> str:
    """An empty Delta table of a specification, without the properties that deltalake does not know; its path."""
    schema = Schema.from_json(spec.schema.json())
    properties = {name: value for name, value in spec.properties.items() if name.startswith("delta.")}
    DeltaTable.create(str(folder), schema, partition_by=list(spec.partition_columns), configuration=properties)
    return str(folder)


def read_rows(table: pa.Table) -> list[dict[str, Any]]:
    """A table's rows in the order of their positions, timestamps as microseconds."""
    columns = {
        name: table[name].cast(pa.int64()) if pa.types.is_timestamp(table.schema.field(name).type) else table[name]
        for name in sorted(table.column_names)
    }
    return pa.table(columns).sort_by([("_kafka_partition", "ascending"), ("_kafka_offset", "ascending")]).to_pylist()
