"""A table's Delta log: makes, lists and ages commits."""

import os
import time
from pathlib import Path

from deltalake import DeltaTable
from pyspark.sql import SparkSession

from bronze import maintain
from bronze.config import MaintainConfig
from bronze.delta.ddl import quote_path
from bronze.delta.ledger import new_note
from bronze.delta.log import find_checkpoint, open_log, parse_commit, read_commit
from bronze.delta.log_files import try_checkpoint
from bronze.delta.own_table import TableLog
from bronze.runtime.object_store import find_storage
from tests.support.lake import open_table

DAY = 86_400


def append(log: TableLog, count: int = 1) -> None:
    """Commit batches without rows."""
    for _ in range(count):
        log.commit(None, new_note("ingest"))


def list_commits(path: str) -> list[int]:
    return sorted(int(file.stem) for file in Path(path, "_delta_log").glob("0*.json"))


def list_operations(path: str) -> list[str]:
    """The operation of each commit of a table on a disk or in an object store."""
    place, count = find_storage(path), open_table(path).version() + 1
    return [parse_commit(read_commit(place, version) or "").operation for version in range(count)]


def make_old(path: str, days: float, versions: range) -> None:
    """Make files of the log look as if they had been written days ago, one second apart."""
    for file in Path(path, "_delta_log").glob("0*"):
        if (version := int(file.name[:20])) in versions:
            os.utime(file, (time.time() - days * DAY + version,) * 2)


def set_properties(spark: SparkSession, path: str, **properties: str) -> None:
    """Commit with delta-spark. The property has no prefix, so running writers do not stop because of it."""
    listed = ", ".join(f"'{name.replace('__', '.')}' = '{value}'" for name, value in properties.items())
    spark.sql(f"ALTER TABLE {quote_path(path)} SET TBLPROPERTIES ({listed})")


def run_direct(spark: SparkSession, log: TableLog, count: int) -> None:
    """Commit batches with the direct writer."""
    for _ in range(count):
        log.refresh()
        append(log)
        if due := log.claim_checkpoint():
            try_checkpoint(spark, *due)


def tidy(spark: SparkSession, path: str) -> int:
    """Maintain the table, as the command does; return the number of deleted commits."""
    return maintain(MaintainConfig(output_path=path), spark).cleaned


def read_anew(spark: SparkSession, path: str) -> tuple[int, int]:
    """The version that delta-spark and deltalake open from disk or from the object store."""
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    return open_log(spark, path)[1].version(), open_table(path).version()


def check_commits_in_turn(spark: SparkSession, path: str, count: int) -> None:
    """Make every 17th commit with delta-spark and the others with the direct writer; let three quarters expire."""
    interval = count // 10
    set_properties(spark, path, delta__checkpointInterval=str(interval))
    log = TableLog(path)
    while (version := DeltaTable(path).version()) < count:
        if version % 17:
            run_direct(spark, log, 1)
        else:
            set_properties(spark, path, bronze__turn=str(version))
    assert list_commits(path) == list(range(count + 1))
    assert read_anew(spark, path) == (count, count)
    assert count - find_checkpoint(path) < interval
    expired = count * 3 // 4
    make_old(path, 40, range(expired))
    assert expired - interval - 17 <= tidy(spark, path) <= expired
    assert set(range(expired, count + 1)) <= set(list_commits(path))
    assert read_anew(spark, path) == (count, count)
    assert tidy(spark, path) == 0
