"""Code that runs on executors: decode each record once, then write Parquet files or return rows to Spark.

Executors import this module, so it may import only packages that ``make env-archive`` packs
(``jars.list_executor_packages``). Files become part of a table only when the driver commits them. At worst, a task that
fails or runs twice leaves unreferenced files, which VACUUM removes.
"""

import errno
import gc
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import msgspec
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import types as T
from pyspark.sql.pandas.types import to_arrow_schema

from bronze.columns import HAS_BUILDER, decode_records
from bronze.offsets import EMPTY, OffsetSet
from bronze.parquet import NO_TABLE, DataFile, write_parquet
from bronze.schema import TableSpec, get_bronze_schema, get_bronze_spec, get_dlq_schema, get_dlq_spec
from bronze.storage import Storage
from bronze.transforms import Counts, Split, split_records

log = logging.getLogger(__name__)
FLUSH_BYTES = 256 * 1024 * 1024
_RESULT_SCHEMA = T.StructType([T.StructField("result", T.BinaryType())])
ROWS_SCHEMA = T.StructType(
    [T.StructField("bronze", get_bronze_schema()), T.StructField("dlq", get_dlq_schema()), *_RESULT_SCHEMA]
)
_ROWS_ARROW = to_arrow_schema(ROWS_SCHEMA, timezone="UTC")


@dataclass(frozen=True)
class BatchTask:
    """The parameters of one batch's tasks; times in microseconds since 1970.

    Attributes:
        batch_id: Batch of the streaming query.
        ingested_at: Start of the batch, in whole milliseconds.
        bronze: Place of the bronze table.
        dlq: Place of the DLQ table; None keeps invalid records in bronze.
        present: Offsets to skip, because the tables already have them.
        counted: Offsets whose records the table's ledger has already counted.
    """

    batch_id: int
    ingested_at: int
    bronze: Storage
    dlq: Storage | None
    present: OffsetSet = EMPTY
    counted: OffsetSet = EMPTY


class BatchResult(msgspec.Struct):
    """The counts and written files of one task, or of all tasks of a batch."""

    counts: Counts = Counts()
    bronze: list[DataFile] = []
    dlq: list[DataFile] = []
    has_builder: bool = HAS_BUILDER

    def __add__(self, other: "BatchResult") -> "BatchResult":
        has_builder = self.has_builder and other.has_builder
        return BatchResult(self.counts + other.counts, self.bronze + other.bronze, self.dlq + other.dlq, has_builder)


def write_batch(batch: DataFrame, task: BatchTask) -> BatchResult:
    """Decode a batch and write its files in one Spark job, without a commit.

    Args:
        batch: Kafka records with the columns of ``RECORD_COLUMNS``.
        task: Parameters of the tasks.
    """
    return add_results(batch.mapInArrow(partial(_run_task, task=task), _RESULT_SCHEMA))


def add_results(encoded: DataFrame) -> BatchResult:
    """Run the tasks, and add up their results (column ``result``)."""
    results = (msgspec.json.decode(row["result"], type=BatchResult) for row in encoded.collect())
    total = sum(results, BatchResult(has_builder=True))
    if not total.has_builder:
        _warn_of_slow_decoding()
    return total


@cache
def _warn_of_slow_decoding() -> None:
    log.warning(
        "the executors' Python lacks arro3-io, so each record is decoded on its own, at about half the speed; "
        "make env-archive packs it"
    )


def _run_task(batches: Iterator[pa.RecordBatch], task: BatchTask) -> Iterator[pa.RecordBatch]:
    """Entry point of a task: takes Arrow batches of records, yields one row with the result."""
    result = write_partition(batches, task)
    yield pa.record_batch({"result": pa.array([msgspec.json.encode(result)], pa.binary())})


