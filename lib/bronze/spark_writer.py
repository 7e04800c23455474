"""The delta-spark writer, for tables that the direct writer cannot append to: two ordinary Delta appends.

The same decoding in the same tasks; the rows go back to Spark and are kept while both tables are written.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from py4j.protocol import Py4JJavaError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.failures import explain_failures
from bronze.offsets import OffsetRanges
from bronze.schema import quote_path
from bronze.storage_errors import TableChanged
from bronze.writer import ROWS_SCHEMA, BatchResult, BatchTask, merge_results, split_partition

_DROPPED = re.compile(r"\[PATH_NOT_FOUND\]|\[DELTA_TABLE_NOT_FOUND\]|/_delta_log does not exist")


class SparkWriter:
    """Appends batches to the tables by Spark's own Delta writer; a backfill or replay waits until it is stopped."""

    def __init__(self, bronze_path: str, dlq_path: str = ""):
        self._paths = {"dlq": dlq_path} if dlq_path else {}
        self._paths["bronze"] = bronze_path
        self._commits: dict[str, int] = {}
        self._shapes: dict[str, tuple[str, str]] = {}

    def has_changed(self) -> bool:
        """Whether anybody else committed to a table since this was last asked; an append in between is not noticed."""
        spark = SparkSession.active()
        snapshots = {name: read_snapshot(spark, path) for name, path in self._paths.items()}
        before, self._commits = self._commits, {name: s.version() for name, s in snapshots.items()}
        for name, snapshot in snapshots.items():
            shape = (snapshot.metadata().id(), snapshot.metadata().schemaString())
            if shape != self._shapes.setdefault(name, shape):
                raise TableChanged(self._paths[name])
        return before != self._commits

    def append(
        self,
        batch: DataFrame,
        task: BatchTask,
        app_id: str,
        find_present: Callable[[], OffsetRanges],
        check_topic: Callable[[], None] = lambda: None,
    ) -> BatchResult:
        """Decode a batch once and append it to both tables.

        Delta skips an append whose number (txnVersion) the table has of the query (txnAppId), and lets only one of
        two processes on one checkpoint commit it. After a checkpoint was restored from a backup, though, the number
        may mean other records. So a table that has the number gets what is missing in it, without the number.

        Args:
            batch: Kafka records.
            task: What the tasks need.
            app_id: Application of the Delta transactions, the streaming query's id.
            find_present: Looks up anew which of the batch's offsets are in the tables.
            check_topic: Raises where what was read are not the topic's records; called before anything is appended.
        """
        has_number = {
            name: read_transaction_version(batch.sparkSession, path, app_id) >= task.batch_id
            for name, path in self._paths.items()
        }
        if any(has_number.values()):
            task = replace(task, present=find_present())
        transaction = {"txnAppId": app_id, "txnVersion": str(task.batch_id)}
        rows = batch.mapInArrow(partial(split_partition, task=task), ROWS_SCHEMA).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            encoded = rows.where(F.col("result").isNotNull()).select("result").collect()
            result = merge_results(msgspec.json.decode(row["result"], type=BatchResult) for row in encoded)
            check_topic()
            for name, path in self._paths.items():
                if count_rows(result, name, task):
                    _append_rows(rows, name, path, {} if has_number[name] else transaction)
                    self._commits[name] = self._commits.get(name, -1) + 1
        finally:
            rows.unpersist()
        return result


def count_rows(result: BatchResult, name: str, task: BatchTask) -> int:
    """How many rows of a batch are for a table."""
    invalid = sum(result.invalid.values())
    if name == "dlq":
        return invalid
    return result.valid + (0 if task.dlq_path else invalid)


def read_transaction_version(spark: SparkSession, path: str, app_id: str) -> int:
    """The highest number that a table has of an application; -1 where it has none."""
    version = read_snapshot(spark, path).transactions().get(app_id)
    return version.get() if version.isDefined() else -1


def read_snapshot(spark: SparkSession, path: str) -> Any:
    """The newest state of a table, Delta's own ``Snapshot``."""
    jvm: Any = spark._jvm
    return jvm.org.apache.spark.sql.delta.DeltaLog.forTableWithSnapshot(spark._jsparkSession, path)._2()


def _append_rows(rows: DataFrame, name: str, path: str, options: dict[str, str]) -> None:
    selected = rows.where(F.col(name).isNotNull()).select(f"{name}.*")
    # By name, since an append to a path makes a table anew where somebody dropped it (tried).
    writer = selected.writeTo(f"spark_catalog.{quote_path(path)}").options(**options)
    with explain_failures(path):
        try:
            writer.append()
        except (Py4JJavaError, PySparkException) as error:
            if _DROPPED.search(str(error)):
                raise TableChanged(path) from error
            raise
