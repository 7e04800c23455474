"""What is asked of Kafka beside its records: does it answer, what is the topic, which offsets does it hold.

Through the Java client on Spark's own class path, with the same client properties that Spark's source gets: so
security settings mean the same to both, and what is checked at the start is what will be used.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.config import IngestConfig, KafkaConfig
from bronze.errors import ConfigError, to_flag
from bronze.kafka.client import ask, open_admin, read_reason
from bronze.offsets import PlannedOffsets
from bronze.parsing import parse_starting_offsets

log = logging.getLogger(__name__)
_NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # Uuid.ZERO_UUID: what old brokers answer


@dataclass(frozen=True)
class Topic:
    """A topic as Kafka knows it; the id is another when a topic of the same name is made anew, empty where unknown."""

    name: str
    topic_id: str
    partitions: tuple[int, ...]


def describe_topic(spark: SparkSession, config: KafkaConfig) -> Topic:
    """Look the topic up, waiting for the broker up to ``startup_timeout`` seconds.

    Raises:
        ConfigError: The Kafka client is not on the class path. A broker's name cannot be resolved, or the client
            refuses its properties.
        BronzeError: No broker answered in time.
        UnknownTopicError: Kafka has no such topic.
    """
    with open_admin(spark, config) as admin:
        return ask(config, lambda: _describe_once(spark, admin, config))


def list_offsets(
    spark: SparkSession, config: KafkaConfig, topic: Topic, patience: float | None = None
) -> PlannedOffsets:
    """What Kafka holds now: the earliest offset and the end (exclusive; open transactions are beyond it).

    Raises:
        BronzeError: Kafka does not answer at a start. It does not answer a running query, within the seconds of its
            ``patience``.
    """
    spec = _jvm(spark).org.apache.kafka.clients.admin.OffsetSpec
    with open_admin(spark, config) as admin:
        earliest = _list_once(spark, config, admin, topic, spec.earliest(), patience)
        latest = _list_once(spark, config, admin, topic, spec.latest(), patience)
    return {partition: (earliest[partition], latest[partition]) for partition in topic.partitions}


def read_topic_settings(spark: SparkSession, config: KafkaConfig) -> dict[str, str]:
    """The topic's settings, such as ``retention.ms``; empty where Kafka does not tell this client."""
    jvm = _jvm(spark)
    kind = jvm.org.apache.kafka.common.config.ConfigResource.Type.TOPIC
    resource = jvm.org.apache.kafka.common.config.ConfigResource(kind, config.kafka_topic)
    with open_admin(spark, config) as admin:
        try:
            found = admin.describeConfigs(jvm.java.util.Collections.singletonList(resource)).all().get()
        except Py4JJavaError as error:
            log.warning("Warning: Kafka does not tell the settings of %s: %s", config.kafka_topic, read_reason(error))
            return {}
        return {entry.name(): entry.value() for entry in found.get(resource).entries().iterator()}


def _list_once(
    spark: SparkSession, config: KafkaConfig, admin: Any, topic: Topic, spec: Any, patience: float | None = None
) -> dict[int, int]:
    found = look_up(spark, config, admin, topic, spec, patience)
    return {partition: info.offset() for partition, info in found.items()}


def look_up(
    spark: SparkSession, config: KafkaConfig, admin: Any, topic: Topic, spec: Any, patience: float | None = None
) -> dict[int, Any]:
    """Offset and timestamp of one record of each partition, by a Java ``OffsetSpec``; read committed."""
    jvm = _jvm(spark)
    asked = {p: jvm.org.apache.kafka.common.TopicPartition(topic.name, p) for p in topic.partitions}
    request = jvm.java.util.HashMap()
    for topic_partition in asked.values():
        request.put(topic_partition, spec)
    committed = jvm.org.apache.kafka.common.IsolationLevel.READ_COMMITTED
    options = jvm.org.apache.kafka.clients.admin.ListOffsetsOptions(committed)
    found = ask(config, lambda: admin.listOffsets(request, options).all().get(), patience)
    return {partition: found.get(topic_partition) for partition, topic_partition in asked.items()}


def check_starting_offsets(config: IngestConfig, topic: Topic, held: PlannedOffsets) -> None:
    """Refuse JSON offsets that do not name the topic's partitions, all of them, with offsets that Kafka holds.

    Raises:
        ConfigError: Some are not named. Some named ones do not exist. Kafka has deleted them, or not reached them.
    """
    offsets = parse_starting_offsets(config.starting_offsets, topic.name)
    if offsets is None:
        return
    if missing := sorted(set(topic.partitions) - set(offsets)):
        raise ConfigError(
            f"--starting-offsets must name every partition of {topic.name}; missing: {', '.join(map(str, missing))} "
            "(-2 is the earliest offset, -1 the latest)"
        )
    if unknown := sorted(set(offsets) - set(topic.partitions)):
        raise unknown_partitions_error("starting_offsets", topic.name, unknown)
    outside = [
        f"offset {offset} of partition {p} (it holds {held[p][0]} to {held[p][1] - 1})"
        for p, offset in sorted(offsets.items())
        if offset >= 0 and not held[p][0] <= offset <= held[p][1]
    ]
    if outside:
        raise ConfigError(f"--starting-offsets: {topic.name} does not hold {'; '.join(outside)}")


def unknown_partitions_error(name: str, topic: str, unknown: Sequence[int]) -> ConfigError:
    """For JSON offsets that name partitions which the topic does not have."""
    return ConfigError(f"{to_flag(name)} names partitions that {topic} does not have: {', '.join(map(str, unknown))}")


def recreated_topic_error(topic: str, path: str, known: str, found: str) -> ConfigError:
    """For a topic that was deleted and recreated since the table was made for it: its offsets mean other records."""
    return ConfigError(
        f"topic {topic} was deleted and recreated since {path} was made (topic id {found}, the table has {known}); "
        "its offsets mean other records now.",
        hint="Give new --output-path, --dlq-path and --checkpoint-path.",
    )


def _jvm(spark: SparkSession) -> Any:
    return spark._jvm


def request_topic(spark: SparkSession, admin: Any, config: KafkaConfig) -> Any:
    """Ask what the topic is; a future of Kafka's client."""
    names = _jvm(spark).java.util.Collections.singletonList(config.kafka_topic)
    return admin.describeTopics(names).allTopicNames()


def _describe_once(spark: SparkSession, admin: Any, config: KafkaConfig) -> Topic:
    found = request_topic(spark, admin, config).get().get(config.kafka_topic)
    partitions = sorted(info.partition() for info in found.partitions())
    return Topic(config.kafka_topic, read_topic_id(found.topicId().toString(), config), tuple(partitions))


def read_topic_id(text: str, config: KafkaConfig) -> str:
    """The topic's id as Kafka prints it; empty, with a warning, where the broker has none."""
    if text != _NO_TOPIC_ID:
        return text
    log.warning(
        "Warning: Kafka at %s has no topic ids; if %s is deleted and recreated, that cannot be noticed",
        config.kafka_brokers,
        config.kafka_topic,
    )
    return ""