def write_partition(batches: Iterator[pa.RecordBatch], task: BatchTask) -> BatchResult:
    """Decode and write the records in one pass; buffers at most FLUSH_BYTES of decoded rows."""
    counts = Counts()
    bronze = _Buffer(task.bronze, get_bronze_spec(), task.batch_id)
    dlq = _Buffer(task.dlq, get_dlq_spec(), task.batch_id)
    # Decoded events have no reference cycles; searching millions of dicts for them would take half the decoding time.
    collected = gc.isenabled()
    gc.disable()
    try:
        for records in batches:
            split = _split(records, task)
            bronze.add(split.bronze)
            dlq.add(split.dlq)
            counts += split.counts
            if bronze.size + dlq.size >= FLUSH_BYTES:
                bronze.flush()
                dlq.flush()
        bronze.flush()
        dlq.flush()
    finally:
        if collected:
            gc.enable()
    return BatchResult(counts, bronze.written, dlq.written)


def _split(records: pa.RecordBatch, task: BatchTask) -> Split:
    # If arrow-rs has ended the process of an earlier attempt, this one does without it.
    context = TaskContext.get()
    is_retry = context is not None and context.attemptNumber() > 0
    return split_records(records, task.batch_id, task.ingested_at, bool(task.dlq), task.present, task.counted, is_retry)


def return_rows(rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Entry point of a task that only starts a Python process and lets it import this module."""
    return rows


@dataclass
class _Buffer:
    """Rows of one table that are not yet written."""

    table: Storage | None
    spec: TableSpec
    batch_id: int
    written: list[DataFile] = field(default_factory=list)
    tables: list[pa.Table] = field(default_factory=list)
    size: int = 0

    def add(self, rows: pa.Table) -> None:
        if len(rows):
            self.tables.append(rows)
            self.size += rows.nbytes

    def flush(self) -> None:
        if self.tables and self.table:
            self.written += write_parquet(pa.concat_tables(self.tables), self.table, self.spec, self.batch_id)
        self.tables, self.size = [], 0


def split_partition(batches: Iterator[pa.RecordBatch], task: BatchTask) -> Iterator[pa.RecordBatch]:
    """Entry point of a delta-spark writer's task: takes records, yields ROWS_SCHEMA with the counts in the last row."""
    for table in filter(None, (task.bronze, task.dlq)):
        # Spark would create the folders on an executor's own disk.
        if table.is_local and not Path(table.uri, "_delta_log").is_dir():
            raise FileNotFoundError(errno.ENOENT, NO_TABLE, table.uri)
    counts = Counts()
    for records in batches:
        split = _split(records, task)
        counts += split.counts
        yield from _to_rows("bronze", split.bronze)
        yield from _to_rows("dlq", split.dlq)
    yield _fill_row(1, result=pa.array([msgspec.json.encode(BatchResult(counts))], pa.binary()))


def _to_rows(name: str, table: pa.Table) -> Iterator[pa.RecordBatch]:
    for chunk in table.to_batches():
        yield _fill_row(len(chunk), **{name: pa.StructArray.from_arrays(chunk.columns, fields=list(chunk.schema))})


def _fill_row(count: int, **columns: pa.Array) -> pa.RecordBatch:
    arrays = [columns.get(f.name, pa.nulls(count, f.type)) for f in _ROWS_ARROW]
    return pa.RecordBatch.from_arrays(arrays, schema=_ROWS_ARROW)


DIAGNOSED_DDL = (
    "_kafka_partition int, _kafka_offset bigint, was string, is_replayed boolean, "
    "error_type string, error_detail string"
)


def diagnose_records(batches: Iterator[pa.RecordBatch], ingested_at: int) -> Iterator[pa.RecordBatch]:
    """Entry point of a task of a replay's plan: yields the error of each record, or null if the record is now valid.

    Args:
        batches: DLQ records: ``value``, ``timestamp``, ``partition``, ``offset``, ``was`` (the error type in the DLQ)
            and ``is_replayed``.
        ingested_at: Start of the replay.

    Returns:
        Batches with the columns of DIAGNOSED_DDL.
    """
    for records in batches:
        invalid = decode_records(records["value"], records["timestamp"], ingested_at).invalid
        failed = [invalid.get(row) for row in range(len(records))]
        yield pa.record_batch(
            {
                "_kafka_partition": records["partition"],
                "_kafka_offset": records["offset"],
                "was": records["was"],
                "is_replayed": records["is_replayed"],
                "error_type": pa.array([d and d.error_type for d in failed], pa.string()),
                "error_detail": pa.array([d and d.error_detail for d in failed], pa.string()),
            }
        )
