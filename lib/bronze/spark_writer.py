"""The delta-spark writer, for tables that the direct writer cannot append to: two ordinary Delta appends.

The same decoding in the same tasks; the rows go back to Spark and are kept while both tables are written.

Delta skips an append whose number (``txnVersion``) the table has of the application (``txnAppId``), and refuses one
that another commit of that application came before. Both mean that another writer of ours was first.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
from py4j.protocol import Py4JJavaError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.commit import ConflictError, OwnTable, TableWriter, Written
from bronze.failures import explain_failures
from bronze.ledger import SHARED_APP_ID, CommitNote, parse_commit
from bronze.schema import quote_path
from bronze.storage_errors import TableChanged
from bronze.tables import is_watched, read_snapshot, read_transaction_version
from bronze.writer import ROWS_SCHEMA, BatchResult, BatchTask, merge_results, split_partition

_DROPPED = re.compile(r"\[PATH_NOT_FOUND\]|\[DELTA_TABLE_NOT_FOUND\]|/_delta_log does not exist")
_CONFLICT = re.compile(r"ConcurrentTransactionException|DELTA_CONCURRENT_TRANSACTION")
_ALTERED = re.compile(r"MetadataChangedException|ProtocolChangedException|DELTA_(METADATA|PROTOCOL)_CHANGED")


class SparkTable(OwnTable):
    """One table through delta-spark, on any file system."""

    def __init__(self, path: str):
        self._shape: tuple[object, ...] = ()
        super().__init__(path)

    def _read_state(self) -> tuple[int, int]:
        snapshot = read_snapshot(SparkSession.active(), self.path)
        metadata = snapshot.metadata()
        properties = {k: v for k, v in _to_dict(metadata.configuration()).items() if is_watched(k)}
        shape = (metadata.id(), metadata.schemaString(), properties)
        self._shape = self._shape or shape
        if shape != self._shape:
            raise TableChanged(self.path)
        return snapshot.version(), read_transaction_version(snapshot, SHARED_APP_ID)

    def _append(self, rows: DataFrame | None, note: CommitNote, shared: int) -> None:
        spark = SparkSession.active()
        selected = spark.read.format("delta").load(self.path).limit(0) if rows is None else rows
        options = {"txnAppId": SHARED_APP_ID, "txnVersion": str(shared), "userMetadata": note.to_json()}
        _append_rows(selected, self.path, options)
        if not self._has_committed(note):
            raise ConflictError(self.path)

    def _has_committed(self, note: CommitNote) -> bool:
        """Whether the newest commits have the note: Delta says nothing of an append that it skipped."""
        assert self._state is not None
        newest = read_snapshot(SparkSession.active(), self.path).version()
        texts = (self._read_commit(version) or "" for version in range(newest, self._state[0], -1))
        return any(found is not None and found.commit == note.commit for found in (parse_commit(t).note for t in texts))


def _to_dict(scala_map: Any) -> dict[str, str]:
    pairs = scala_map.iterator()
    found = {}
    while pairs.hasNext():
        pair = pairs.next()
        found[pair._1()] = pair._2()
    return found


def _append_rows(rows: DataFrame, path: str, options: dict[str, str]) -> None:
    # By name, since an append to a path recreates a table that somebody dropped (tried).
    writer = rows.writeTo(f"spark_catalog.{quote_path(path)}").options(**options)
    with explain_failures(path):
        try:
            writer.append()
        except (Py4JJavaError, PySparkException) as error:
            text = f"{type(error).__name__}: {error}"
            if _CONFLICT.search(text):
                raise ConflictError(path) from error
            if _DROPPED.search(text) or _ALTERED.search(text):
                raise TableChanged(path) from error
            raise


@contextmanager
def _write_rows(batch: DataFrame, task: BatchTask) -> Iterator[Written]:
    """Decode a batch once, and keep its rows until both tables have them."""
    rows = batch.mapInArrow(partial(split_partition, task=task), ROWS_SCHEMA).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        encoded = rows.where(F.col("result").isNotNull()).select("result").collect()
        result = merge_results(msgspec.json.decode(row["result"], type=BatchResult) for row in encoded)
        counts = count_rows(result, bool(task.dlq_path))
        selected = {
            name: rows.where(F.col(name).isNotNull()).select(f"{name}.*") if count else None
            for name, count in counts.items()
        }
        yield Written(result, selected)
    finally:
        rows.unpersist()


def count_rows(result: BatchResult, has_dlq: bool) -> dict[str, int]:
    """How many rows of a batch are for each table."""
    invalid = sum(result.invalid.values())
    return {"dlq": invalid if has_dlq else 0, "bronze": result.valid + (0 if has_dlq else invalid)}


class SparkWriter(TableWriter):
    """Appends batches to the tables by Spark's own Delta writer."""

    def __init__(self, bronze_path: str, dlq_path: str = ""):
        paths = {"dlq": dlq_path, "bronze": bronze_path}
        tables = {name: SparkTable(path) for name, path in paths.items() if path}
        super().__init__(tables, _write_rows)
