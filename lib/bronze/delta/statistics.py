"""Measures a table from its Delta log: its files, its commits, and the duration of each batch.

Uses delta-spark's snapshot and Spark's readers, so it works on any file system. It reads no data file.
"""

from datetime import datetime
from typing import cast

import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.decode import EARLIEST, MAX_AHEAD
from bronze.delta.log import open_log
from bronze.schema import TableSpec

_STATS = "numRecords LONG, maxValues STRUCT<_kafka_timestamp: TIMESTAMP, _ingested_at: TIMESTAMP>"
_ACTIONS = (
    "commitInfo STRUCT<timestamp: LONG, operation: STRING>, "
    "add STRUCT<size: LONG, dataChange: BOOLEAN, stats: STRING>, remove STRUCT<path: STRING>"
)


def list_files(spark: SparkSession, path: str) -> DataFrame:
    """List the files of a table's newest version.

    Columns ``partitionValues`` (map of text), ``size`` (bytes), ``modified`` (time of the write), ``rows``,
    ``newest_kafka`` (null if implausible or without statistics) and ``newest_ingested`` (null without statistics).
    """
    _, snapshot = open_log(spark, path)
    files = DataFrame(snapshot.allFiles().toDF(), spark).withColumn("stats", F.from_json("stats", _STATS))
    ingested = F.col("stats.maxValues._ingested_at")
    return files.select(
        "partitionValues",
        "size",
        F.timestamp_millis("modificationTime").alias("modified"),
        F.col("stats.numRecords").alias("rows"),
        usable_time_column(F.col("stats.maxValues._kafka_timestamp"), ingested).alias("newest_kafka"),
        ingested.alias("newest_ingested"),
    )


def usable_time_column(kafka_timestamp: Column, start: Column) -> Column:
    """Return Kafka timestamps of rows, limited to the start of their batch; null for implausible ones."""
    earliest = F.timestamp_micros(F.lit(EARLIEST))
    latest = start + F.make_dt_interval(secs=F.lit(MAX_AHEAD / 1_000_000))
    return F.when(kafka_timestamp.between(earliest, latest), F.least(kafka_timestamp, start))


def count_files(spark: SparkSession, path: str, spec: TableSpec, small_file_mb: int) -> pd.DataFrame:
    """Return a row per partition of a table; times are naive UTC.

    Columns: the partition columns as text (None for null), ``files``, ``small`` (files below ``small_file_mb``),
    ``rows``, ``bytes``, ``modified``, ``newest_kafka``, ``newest_ingested`` (the newest of each), ``odd_ingested`` (the
    newest ingestion of a file without a usable Kafka timestamp), ``unmeasured`` (files without either time).
    """
    keys = [F.col("partitionValues")[name].alias(name) for name in spec.partition_columns]
    is_small = F.col("size") < small_file_mb * 1024 * 1024
    counted = (
        list_files(spark, path)
        .groupBy(*keys)
        .agg(
            F.count("*").alias("files"),
            F.count_if(is_small).alias("small"),
            F.sum("rows").alias("rows"),
            F.sum("size").alias("bytes"),
            *(F.max(name).alias(name) for name in ("modified", "newest_kafka", "newest_ingested")),
            F.max(F.when(F.col("newest_kafka").isNull(), F.col("newest_ingested"))).alias("odd_ingested"),
            F.count_if(F.col("newest_ingested").isNull()).alias("unmeasured"),
        )
    )
    return cast(pd.DataFrame, counted.toPandas())


def read_commits(spark: SparkSession, path: str, since: datetime) -> pd.DataFrame:
    """Return a row per commit of a table since a time, the newest first; times are naive UTC.

    Columns ``version``, ``time``, ``operation``, ``rows`` and ``files`` (added), ``removed`` (files), ``bytes``
    (added), ``ingested_at`` (start of the rows' batch; null if no rows were added).
    """
    actions = (
        spark.read.schema(_ACTIONS)
        .option("modifiedAfter", f"{since:%Y-%m-%dT%H:%M:%S}")
        .option("pathGlobFilter", "*.json")
        .option("__globPaths__", "false")  # a path is not a glob pattern; Hadoop cannot escape one that has a colon
        .json(f"{path}/_delta_log")
        .withColumn("version", F.regexp_extract("_metadata.file_name", r"^(\d+)", 1).cast("long"))
        .withColumn("stats", F.from_json("add.stats", _STATS))
    )
    commits = actions.groupBy("version").agg(
        F.timestamp_millis(F.max("commitInfo.timestamp")).alias("time"),
        F.max("commitInfo.operation").alias("operation"),
        F.coalesce(F.sum("stats.numRecords"), F.lit(0)).alias("rows"),
        F.count("add").alias("files"),
        F.count("remove").alias("removed"),
        F.coalesce(F.sum("add.size"), F.lit(0)).alias("bytes"),
        F.max(F.when(F.col("add.dataChange"), F.col("stats.maxValues._ingested_at"))).alias("ingested_at"),
    )
    return cast(pd.DataFrame, commits.orderBy(F.desc("version")).toPandas())


def measure_batches(commits: pd.DataFrame) -> pd.DataFrame:
    """Measure the duration of each batch, from its start (``_ingested_at``) to its last commit.

    Args:
        commits: Commits of both tables; those of a batch have the same ``ingested_at``.

    Returns:
        A row per batch, ordered by time: ``ingested_at``, ``rows``, ``seconds``.
    """
    written = commits[(commits["operation"] == "WRITE") & commits["ingested_at"].notna()]
    batches = written.groupby("ingested_at", as_index=False).agg(rows=("rows", "sum"), time=("time", "max"))
    batches["seconds"] = (batches.pop("time") - batches["ingested_at"]).dt.total_seconds()
    return cast(pd.DataFrame, batches)
