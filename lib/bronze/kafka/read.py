"""The records of a topic, read once and not as a stream."""

import json

from pyspark.sql import DataFrame, SparkSession

from bronze.config import KafkaConfig
from bronze.delta.positions import build_bitmaps, collect_ranges
from bronze.kafka.client import build_source_options, read_client_properties
from bronze.offsets import OffsetRanges, PlannedOffsets


def read_positions(spark: SparkSession, config: KafkaConfig, planned: PlannedOffsets, isolation: str) -> OffsetRanges:
    """The offsets within a plan at which Kafka has a record, by a read of the topic."""
    return collect_ranges(
        read_topic_once(spark, config, planned, isolation).transform(select_offsets).transform(build_bitmaps)
    )


def select_offsets(records: DataFrame) -> DataFrame:
    """Kafka's columns under the tables' names: ``_kafka_partition``, ``_kafka_offset``."""
    return records.selectExpr("partition AS _kafka_partition", "offset AS _kafka_offset")


def read_topic_once(
    spark: SparkSession, config: KafkaConfig, planned: PlannedOffsets, isolation: str, **others: str
) -> DataFrame:
    """The planned records of a topic, not as a stream; of partitions that are not planned, none.

    Args:
        spark: Session.
        config: Where Kafka is.
        planned: What to read.
        isolation: read_committed or read_uncommitted.
        others: More options of Spark's source.

    Raises:
        PySparkException: Kafka deleted some of them meanwhile.
    """
    ends = {str(partition): end for partition, (_, end) in planned.items()}
    starts = {str(partition): first for partition, (first, _) in planned.items()}
    options = {
        **build_source_options(read_client_properties(spark, config), isolation),
        "assign": json.dumps({config.kafka_topic: list(planned)}),
        "startingOffsets": json.dumps({config.kafka_topic: starts}),
        "endingOffsets": json.dumps({config.kafka_topic: ends}),
        **others,
    }
    return spark.read.format("kafka").options(**options).load()
