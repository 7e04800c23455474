"""Reads the DLQ records that the filters of inspection and replay select.

A DLQ record counts as replayed once bronze has a valid row of its position, and as open until then.
"""

from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.config import DlqConfig
from bronze.delta.positions import build_bitmaps, is_one_of, is_within
from bronze.delta.tables import locate_tables, no_table_error
from bronze.parsing import parse_error_types, parse_offset_ranges, parse_time
from bronze.runtime.session import read_table

# Patterns of values that differ between records with the same kind of error, and their replacements.
_VALUES = (
    (r"""got (['"]).*\1( - at |$)""", "got …$2"),
    (r"byte \d+( \(0x[0-9a-f]{2}\))?", "byte …"),
    (r"\d{4}-\d\d-\d\dT[0-9:.]+[+-]\d\d:\d\d", "…"),
)


def select_dlq(spark: SparkSession, config: DlqConfig) -> DataFrame:
    """Select the DLQ rows that match the filters, with all columns."""
    rows = read_table(spark, config.dlq_path).where(F.col("_kafka_topic") == config.kafka_topic)
    if types := parse_error_types(config.error_type):
        rows = rows.where(F.col("_error_type").isin(types))
    if offsets := parse_offset_ranges(config.offsets):
        rows = rows.where(is_one_of(offsets))
    return select_time(rows, config)


def select_time(rows: DataFrame, config: DlqConfig) -> DataFrame:
    """Select the rows of either table that were ingested within the filter's time range."""
    if start := parse_time("start_timestamp", config.start_timestamp):
        rows = rows.where(F.col("_ingested_at") >= F.lit(start))
    if end := parse_time("end_timestamp", config.end_timestamp):
        rows = rows.where(F.col("_ingested_at") < F.lit(end))
    return rows


def read_dlq(spark: SparkSession, config: DlqConfig) -> DataFrame:
    """Read the rows of ``select_dlq`` without values and keys; ``is_replayed`` tells if bronze has a valid row.

    Raises:
        ConfigError: Bronze or the DLQ does not exist. A table has other columns or another partitioning.
        NotADeltaTableError: A path holds something else.
    """
    bronze, dlq = locate_tables(spark, config)
    for option, table in (("output-path", bronze), ("dlq-path", dlq)):
        if table is None or table.state is None:
            raise no_table_error(option, table.path if table else "")
    rows = select_dlq(spark, config).drop("_raw_bytes", "_raw_value", "_kafka_key")
    return mark_replayed(rows, config.output_path, config.kafka_topic)


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
    bronze = read_table(rows.sparkSession, bronze_path).where(F.col("_kafka_topic") == topic)
    positions = bronze.where(requested).where("_is_valid").select("_kafka_partition", "_kafka_offset")
    bitmaps = positions.transform(build_bitmaps).drop("count")
    bucket = F.bitmap_bucket_number(F.col("_kafka_offset") + 1) - 1
    bit = F.bitmap_bit_position(F.col("_kafka_offset") + 1)
    byte = F.conv(F.hex(F.substring("bits", F.floor(bit / 8) + 1, 1)), 16, 10).cast("int")
    is_present = F.coalesce(F.getbit(byte, bit % 8) == 1, F.lit(False))
    joined = rows.withColumn("bucket", bucket).join(bitmaps, ["_kafka_partition", "bucket"], "left")
    return joined.withColumn("is_replayed", is_present).drop("bucket", "bits")


def normalize_detail(detail: Column) -> Column:
    """Replace the values in an error's detail, so that errors of the same kind have the same detail."""
    return reduce(lambda text, rule: F.regexp_replace(text, *rule), _VALUES, detail)
