"""Which positions (partition, offset) of a topic are in the tables: what the overlap guard and the audit ask.

Offsets are collected as bitmaps, one bit each: a hundred million are 13 MB, and no sort of theirs leaves a partition.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from operator import or_

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.offsets import OffsetRanges, PlannedOffsets, list_runs


def find_present(spark: SparkSession, tables: Sequence[str], topic: str, planned: PlannedOffsets) -> OffsetRanges:
    """Look up which of the planned offsets are in any of the tables; reads only files that may hold some.

    Args:
        spark: Session.
        tables: Paths of existing tables.
        topic: Kafka topic.
        planned: First and end (exclusive) offset per partition.

    Returns:
        Ranges for each planned partition; an empty list where nothing is there.
    """
    asked = {partition: (first, end) for partition, (first, end) in planned.items() if first < end}
    found: OffsetRanges = {}
    if asked:
        positions = [select_positions(spark, table, topic).where(is_within(asked)) for table in tables]
        found = collect_ranges(reduce(DataFrame.unionAll, positions).transform(build_bitmaps))
    return {partition: found.get(partition, []) for partition in planned}


def is_within(planned: PlannedOffsets) -> Column:
    """Whether a row's position is one of the planned ones; Delta skips files by it."""
    each = (
        (F.col("_kafka_partition") == partition) & F.col("_kafka_offset").between(first, end - 1)
        for partition, (first, end) in planned.items()
    )
    return reduce(or_, each, F.lit(False))


def select_positions(spark: SparkSession, table: str, topic: str) -> DataFrame:
    """Columns ``_kafka_partition``, ``_kafka_offset`` of a table's rows of one topic."""
    rows = spark.read.format("delta").load(table).where(F.col("_kafka_topic") == topic)
    return rows.select("_kafka_partition", "_kafka_offset")


def build_bitmaps(positions: DataFrame, *keys: str) -> DataFrame:
    """Columns of ``keys``, ``_kafka_partition``, ``bucket``, ``bits``, ``count`` (rows, also of doubled offsets).

    Spark's own functions count from 1: offset 0 is bit 0 of bucket 1, hence ``+ 1`` and ``- 1``.
    """
    bucket = F.bitmap_bucket_number(F.col("_kafka_offset") + 1) - 1
    bit = F.bitmap_bit_position(F.col("_kafka_offset") + 1)
    return positions.groupBy(*keys, "_kafka_partition", bucket.alias("bucket")).agg(
        F.bitmap_construct_agg(bit).alias("bits"), F.count("*").alias("count")
    )


def collect_ranges(bitmaps: DataFrame) -> OffsetRanges:
    """Run the query of ``build_bitmaps``; the ranges of each partition that it has."""
    by_partition: dict[int, list[tuple[int, bytearray]]] = defaultdict(list)
    for partition, bucket, bits, _ in bitmaps.collect():
        by_partition[partition].append((bucket, bits))
    return {partition: list_runs(buckets) for partition, buckets in sorted(by_partition.items())}


def mark_replayed(rows: DataFrame, bronze_path: str, topic: str) -> DataFrame:
    """Add the boolean column ``is_replayed``: whether bronze has a valid row of the position.

    An invalid row in bronze (of a run without a DLQ) is not a replay. Bronze is read as bitmaps, which a join takes to
    the rows; so it is the few rows of the DLQ that are moved. Reads only files that may hold some.

    Args:
        rows: DLQ rows of one topic with ``_kafka_partition`` and ``_kafka_offset``.
        bronze_path: Path of the bronze table.
        topic: Kafka topic.
    """
    bounds = rows.groupBy("_kafka_partition").agg(F.min("_kafka_offset"), F.max("_kafka_offset") + 1)
    wanted = is_within({partition: (first, end) for partition, first, end in bounds.collect()})
    bronze = rows.sparkSession.read.format("delta").load(bronze_path).where(F.col("_kafka_topic") == topic)
    positions = bronze.where(wanted).where("_is_valid").select("_kafka_partition", "_kafka_offset")
    bitmaps = positions.transform(build_bitmaps).drop("count")
    bucket = F.bitmap_bucket_number(F.col("_kafka_offset") + 1) - 1
    bit = F.bitmap_bit_position(F.col("_kafka_offset") + 1)
    byte = F.conv(F.hex(F.substring("bits", F.floor(bit / 8) + 1, 1)), 16, 10).cast("int")
    is_present = F.coalesce(F.getbit(byte, bit % 8) == 1, F.lit(False))
    joined = rows.withColumn("bucket", bucket).join(bitmaps, ["_kafka_partition", "bucket"], "left")
    return joined.withColumn("is_replayed", is_present).drop("bucket", "bits")
