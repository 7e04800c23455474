"""What is asked of Kafka beside its records: does it answer, what is the topic, which offsets does it hold.

Through the Java client on Spark's own class path, with the same client properties that Spark's source gets: so
security settings mean the same to both, and what is checked at the start is what will be used.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.config import IngestConfig, parse_starting_offsets
from bronze.errors import (
    InvalidKafkaConfig,
    JarsMissing,
    KafkaUnavailable,
    PartitionsMissing,
    PartitionsUnknown,
    UnknownTopic,
)
from bronze.jars import get_spark_packages

log = logging.getLogger(__name__)
_ATTEMPT_MS = 5_000


@dataclass(frozen=True)
class Topic:
    """A topic as Kafka knows it; the id is another when a topic of the same name is made anew."""

    name: str
    topic_id: str
    partitions: tuple[int, ...]


def read_client_properties(spark: SparkSession, config: IngestConfig) -> dict[str, str]:
    """Kafka client properties: those of the file, and the brokers. The values may be secrets: never log them."""
    properties: dict[str, str] = {}
    if config.kafka_config:
        jvm = _jvm(spark)
        loaded = jvm.java.util.Properties()
        reader = jvm.java.io.FileReader(config.kafka_config)
        try:
            loaded.load(reader)
        finally:
            reader.close()
        properties = {str(key): str(loaded.getProperty(key)) for key in loaded.stringPropertyNames()}
    return {**properties, "bootstrap.servers": config.kafka_brokers}


def describe_topic(spark: SparkSession, config: IngestConfig) -> Topic:
    """Look the topic up, waiting for the broker up to ``startup_timeout`` seconds.

    Raises:
        JarsMissing: The Kafka client is not on the class path.
        InvalidKafkaConfig: A broker's name cannot be resolved, or the client refuses its properties.
        KafkaUnavailable: No broker answered in time.
        UnknownTopic: Kafka has no such topic.
    """
    started = time.monotonic()
    with _open_admin(spark, config) as admin:
        while True:
            try:
                return _describe_once(spark, admin, config)
            except Py4JJavaError as error:
                reason = _read_reason(error)
                _raise_if_final(config, reason)
                waited = time.monotonic() - started
                if waited >= config.startup_timeout:
                    raise KafkaUnavailable(config.kafka_brokers, config.startup_timeout, reason) from None
                log.warning("Kafka at %s does not answer, waited %d s: %s", config.kafka_brokers, waited, reason)


def check_starting_offsets(config: IngestConfig, topic: Topic) -> None:
    """Refuse JSON offsets that do not name the topic's partitions, all of them and no others.

    Raises:
        PartitionsMissing: Some are not named.
        PartitionsUnknown: Some named ones do not exist.
    """
    offsets = parse_starting_offsets(config.starting_offsets, topic.name)
    if offsets and (missing := sorted(set(topic.partitions) - set(offsets))):
        raise PartitionsMissing("starting_offsets", topic.name, missing)
    if unknown := sorted(set(offsets) - set(topic.partitions)):
        raise PartitionsUnknown("starting_offsets", topic.name, unknown)


def _jvm(spark: SparkSession) -> Any:
    return spark._jvm


@contextmanager
def _open_admin(spark: SparkSession, config: IngestConfig) -> Iterator[Any]:
    jvm = _jvm(spark)
    try:
        properties = jvm.java.util.Properties()
        for key, value in read_client_properties(spark, config).items():
            properties.setProperty(key, value)
        # One try lasts no longer than the whole; without these a try lasts a minute.
        attempt = str(min(_ATTEMPT_MS, config.startup_timeout * 1000))
        properties.setProperty("default.api.timeout.ms", attempt)
        properties.setProperty("request.timeout.ms", attempt)
        admin = jvm.org.apache.kafka.clients.admin.AdminClient.create(properties)
    except TypeError:  # py4j takes a class that is not there for a package
        raise JarsMissing(get_spark_packages()) from None
    except Py4JJavaError as error:
        raise InvalidKafkaConfig(config.kafka_brokers, _read_reason(error)) from None
    try:
        yield admin
    finally:
        admin.close(jvm.java.time.Duration.ofSeconds(1))


def _describe_once(spark: SparkSession, admin: Any, config: IngestConfig) -> Topic:
    names = _jvm(spark).java.util.Collections.singletonList(config.kafka_topic)
    found = admin.describeTopics(names).allTopicNames().get().get(config.kafka_topic)
    partitions = sorted(info.partition() for info in found.partitions())
    return Topic(config.kafka_topic, found.topicId().toString(), tuple(partitions))


def _raise_if_final(config: IngestConfig, reason: str) -> None:
    """What waiting does not cure."""
    kind = reason.partition(":")[0]
    if kind in ("UnknownTopicOrPartitionException", "InvalidTopicException"):
        raise UnknownTopic(config.kafka_topic, config.kafka_brokers) from None
    if kind.endswith(("AuthenticationException", "AuthorizationException", "ConfigException")):
        raise InvalidKafkaConfig(config.kafka_brokers, reason) from None


def _read_reason(error: Py4JJavaError) -> str:
    """The innermost cause as ``Class: message``."""
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    return f"{cause.getClass().getSimpleName()}: {cause.getMessage()}"
