"""The DLQ's records, as the filters of inspection and replay select them. Reads only.

A DLQ record is replayed once bronze has a valid row of its position, and open until then.
"""

from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.config import DlqConfig
from bronze.delta.positions import is_one_of, mark_replayed
from bronze.delta.tables import locate_tables, no_table_error
from bronze.parsing import parse_error_types, parse_offset_ranges, parse_time

# What differs from record to record within one kind of error, and what is shown in its place.
_VALUES = (
    (r"""got (['"]).*\1( - at |$)""", "got …$2"),
    (r"byte \d+( \(0x[0-9a-f]{2}\))?", "byte …"),
    (r"\d{4}-\d\d-\d\dT[0-9:.]+[+-]\d\d:\d\d", "…"),
)


def select_dlq(spark: SparkSession, config: DlqConfig) -> DataFrame:
    """The DLQ's rows that the filters leave, with all columns."""
    rows = spark.read.format("delta").load(config.dlq_path).where(F.col("_kafka_topic") == config.kafka_topic)
    if types := parse_error_types(config.error_type):
        rows = rows.where(F.col("_error_type").isin(types))
    if offsets := parse_offset_ranges(config.offsets):
        rows = rows.where(is_one_of(offsets))
    return select_time(rows, config)


def select_time(rows: DataFrame, config: DlqConfig) -> DataFrame:
    """The rows of either table that were ingested within the filter's time."""
    if start := parse_time("start_timestamp", config.start_timestamp):
        rows = rows.where(F.col("_ingested_at") >= F.lit(start))
    if end := parse_time("end_timestamp", config.end_timestamp):
        rows = rows.where(F.col("_ingested_at") < F.lit(end))
    return rows


def read_dlq(spark: SparkSession, config: DlqConfig) -> DataFrame:
    """What ``select_dlq`` selects, without values and keys; ``is_replayed`` is whether bronze has a valid row of it.

    Raises:
        ConfigError: Bronze or the DLQ is not there. A table has other columns or another partitioning.
        NotADeltaTableError: A path holds something else.
    """
    bronze, dlq = locate_tables(spark, config)
    for option, table in (("output-path", bronze), ("dlq-path", dlq)):
        if table is None or table.state is None:
            raise no_table_error(option, table.path if table else "")
    rows = select_dlq(spark, config).drop("_raw_bytes", "_raw_value", "_kafka_key")
    return mark_replayed(rows, config.output_path, config.kafka_topic)


def normalize_detail(detail: Column) -> Column:
    """An error's detail without the values in it, so that errors of one kind have one detail."""
    return reduce(lambda text, rule: F.regexp_replace(text, *rule), _VALUES, detail)
