"""The delta-spark writer, for tables that the direct writer cannot append to: two ordinary Delta appends.

The same decoding in the same tasks; the rows go back to Spark and are kept while both tables are written.
"""

from collections.abc import Callable, Iterator
from functools import partial

import msgspec
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from bronze.schema import get_bronze_schema, get_dlq_schema
from bronze.transforms import BRONZE_ARROW, DLQ_ARROW, Counts, OffsetRanges, split_records
from bronze.writer import BatchResult, BatchTask, describe_counts, merge_results

_ROWS_SCHEMA = T.StructType(
    [
        T.StructField("bronze", get_bronze_schema()),
        T.StructField("dlq", get_dlq_schema()),
        T.StructField("result", T.BinaryType()),
    ]
)
_ROWS_ARROW = pa.schema(
    [("bronze", pa.struct(list(BRONZE_ARROW))), ("dlq", pa.struct(list(DLQ_ARROW))), ("result", pa.binary())]
)


class SparkWriter:
    """Appends batches to the tables by Spark's own Delta writer; nothing else may append meanwhile."""

    def __init__(self, bronze_path: str, dlq_path: str = ""):
        self._paths = {"dlq": dlq_path, "bronze": bronze_path}

    def has_changed(self) -> bool:
        """False: this writer cannot see other appends, so a backfill waits until the stream is stopped."""
        return False

    def append(
        self,
        batch: DataFrame,
        task: BatchTask,
        app_id: str,
        find_present: Callable[[], OffsetRanges],
    ) -> BatchResult:
        """Decode a batch once and append it to both tables.

        Args:
            batch: Kafka records.
            task: What the tasks need.
            app_id: Not needed here. Delta would skip a batch of the same query whose number it has (txnVersion), and
                after a restored checkpoint that number may mean other records; ``task.present`` alone decides.
            find_present: Not needed here.
        """
        rows = batch.mapInArrow(partial(_split_task, task=task), _ROWS_SCHEMA).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            encoded = rows.where(F.col("result").isNotNull()).select("result").collect()
            result = merge_results(msgspec.json.decode(row["result"], type=BatchResult) for row in encoded)
            for name, path in self._paths.items():
                if path and (name == "bronze" or result.invalid):
                    _append_rows(rows, name, path)
        finally:
            rows.unpersist()
        return result


def _append_rows(rows: DataFrame, name: str, path: str) -> None:
    selected = rows.where(F.col(name).isNotNull()).select(f"{name}.*")
    selected.write.format("delta").mode("append").save(path)


def _split_task(batches: Iterator[pa.RecordBatch], task: BatchTask) -> Iterator[pa.RecordBatch]:
    """What Spark runs in each task: batches of records in, rows of either table out, the counts in a last row."""
    counts = Counts()
    for records in batches:
        split = split_records(records, task.batch_id, task.ingested_at, bool(task.dlq_path), task.present)
        counts.add(split.counts)
        yield from _to_rows("bronze", split.bronze)
        yield from _to_rows("dlq", split.dlq)
    encoded = pa.array([msgspec.json.encode(describe_counts(counts))], pa.binary())
    yield _fill_row(1, result=encoded)


def _to_rows(name: str, table: pa.Table) -> Iterator[pa.RecordBatch]:
    for chunk in table.to_batches():
        yield _fill_row(len(chunk), **{name: pa.StructArray.from_arrays(chunk.columns, fields=list(chunk.schema))})


def _fill_row(count: int, **columns: pa.Array) -> pa.RecordBatch:
    arrays = [columns.get(f.name, pa.nulls(count, f.type)) for f in _ROWS_ARROW]
    return pa.RecordBatch.from_arrays(arrays, schema=_ROWS_ARROW)
