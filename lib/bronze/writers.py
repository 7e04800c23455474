"""The two writers: how the rows of a batch are made, and appended to the tables.

The direct writer's tasks write the files, and the driver commits them. The delta-spark writer, for tables that the
direct writer cannot append to, decodes in the same tasks; the rows go back to Spark and are kept while both tables are
written.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bronze.delta.commit import TableWriter, Written
from bronze.delta.own_table import SparkTable, TableLog
from bronze.delta.tables import CheckedTable, find_obstacle
from bronze.errors import ConfigError
from bronze.runtime.paths import to_local_path
from bronze.tasks import ROWS_SCHEMA, BatchTask, add_results, split_partition, write_batch
from bronze.transforms import Counts

log = logging.getLogger(__name__)


@contextmanager
def _write_files(batch: DataFrame, task: BatchTask) -> Iterator[Written]:
    """Write a batch's files; they are part of a table once they are committed."""
    result = write_batch(batch, task)
    yield Written(result.counts, {"dlq": result.dlq or None, "bronze": result.bronze or None})


class DirectWriter(TableWriter):
    """Appends batches to the tables without Spark's Delta writer."""

    def __init__(self, bronze_path: str, dlq_path: str = ""):
        paths = {"dlq": dlq_path, "bronze": bronze_path}
        tables = {name: TableLog(to_local_path(path) or "") for name, path in paths.items() if path}
        super().__init__(tables, _write_files)


@contextmanager
def _write_rows(batch: DataFrame, task: BatchTask) -> Iterator[Written]:
    """Decode a batch once, and keep its rows until both tables have them."""
    rows = batch.mapInArrow(partial(split_partition, task=task), ROWS_SCHEMA).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        counts = add_results(rows.where(F.col("result").isNotNull())).counts
        selected = {
            name: rows.where(F.col(name).isNotNull()).select(f"{name}.*") if count else None
            for name, count in count_rows(counts, bool(task.dlq_path)).items()
        }
        yield Written(counts, selected)
    finally:
        rows.unpersist()


def count_rows(counts: Counts, has_dlq: bool) -> dict[str, int]:
    """How many rows of a batch are for each table."""
    return {"dlq": counts.invalid if has_dlq else 0, "bronze": counts.valid + (0 if has_dlq else counts.invalid)}


class SparkWriter(TableWriter):
    """Appends batches to the tables by Spark's own Delta writer."""

    def __init__(self, bronze_path: str, dlq_path: str = ""):
        paths = {"dlq": dlq_path, "bronze": bronze_path}
        super().__init__({name: SparkTable(path) for name, path in paths.items() if path}, _write_rows)


def find_writer_obstacle(tables: Sequence[CheckedTable]) -> str:
    """Why the direct writer cannot append to the tables correctly; empty where it can."""
    return next(filter(None, (find_obstacle(table.path, table.state) for table in tables)), "")


def check_writer(writer: str, tables: Sequence[CheckedTable]) -> None:
    """Refuse the direct writer where it cannot append correctly.

    Raises:
        ConfigError: It is asked for all the same.
    """
    if writer == "direct" and (obstacle := find_writer_obstacle(tables)):
        raise ConfigError(f"--writer direct cannot be used: {obstacle}", hint="use --writer auto or delta-spark")


def choose_writer(writer: str, tables: Sequence[CheckedTable]) -> TableWriter:
    """The direct writer wherever it can append correctly, unless delta-spark is asked for; says so in the log.

    Args:
        writer: The option.
        tables: Bronze, and the DLQ where there is one, as they are, not before they are created.

    Raises:
        ConfigError: The direct writer is asked for where it cannot.
    """
    check_writer(writer, tables)
    obstacle, paths = find_writer_obstacle(tables), [table.path for table in tables]
    if writer == "delta-spark" or obstacle:
        log.info("Writer: delta-spark, because %s", obstacle or "--writer asks for it")
        return SparkWriter(*paths)
    log.info("Writer: direct, because %s", "--writer asks for it" if writer == "direct" else "nothing is in its way")
    return DirectWriter(*paths)
