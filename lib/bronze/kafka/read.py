"""The records of a topic, read once and not as a stream."""

import json

from pyspark.errors import IllegalArgumentException
from pyspark.sql import DataFrame

from bronze.kafka.client import KafkaClient, client_config_error
from bronze.offsets import Bounds


def read_records(client: KafkaClient, bounds: Bounds, isolation: str, **others: str) -> DataFrame:
    """The records within the bounds, with the columns of Spark's source; nothing is read yet.

    Args:
        client: Knows the topic.
        bounds: What to read; of partitions that are not named, nothing.
        isolation: read_committed or read_uncommitted.
        others: More options of Spark's source.

    Raises:
        InvalidKafkaConfig: Spark does not take one of the client properties.
    """
    config, spark = client.config, client.spark
    starts, ends = ({str(p): span[side] for p, span in bounds.items()} for side in (0, 1))
    options = {
        **client.build_source_options(isolation),
        "assign": json.dumps({config.kafka_topic: list(bounds)}),
        "startingOffsets": json.dumps({config.kafka_topic: starts}),
        "endingOffsets": json.dumps({config.kafka_topic: ends}),
        **others,
    }
    try:
        return spark.read.format("kafka").options(**options).load()
    except IllegalArgumentException as error:
        raise client_config_error(config, " ".join(str(error).split())) from None
