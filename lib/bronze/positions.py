"""Which positions (partition, offset) of a topic are in the tables already: the overlap guard's question."""

from collections.abc import Sequence
from functools import reduce
from operator import or_

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from bronze.checkpoint import PlannedOffsets
from bronze.transforms import OffsetRanges


def find_present(spark: SparkSession, tables: Sequence[str], topic: str, planned: PlannedOffsets) -> OffsetRanges:
    """Look up which of the planned offsets are in any of the tables.

    Args:
        spark: Session.
        tables: Paths of existing tables.
        topic: Kafka topic.
        planned: First and end (exclusive) offset per partition.

    Returns:
        Inclusive ranges per partition, ascending; empty where nothing overlaps.
    """
    asked = {partition: (first, end) for partition, (first, end) in planned.items() if first < end}
    if not asked:
        return {}
    wanted = reduce(or_, (_is_between(partition, *offsets) for partition, offsets in asked.items()))
    positions = [
        spark.read.format("delta")
        .load(table)
        .where((F.col("_kafka_topic") == topic) & wanted)
        .transform(select_position)
        for table in tables
    ]
    present: OffsetRanges = {}
    for row in reduce(DataFrame.unionAll, positions).transform(merge_ranges).collect():
        present.setdefault(row["_kafka_partition"], []).append((row["first"], row["last"]))
    return present


def find_highest(spark: SparkSession, tables: Sequence[str], topic: str) -> dict[int, int]:
    """The highest offset of the topic in any of the tables, per partition; no entry where there is none."""
    positions = [
        spark.read.format("delta").load(table).where(F.col("_kafka_topic") == topic).transform(select_position)
        for table in tables
    ]
    counted = reduce(DataFrame.unionAll, positions).groupBy("_kafka_partition").agg(F.max("_kafka_offset"))
    return {row[0]: row[1] for row in counted.collect()}


def _is_between(partition: int, first: int, end: int) -> Column:
    return (F.col("_kafka_partition") == partition) & F.col("_kafka_offset").between(first, end - 1)


def select_position(rows: DataFrame) -> DataFrame:
    """Columns ``_kafka_partition``, ``_kafka_offset``."""
    return rows.select("_kafka_partition", "_kafka_offset")


def merge_ranges(positions: DataFrame) -> DataFrame:
    """Merge neighbouring offsets: columns ``_kafka_partition``, ``first``, ``last`` (inclusive), ascending.

    Offsets less their rank are equal exactly within a run of neighbours.
    """
    by_offset = Window.partitionBy("_kafka_partition").orderBy("_kafka_offset")
    run = F.col("_kafka_offset") - F.row_number().over(by_offset)
    return (
        positions.distinct()
        .withColumn("run", run)
        .groupBy("_kafka_partition", "run")
        .agg(F.min("_kafka_offset").alias("first"), F.max("_kafka_offset").alias("last"))
        .select("_kafka_partition", "first", "last")
        .orderBy("_kafka_partition", "first")
    )
