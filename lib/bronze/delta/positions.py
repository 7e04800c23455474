"""Looks up which positions (partition, offset) of a topic are in the tables, for the overlap guard and the audit.

Spark collects offsets as bitmaps with one bit per offset: a hundred million offsets take 13 MB, and Spark shuffles only
the bitmaps.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import reduce

import numpy as np
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.offsets import EMPTY, Bounds, OffsetSet, Range
from bronze.runtime.session import read_table

# Offsets in one bitmap of Spark's bitmap functions.
BUCKET_SIZE = 32_768


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
    rows = read_table(spark, table).where(F.col("_kafka_topic") == topic)
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


def list_runs(bitmaps: Iterable[tuple[int, bytes | bytearray]]) -> list[Range]:
    """Return the ranges of offsets whose bit is set.

    Args:
        bitmaps: Bucket and bits of one partition; bit ``b`` of bucket ``n`` is offset ``n * 32768 + b``.
    """
    runs = [_list_runs_of(bucket, bits) for bucket, bits in sorted(bitmaps)]
    first, last = np.concatenate(runs or [np.empty((2, 0), np.int64)], axis=1)
    return _to_ranges(first, last) if len(first) else []


def _list_runs_of(bucket: int, bits: bytes | bytearray) -> np.ndarray:
    """Return the first and last offsets of the runs in one bitmap, shape (2, runs)."""
    is_set = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little").astype(np.int8)
    change = np.diff(is_set, prepend=0, append=0)
    return np.stack([np.flatnonzero(change == 1), np.flatnonzero(change == -1) - 1]) + bucket * BUCKET_SIZE


def list_ranges(offsets: np.ndarray) -> list[Range]:
    """Return the ascending ranges of offsets that come in any order."""
    each = np.unique(offsets)
    return _to_ranges(each, each)


def _to_ranges(first: np.ndarray, last: np.ndarray) -> list[Range]:
    """Join adjacent ascending runs."""
    is_gap = first[1:] != last[:-1] + 1
    starts, ends = np.append(True, is_gap), np.append(is_gap, True)
    return list(zip(first[starts].tolist(), last[ends].tolist(), strict=True))
