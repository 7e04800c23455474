"""The two writers: build the rows of a batch, and append them to the tables.

The direct writer's tasks write the files, and the driver commits them. The delta-spark writer is for tables that the
direct writer cannot append to: its tasks return the decoded rows to Spark, which persists them while it writes both
tables.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.delta.commit import TableWriter, Written
from bronze.delta.own_table import SparkTable, TableLog
from bronze.delta.tables import CheckedTable, find_obstacle
from bronze.errors import ConfigError
from bronze.runtime.object_store import check_conditions, check_log_store
from bronze.tasks import ROWS_SCHEMA, BatchTask, add_results, split_partition, write_batch
from bronze.transforms import Counts

log = logging.getLogger(__name__)


@contextmanager
def _write_files(batch: DataFrame, task: BatchTask) -> Iterator[Written]:
    """Write a batch's files; they become part of the tables with the commit."""
    result = write_batch(batch, task)
    yield Written(result.counts, {"dlq": result.dlq or None, "bronze": result.bronze or None})


class DirectWriter(TableWriter):
    """Appends batches to the tables without Spark's Delta writer."""

    def __init__(self, bronze_path: str, dlq_path: str = ""):
        paths = {"dlq": dlq_path, "bronze": bronze_path}
        tables = {name: TableLog(path) for name, path in paths.items() if path}
        super().__init__(tables, _write_files)


@contextmanager
def _write_rows(batch: DataFrame, task: BatchTask) -> Iterator[Written]:
    """Decode a batch once, and persist its rows until both tables are written."""
    rows = batch.mapInArrow(partial(split_partition, task=task), ROWS_SCHEMA).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        counts = add_results(rows.select("result").where(F.col("result").isNotNull())).counts
        selected = {
            name: rows.where(F.col(name).isNotNull()).select(f"{name}.*") if count else None
            for name, count in count_rows(counts, task.dlq is not None).items()
        }
        yield Written(counts, selected)
    finally:
        rows.unpersist()


def count_rows(counts: Counts, has_dlq: bool) -> dict[str, int]:
    """Count a batch's rows per table."""
    return {"dlq": counts.invalid if has_dlq else 0, "bronze": counts.valid + (0 if has_dlq else counts.invalid)}


class SparkWriter(TableWriter):
    """Appends batches to the tables with Spark's own Delta writer."""

    def __init__(self, bronze_path: str, dlq_path: str = ""):
        paths = {"dlq": dlq_path, "bronze": bronze_path}
        super().__init__({name: SparkTable(path) for name, path in paths.items() if path}, _write_rows)


def check_writer(writer: str, tables: Sequence[CheckedTable]) -> str:
    """Return why the direct writer is not used for the tables, empty if it is; refuse a writer that cannot be used.

    Args:
        writer: Value of ``--writer``.
        tables: Bronze, and the DLQ if one is configured.

    Raises:
        ConfigError: The direct writer is requested and cannot be used. Spark would commit to S3 with an unsafe log
            store.
    """
    obstacle = next(filter(None, (find_obstacle(table.path, table.state) for table in tables)), "")
    reason = obstacle or ("set by --writer" if writer == "delta-spark" else "")
    for table in tables if reason else ():
        check_log_store(SparkSession.active(), table.path)
    if writer == "direct" and obstacle:
        raise ConfigError(f"--writer direct cannot be used: {obstacle}", hint="use --writer auto or delta-spark")
    return reason


def choose_writer(writer: str, tables: Sequence[CheckedTable]) -> TableWriter:
    """Choose the direct writer if it can append correctly and delta-spark is not requested; log the choice.

    Args:
        writer: Value of ``--writer``.
        tables: Bronze, and the DLQ if one is configured. They must exist.

    Raises:
        ConfigError: As ``check_writer``. The S3 server overwrites commits.
    """
    reason, paths = check_writer(writer, tables), [table.path for table in tables]
    for path in paths:
        check_conditions(SparkSession.active(), f"{path}/_delta_log")
    if reason:
        log.info("Using the delta-spark writer (%s)", reason)
        return SparkWriter(*paths)
    log.info("Using the direct writer (%s)", "set by --writer" if writer == "direct" else "no restrictions found")
    return DirectWriter(*paths)
