"""Transforms an Arrow batch of Kafka records into rows of the bronze table and the DLQ table, without I/O.

The records have the columns of RECORD_COLUMNS; all timestamps are microseconds since 1970, UTC. Executors import this
module, so it may import only packages that ``make env-archive`` packs (``jars.list_executor_packages``).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.pandas.types import to_arrow_schema

from bronze.columns import BRONZE_ARROW, NO_TIME, Decoded, Times, build_events, decode_records
from bronze.decode import NOT_UTF8, Invalid
from bronze.offsets import EMPTY, OffsetSet
from bronze.schema import get_dlq_schema

RECORD_COLUMNS = ("value", "key", "topic", "partition", "offset", "timestamp", "row_hash")
_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
DLQ_ARROW = to_arrow_schema(get_dlq_schema(), timezone="UTC")


class Counts(msgspec.Struct, frozen=True):
    """Numbers of records by outcome; counts of several tasks or batches add up.

    Attributes:
        by_partition: Records that were read, per Kafka partition.
        by_error_type: Invalid records per error type, in the DLQ or in bronze.
        present: Records that were skipped because the tables already had their position.
        fresh: Records at offsets that the ledger had not counted before, per Kafka partition.
        newest: Newest Kafka timestamp that is not after the start of the batch, in microseconds; 0 if there is none.
    """

    by_partition: dict[int, int] = {}
    by_error_type: dict[str, int] = {}
    present: int = 0
    fresh: dict[int, int] = {}
    newest: int = 0

    @property
    def total(self) -> int:
        """Records that were read: ``valid`` + ``invalid`` + ``present``."""
        return sum(self.by_partition.values())

    @property
    def invalid(self) -> int:
        """Records that are invalid and were not yet in the tables."""
        return sum(self.by_error_type.values())

    @property
    def valid(self) -> int:
        """Records that are valid and were not yet in the tables."""
        return self.total - self.invalid - self.present

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            _add(self.by_partition, other.by_partition),
            _add(self.by_error_type, other.by_error_type),
            self.present + other.present,
            _add(self.fresh, other.fresh),
            max(self.newest, other.newest),
        )


def _add(one: dict[Any, int], other: dict[Any, int]) -> dict[Any, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in sorted({*one, *other})}


@dataclass(frozen=True)
class Split:
    """The rows that some records were turned into, for both tables, and the counts of all records that were read."""

    bronze: pa.Table
    dlq: pa.Table
    counts: Counts


def split_records(
    records: pa.RecordBatch,
    batch_id: int,
    ingested_at: int,
    use_dlq: bool,
    present: OffsetSet = EMPTY,
    counted: OffsetSet = EMPTY,
    by_rows: bool = False,
) -> Split:
    """Decode records and split them into bronze rows and DLQ rows; each record is in exactly one of the two.

    Bronze rows are ordered by their hour, so that each file's rows are together; rows of an hour keep their order.

    Args:
        records: Kafka records, with RECORD_COLUMNS.
        batch_id: Batch of the streaming query.
        ingested_at: Start of the batch.
        use_dlq: Whether invalid records become DLQ rows; else they stay in bronze with ``_is_valid`` false.
        present: Offsets to skip, because the tables already have them.
        counted: Offsets whose records do not count as fresh.
        by_rows: Decode each record on its own.
    """
    partitions = count_partitions(records)
    fresh = count_partitions(drop_present(records, counted)) if counted else partitions
    kept = drop_present(records, present) if present else records
    decoded = decode_records(kept["value"], kept["timestamp"], ingested_at, by_rows)
    invalid = decoded.invalid
    by_type = dict(sorted(Counter(each.error_type for each in invalid.values()).items()))
    newest = find_newest(records["timestamp"], ingested_at)
    counts = Counts(partitions, by_type, len(records) - len(kept), fresh, newest)
    dlq = DLQ_ARROW.empty_table()
    if use_dlq and invalid:
        # Similar values together make the files an eighth smaller, and those to escape are in one run.
        rows, failed = zip(*sorted(invalid.items(), key=lambda item: item[1].error_type), strict=True)
        dlq = build_dlq(kept.take(pa.array(rows)), failed, batch_id, ingested_at)
    return Split(build_bronze(kept, decoded, order_rows(decoded.times, not use_dlq), ingested_at), dlq, counts)


def order_rows(times: Times, with_invalid: bool) -> Times:
    """Return the numbers of the valid rows, and of the invalid ones if they are wanted, ordered by hour."""
    rows = np.arange(len(times)) if with_invalid else np.flatnonzero(times != NO_TIME)
    return rows[np.argsort(times[rows] // _HOUR, kind="stable")]


def count_partitions(records: pa.RecordBatch) -> dict[int, int]:
    """Count the records per Kafka partition."""
    counted = records["partition"].value_counts().to_pylist()
    return {each["values"]: each["counts"] for each in sorted(counted, key=itemgetter("values"))}


def find_newest(timestamps: pa.Array, ingested_at: int) -> int:
    """Return the newest timestamp that is not after the start of the batch; 0 if there is none."""
    times = timestamps.cast(pa.int64())
    return pc.max(times.filter(pc.less_equal(times, ingested_at))).as_py() or 0


def drop_present(records: pa.RecordBatch, present: OffsetSet) -> pa.RecordBatch:
    """Return the records whose position (partition, offset) is not in the set."""
    partitions = records["partition"].to_numpy()
    offsets = records["offset"].to_numpy()
    found = np.zeros(len(records), dtype=bool)
    for partition, ranges in present.items():
        mine = partitions == partition
        if mine.any():
            first, last = np.array(ranges, dtype=np.int64).T
            index = np.searchsorted(first, offsets[mine], side="right") - 1
            found[mine] = (index >= 0) & (offsets[mine] <= last[index])
    return records.filter(pa.array(~found)) if found.any() else records


def build_bronze(records: pa.RecordBatch, decoded: Decoded, rows: Times, ingested_at: int) -> pa.Table:
    """Build bronze rows; an invalid record keeps its raw value and has nulls in all parsed columns.

    Args:
        records: The decoded records.
        decoded: What they were decoded to.
        rows: Numbers of the records to build, in the order of the result.
        ingested_at: Start of the batch.
    """
    if not len(rows):
        return BRONZE_ARROW.empty_table()
    chosen = records if np.array_equal(rows, np.arange(len(records))) else records.take(pa.array(rows))
    is_valid = decoded.times[rows] != NO_TIME
    times = pa.array(decoded.times[rows], mask=~is_valid)
    events = build_events(decoded, rows, chosen["value"])
    columns: dict[str, Any] = dict(zip(events.column_names, events.columns, strict=True))
    not_utf8 = [row for row, each in decoded.invalid.items() if each.error_type == NOT_UTF8]
    columns["_raw_value"] = _read_raw_values(chosen["value"], np.isin(rows, not_utf8))
    columns["_is_valid"] = pa.array(is_valid)
    columns |= _build_origin(chosen, ingested_at)
    columns["_row_hash"] = chosen["row_hash"]
    columns["_event_date"] = _to_date(times)
    hours = pc.divide(times, _HOUR)
    columns["_event_hour"] = pc.subtract(hours, pc.multiply(pc.divide(hours, 24), 24)).cast(pa.int32())
    return _to_table(columns, BRONZE_ARROW)


def build_dlq(records: pa.RecordBatch, invalid: Sequence[Invalid], batch_id: int, ingested_at: int) -> pa.Table:
    """Build DLQ rows of invalid records, with the exact bytes of key and value."""
    columns = _build_origin(records, ingested_at)
    columns["_raw_bytes"] = records["value"]
    columns["_raw_value"] = _read_raw_values(records["value"], np.array([i.error_type == NOT_UTF8 for i in invalid]))
    columns["_kafka_key"] = records["key"]
    columns["_error_type"] = pa.array([i.error_type for i in invalid], pa.string())
    columns["_error_detail"] = pa.array([i.error_detail for i in invalid], pa.string())
    columns["_batch_id"] = _repeat(batch_id, len(records))
    columns["_dlq_date"] = _to_date(_repeat(ingested_at, len(records)))
    return _to_table(columns, DLQ_ARROW)


def _build_origin(records: pa.RecordBatch, ingested_at: int) -> dict[str, Any]:
    return {
        "_kafka_topic": records["topic"],
        "_kafka_partition": records["partition"],
        "_kafka_offset": records["offset"],
        "_kafka_timestamp": records["timestamp"],
        "_ingested_at": _repeat(ingested_at, len(records)).cast(pa.timestamp("us", "UTC")),
    }


def _read_raw_values(values: pa.Array, is_escaped: npt.NDArray[np.bool_]) -> pa.Array:
    """Convert values to text; those that are not UTF-8 are backslash-escaped."""
    texts = []
    for start, end in pairwise([0, *(np.flatnonzero(np.diff(is_escaped)) + 1).tolist(), len(values)]):
        part = values.slice(start, end - start)
        if is_escaped[start:end].any():
            part = pa.array([value.decode("utf-8", "backslashreplace") for value in part.to_pylist()])
        texts.append(part.cast(pa.string()))  # checks the bytes without a copy
    return pa.chunked_array(texts, pa.string())


def _repeat(value: int, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.int64()), count)


def _to_date(times: pa.Array) -> pa.Array:
    # Integer division rounds down here, because no time before 1970 is valid.
    return pc.divide(times, _DAY).cast(pa.int32()).cast(pa.date32())


def _to_table(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    return pa.table([columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema)
