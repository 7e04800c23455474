"""Measures the tables' rows in Spark: counts and delays over time, the newest records, and the next offsets.

Counts and delays read only rows ingested within the report's hours, and only the columns that they need.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import reduce
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.delta.positions import is_within, select_positions
from bronze.delta.statistics import usable_time_column
from bronze.offsets import MAX_OFFSET, Bounds
from bronze.runtime.frames import collect_frame
from bronze.runtime.session import read_table

_PERCENTILES = (0.5, 0.95, 0.99)
# Maximum number of points of a plot over time.
_POINTS = 300


def choose_minutes(report_hours: int) -> int:
    """Minutes that one point of a plot over time covers, for example 5 for a day."""
    return next((m for m in (1, 5, 15) if report_hours * 60 <= _POINTS * m), 60)


def measure_rows(
    spark: SparkSession, tables: Mapping[str, str], topic: str, since: datetime, minutes: int
) -> pd.DataFrame:
    """Counts and ingest delays of the rows ingested since a time, with the totals in a row without ``time``.

    Args:
        spark: Session.
        tables: Path of ``bronze``, and of ``dlq`` if there is one.
        topic: Kafka topic.
        since: Naive UTC.
        minutes: Minutes that one row covers.

    Returns:
        Columns ``time`` (naive UTC, start of the minutes), ``valid``, ``invalid``, ``p50``, ``p95``, ``p99``: seconds
        from ``_kafka_timestamp`` to ``_ingested_at``, 0 if the producer's clock is ahead, of records with a plausible
        Kafka timestamp; ``odd_timestamps``: number of the other records.
    """
    width = minutes * 60
    delay = (F.unix_micros("_ingested_at") - F.unix_micros("_kafka_timestamp")) / 1e6
    has_time = usable_time_column(F.col("_kafka_timestamp"), F.col("_ingested_at")).isNotNull()
    rows = reduce(DataFrame.unionAll, (_select_rows(spark, name, path, topic, since) for name, path in tables.items()))
    measured = (
        rows.withColumn("time", F.timestamp_seconds(F.floor(F.unix_seconds("_ingested_at") / width) * width))
        .withColumn("delay", F.when(has_time, F.greatest(delay, F.lit(0.0))))
        .rollup("time")
        .agg(
            F.count_if("_is_valid").alias("valid"),
            F.count_if(~F.col("_is_valid")).alias("invalid"),
            F.count_if(F.col("delay").isNull()).alias("odd_timestamps"),
            F.percentile_approx("delay", list(_PERCENTILES)).alias("delays"),
        )
    )
    delays = [F.col("delays")[n].alias(f"p{p * 100:.0f}") for n, p in enumerate(_PERCENTILES)]
    return collect_frame(measured.select("time", "valid", "invalid", *delays, "odd_timestamps").orderBy("time"))


def _select_rows(spark: SparkSession, name: str, path: str, topic: str, since: datetime) -> DataFrame:
    is_valid = F.col("_is_valid") if name == "bronze" else F.lit(False)
    recent = read_table(spark, path).where(
        (F.col("_kafka_topic") == topic) & (F.col("_ingested_at") >= F.lit(f"{since}").cast("timestamp"))
    )
    return recent.select("_ingested_at", "_kafka_timestamp", is_valid.alias("_is_valid"))


def find_newest_record(
    spark: SparkSession, tables: Mapping[str, str], since: datetime | None, until: datetime | None = None
) -> tuple[datetime | None, datetime | None]:
    """The newest record's time and the newest ingestion, naive UTC, of the batches that started between two times.

    Reads rows, because file statistics may not be usable: with one record of the year 58872, the maximum of a file is
    in that year.

    Args:
        spark: Session.
        tables: Path of each table.
        since: Naive UTC; None means no limit.
        until: Naive UTC, inclusive; None means no limit.
    """
    columns = ("_kafka_timestamp", "_ingested_at")
    rows = reduce(DataFrame.unionAll, (read_table(spark, path).select(*columns) for path in tables.values()))
    if since:
        rows = rows.where(F.col("_ingested_at") >= F.lit(f"{since}").cast("timestamp"))
    if until:
        rows = rows.where(F.col("_ingested_at") <= F.lit(f"{until}").cast("timestamp"))
    batches = rows.groupBy("_ingested_at").agg(F.max(usable_time_column(*map(F.col, columns))).alias("kafka"))
    newest = batches.agg(
        F.max(F.coalesce("kafka", "_ingested_at")).alias("kafka"), F.max("_ingested_at").alias("start")
    )
    found = collect_frame(newest).iloc[0]
    return _to_python(found["kafka"]), _to_python(found["start"])


def find_newest_event(spark: SparkSession, path: str, partitions: pd.DataFrame) -> datetime | None:
    """The newest ``event_timestamp`` in bronze (naive UTC), or None; reads only the newest hour.

    Args:
        spark: Session.
        path: Bronze.
        partitions: Its partitions, from ``count_files``.
    """
    hours = [(date, int(hour)) for date, hour in partitions[["_event_date", "_event_hour"]].dropna().to_numpy()]
    if not hours:
        return None
    date, hour = max(hours)
    rows = read_table(spark, path).where(f"_event_date = DATE'{date}' AND _event_hour = {hour}")
    # Spark accepts only capital letters, and zones up to 18 hours. Its upper() would first load the rules of all
    # languages, which takes 1.3 s.
    newest = rows.select(F.max(F.translate("event_timestamp", "tz", "TZ").try_cast("timestamp")).alias("newest"))
    return _to_python(collect_frame(newest)["newest"].max())


def _to_python(value: Any) -> datetime | None:
    return None if pd.isna(value) else value.to_pydatetime()


def find_next_offsets(spark: SparkSession, tables: list[str], topic: str, available: Bounds) -> dict[int, int]:
    """The offset after the highest one in the tables, per partition; above Kafka's end if the topic lost its newest.

    Args:
        spark: Session.
        tables: Paths of all tables that positions may be in.
        topic: Kafka topic.
        available: The offsets that Kafka holds; a partition without rows starts at the earliest.
    """
    positions = reduce(DataFrame.unionAll, (select_positions(spark, path, topic) for path in tables))
    readable = {partition: (first, MAX_OFFSET) for partition, (first, _) in available.items()}
    highest = positions.where(is_within(readable)).groupBy("_kafka_partition").agg(F.max("_kafka_offset"))
    return {partition: first for partition, (first, _) in available.items()} | {
        p: last + 1 for p, last in highest.collect()
    }
