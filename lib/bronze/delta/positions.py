"""Looks up which positions (partition, offset) of a topic are in the tables, for the overlap guard and the audit.

Spark collects offsets as bitmaps with one bit per offset: a hundred million offsets take 13 MB, and Spark shuffles only
the bitmaps.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.offsets import EMPTY, Bounds, OffsetSet, list_runs


def find_ingested(spark: SparkSession, tables: Sequence[str], topic: str, bounds: Bounds) -> OffsetSet:
    """Look up which offsets are in any of the tables; reads only files that may hold one of them.

    Args:
        spark: Session.
        tables: Paths of existing tables.
        topic: Kafka topic.
        bounds: First and end (exclusive) offset per partition.
    """
    requested = OffsetSet.between(bounds).bounds
    if not requested or not tables:
        return EMPTY
    positions = [select_positions(spark, table, topic).where(is_within(requested)) for table in tables]
    return collect_offsets(reduce(DataFrame.unionAll, positions))


def is_within(bounds: Bounds) -> Column:
    """Return the condition that a row's position lies within the bounds; Delta uses it to skip files."""
    each = [_is_between(partition, first, end - 1) for partition, (first, end) in bounds.items()]
    return any_of(each) if each else F.lit(False)


def is_one_of(offsets: OffsetSet) -> Column:
    """Return the condition that a row's position is one of the offsets, which must be few ranges."""
    return any_of([_is_between(partition, *each) for partition, ranges in offsets.items() for each in ranges])


def _is_between(partition: int, first: int, last: int) -> Column:
    return (F.col("_kafka_partition") == partition) & F.col("_kafka_offset").between(first, last)


def any_of(conditions: Sequence[Column]) -> Column:
    """Join conditions with OR, as a balanced tree: Spark recurses into it, and a long chain overflows the stack."""
    middle = len(conditions) // 2
    return any_of(conditions[:middle]) | any_of(conditions[middle:]) if middle else conditions[0]


def select_positions(spark: SparkSession, table: str, topic: str) -> DataFrame:
    """Select ``_kafka_partition`` and ``_kafka_offset`` of a table's rows of one topic."""
    rows = spark.read.format("delta").load(table).where(F.col("_kafka_topic") == topic)
    return rows.select("_kafka_partition", "_kafka_offset")


def build_bitmaps(positions: DataFrame, *keys: str) -> DataFrame:
    """Build bitmaps: ``keys``, ``_kafka_partition``, ``bucket``, ``bits``, ``count`` (rows, with duplicates).

    Spark's own functions count from 1: offset 0 is bit 0 of bucket 1, hence ``+ 1`` and ``- 1``.
    """
    bucket = F.bitmap_bucket_number(F.col("_kafka_offset") + 1) - 1
    bit = F.bitmap_bit_position(F.col("_kafka_offset") + 1)
    return positions.groupBy(*keys, "_kafka_partition", bucket.alias("bucket")).agg(
        F.bitmap_construct_agg(bit).alias("bits"), F.count("*").alias("count")
    )


def collect_offsets(positions: DataFrame) -> OffsetSet:
    """Run a query of positions, and return their offsets."""
    by_partition: dict[int, list[tuple[int, bytearray]]] = defaultdict(list)
    for partition, bucket, bits, _ in positions.transform(build_bitmaps).collect():
        by_partition[partition].append((bucket, bits))
    return OffsetSet({partition: list_runs(bitmaps) for partition, bitmaps in by_partition.items()})


def mark_replayed(rows: DataFrame, bronze_path: str, topic: str) -> DataFrame:
    """Add the boolean column ``is_replayed``: whether bronze has a valid row of the position.

    An invalid row in bronze (of a run without a DLQ) is not a replay. Bronze is read as bitmaps, so the join only moves
    them and the few rows of the DLQ. Reads only files that may hold one of the positions.

    Args:
        rows: DLQ rows of one topic with ``_kafka_partition`` and ``_kafka_offset``.
        bronze_path: Path of the bronze table.
        topic: Kafka topic.
    """
    bounds = rows.groupBy("_kafka_partition").agg(F.min("_kafka_offset"), F.max("_kafka_offset") + 1)
    requested = is_within({partition: (first, end) for partition, first, end in bounds.collect()})
    bronze = rows.sparkSession.read.format("delta").load(bronze_path).where(F.col("_kafka_topic") == topic)
    positions = bronze.where(requested).where("_is_valid").select("_kafka_partition", "_kafka_offset")
    bitmaps = positions.transform(build_bitmaps).drop("count")
    bucket = F.bitmap_bucket_number(F.col("_kafka_offset") + 1) - 1
    bit = F.bitmap_bit_position(F.col("_kafka_offset") + 1)
    byte = F.conv(F.hex(F.substring("bits", F.floor(bit / 8) + 1, 1)), 16, 10).cast("int")
    is_present = F.coalesce(F.getbit(byte, bit % 8) == 1, F.lit(False))
    joined = rows.withColumn("bucket", bucket).join(bitmaps, ["_kafka_partition", "bucket"], "left")
    return joined.withColumn("is_replayed", is_present).drop("bucket", "bits")
