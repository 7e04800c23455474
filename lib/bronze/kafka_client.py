"""The client that Kafka is asked with: Java's own, on Spark's class path. It is asked again until it answers."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.config import KafkaConfig
from bronze.errors import JarsMissing
from bronze.jars import get_spark_packages
from bronze.kafka_errors import InvalidKafkaConfig, KafkaLost, KafkaUnavailable, UnknownTopic
from bronze.kafka_options import read_client_properties
from bronze.kafka_reasons import hide_values

log = logging.getLogger(__name__)
_ATTEMPT_MS = 5_000
_MAX_PAUSE = 8.0  # seconds
_NO_TOPIC = ("UnknownTopicOrPartitionException", "InvalidTopicException")
_REFUSALS = ("AuthenticationException", "AuthorizationException", "ConfigException")
Answer = TypeVar("Answer")


@contextmanager
def open_admin(spark: SparkSession, config: KafkaConfig) -> Iterator[Any]:
    """A client of its own to ask Kafka with; it is closed when the block ends."""
    admin = _create_admin(spark._jvm, config, read_client_properties(spark, config))
    try:
        yield admin
    finally:
        admin.close(spark._jvm.java.time.Duration.ofSeconds(1))  # type: ignore[union-attr]


def _create_admin(jvm: Any, config: KafkaConfig, given: dict[str, str]) -> Any:
    properties, bytes_reader = jvm.java.util.Properties(), "org.apache.kafka.common.serialization.ByteArrayDeserializer"
    for key, value in given.items():
        properties.setProperty(key, value)
    # One try lasts no longer than the whole; without these a try lasts a minute.
    attempt = str(min(_ATTEMPT_MS, config.startup_timeout * 1000))
    own = {"default.api.timeout.ms": attempt, "request.timeout.ms": attempt}
    try:
        # The executors' consumers take properties that the client here does not look at.
        jvm.org.apache.kafka.clients.consumer.ConsumerConfig(
            {"key.deserializer": bytes_reader, "value.deserializer": bytes_reader, **given}
        )
        for key, value in own.items():
            properties.setProperty(key, value)
        return jvm.org.apache.kafka.clients.admin.AdminClient.create(properties)
    except TypeError:  # py4j takes a class that is not there for a package
        raise JarsMissing(get_spark_packages()) from None
    except Py4JJavaError as error:
        reason = hide_values(read_reason(error), {n: v for n, v in given.items() if n != "bootstrap.servers"})
    raise InvalidKafkaConfig(config.kafka_brokers, reason)  # outside, so that Java's error is not even its context


def ask(config: KafkaConfig, question: Callable[[], Answer], patience: float | None = None) -> Answer:
    """Ask again until Kafka answers, unless waiting would not cure it.

    Raises:
        KafkaUnavailable: It did not answer at a start, within ``startup_timeout`` seconds.
        KafkaLost: It did not answer a running query, within the seconds of its ``patience``.
    """
    seconds = config.startup_timeout if patience is None else patience
    started, pause = time.monotonic(), 1.0
    while True:
        try:
            return question()
        except Py4JJavaError as error:
            reason = read_reason(error)
            if reason.startswith("Interrupt"):  # the query is being stopped
                raise
            _raise_if_final(config, reason)
            waited = time.monotonic() - started
            if waited >= seconds:
                if patience is not None:
                    raise KafkaLost(reason) from None
                raise KafkaUnavailable(config.kafka_brokers, seconds, reason) from None
            log.warning("Kafka at %s does not answer, waited %d s: %s", config.kafka_brokers, waited, reason)
            time.sleep(min(pause, seconds - waited))  # some errors come at once
            pause = min(2 * pause, _MAX_PAUSE)


def _raise_if_final(config: KafkaConfig, reason: str) -> None:
    """What waiting does not cure."""
    if is_final(reason):
        if reason.startswith(_NO_TOPIC):
            raise UnknownTopic(config.kafka_topic, config.kafka_brokers) from None
        raise InvalidKafkaConfig(config.kafka_brokers, reason) from None


def is_final(reason: str) -> bool:
    """Whether Kafka, or its client, has given an answer that waiting does not change."""
    return reason.startswith(_NO_TOPIC) or reason.partition(":")[0].endswith(_REFUSALS)


def read_reason(error: Py4JJavaError) -> str:
    """The innermost cause as ``Class: message``."""
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    return f"{cause.getClass().getSimpleName()}: {cause.getMessage()}"
