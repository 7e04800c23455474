"""Reads a topic: as a stream, or a range of its records once."""

import json
from typing import Any

from pyspark.errors import IllegalArgumentException
from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.sql.streaming.readwriter import DataStreamReader

from bronze.config import DEFAULT_STARTING_OFFSETS, IngestConfig, KafkaConfig
from bronze.kafka.client import KafkaClient
from bronze.kafka.properties import client_config_error
from bronze.offsets import Bounds
from bronze.runtime.session import DROPS_FETCHED

_PART_RECORDS = 5_000


def read_topic(client: KafkaClient, config: IngestConfig) -> DataFrame:
    """Return the topic as a stream of Kafka records, without those of aborted transactions.

    Raises:
        ConfigError: Spark does not accept one of the client properties.
    """
    options = client.build_source_options("read_committed") | {
        "subscribe": config.kafka_topic,
        "startingOffsets": config.starting_offsets or DEFAULT_STARTING_OFFSETS,
        "failOnDataLoss": str(config.fail_on_data_loss).lower(),
    }
    if config.max_offsets_per_trigger:
        options["maxOffsetsPerTrigger"] = config.max_offsets_per_trigger
    return _load(client.spark.readStream, config, options | _choose_parts(client.spark))


def _choose_parts(spark: SparkSession) -> dict[str, Any]:
    """Choose how Spark cuts the partitions of a topic, so that tasks get similar numbers of records.

    Parts of a few thousand records balance best. But Spark then reads a partition on any executor, and keeps what a
    consumer has fetched beyond its part. So they are only for a local session that drops this soon. Elsewhere a
    partition is cut only if there are more cores than partitions.
    """
    conf = spark.sparkContext.getConf()
    if conf.get("spark.master", "").startswith("local") and conf.contains(DROPS_FETCHED):
        return {"maxRecordsPerPartition": _PART_RECORDS}
    return {"minPartitions": spark.sparkContext.defaultParallelism}


def read_records(client: KafkaClient, bounds: Bounds, isolation: str, **others: str) -> DataFrame:
    """Return the records within the bounds, lazily, with the columns of Spark's source.

    Args:
        client: Client of the topic.
        bounds: Offsets to read; partitions without bounds are not read.
        isolation: read_committed or read_uncommitted.
        others: Further options of Spark's source.

    Raises:
        ConfigError: Spark does not accept one of the client properties.
    """
    config = client.config
    starts, ends = ({str(p): span[side] for p, span in bounds.items()} for side in (0, 1))
    options = {
        **client.build_source_options(isolation),
        "assign": json.dumps({config.kafka_topic: list(bounds)}),
        "startingOffsets": json.dumps({config.kafka_topic: starts}),
        "endingOffsets": json.dumps({config.kafka_topic: ends}),
        **others,
    }
    return _load(client.spark.read, config, options)


def _load(reader: DataFrameReader | DataStreamReader, config: KafkaConfig, options: dict[str, Any]) -> DataFrame:
    try:
        return reader.format("kafka").options(**options).load()
    except IllegalArgumentException as error:
        raise client_config_error(config, " ".join(str(error).split())) from None
