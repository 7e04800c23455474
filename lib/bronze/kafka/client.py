"""The client that Kafka is asked with: Java's own, on Spark's class path. It is asked again until it answers."""

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from py4j.protocol import Py4JJavaError
from pyspark.errors import IllegalArgumentException
from pyspark.sql import SparkSession

from bronze.config import KafkaConfig
from bronze.errors import BronzeError, ConfigError, UnknownTopicError
from bronze.parsing import read_properties_text
from bronze.runtime.jars import missing_jars_error
from bronze.runtime.spark_errors import lost_kafka_error

log = logging.getLogger(__name__)
_ATTEMPT_MS = 5_000
_MAX_PAUSE = 8.0  # seconds
_NO_TOPIC = ("UnknownTopicOrPartitionException", "InvalidTopicException")
_REFUSALS = ("AuthenticationException", "AuthorizationException", "ConfigException")
Answer = TypeVar("Answer")


class KafkaClient:
    """Asks Kafka about one topic: one admin client of Java's for a whole run, and the client properties read once.

    Java's client finds the brokers again after an outage. It can be used from several threads.
    """

    def __init__(self, spark: SparkSession, config: KafkaConfig):
        """
        Args:
            spark: Session, whose class path has Kafka's client.
            config: Where Kafka is.

        Raises:
            ConfigError: The Kafka client is not on the class path. A broker's name cannot be resolved, or the client
                refuses its properties.
        """
        self.spark, self.config = spark, config
        self.jvm: Any = spark._jvm
        self.properties = read_client_properties(spark, config)  # may hold secrets: never log them
        self.admin = _create_admin(self.jvm, config, self.properties)

    def close(self) -> None:
        """Close the admin client."""
        self.admin.close(self.jvm.java.time.Duration.ofSeconds(1))

    def call_with_retry(self, question: Callable[[Any], Answer], timeout: float | None = None) -> Answer:
        """Ask with the admin client again and again until Kafka answers, unless waiting would not cure it.

        Args:
            question: Takes the admin client.
            timeout: Seconds that a running query waits; at a start, where it is not given, ``startup_timeout``.

        Raises:
            BronzeError: Kafka did not answer at a start. It did not answer a running query.
            UnknownTopicError: Kafka has no such topic.
            ConfigError: Kafka refuses the client.
        """
        brokers, seconds = self.config.kafka_brokers, self.config.startup_timeout if timeout is None else timeout
        started, pause = time.monotonic(), 1.0
        while True:
            try:
                return question(self.admin)
            except Py4JJavaError as error:
                reason = read_reason(error)
                if reason.startswith("Interrupt"):  # the query is being stopped
                    raise
                self._raise_if_final(reason)
                waited = time.monotonic() - started
                if waited >= seconds:
                    if timeout is not None:
                        raise lost_kafka_error(reason) from None
                    raise no_answer_error(self.config, seconds, reason) from None
                log.warning("Kafka at %s does not answer, waited %d s: %s", brokers, waited, reason)
                time.sleep(min(pause, seconds - waited))  # some errors come at once
                pause = min(2 * pause, _MAX_PAUSE)

    def _raise_if_final(self, reason: str) -> None:
        """What waiting does not cure."""
        if is_final(reason):
            if reason.startswith(_NO_TOPIC):
                raise UnknownTopicError(
                    f"Kafka at {self.config.kafka_brokers} has no topic {self.config.kafka_topic!r}",
                    hint="create it, or correct --kafka-topic",
                ) from None
            raise client_config_error(self.config, reason) from None

    def build_source_options(self, isolation: str) -> dict[str, Any]:
        """The client properties as options of Spark's Kafka source; where a range ends, no partition waits for more.

        Kafka's default is to wait half a second: 16 partitions with 30 records each took 2.4 s, and 0.5 s this way.
        """
        options = {f"kafka.{key}": value for key, value in {"fetch.max.wait.ms": "20", **self.properties}.items()}
        return {**options, "kafka.isolation.level": isolation}


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
        raise missing_jars_error() from None
    except Py4JJavaError as error:
        reason = hide_values(read_reason(error), {n: v for n, v in given.items() if n != "bootstrap.servers"})
    raise client_config_error(config, reason)  # outside, so that Java's error is not even its context


def is_final(reason: str) -> bool:
    """Whether Kafka, or its client, has given an answer that waiting does not change."""
    return reason.startswith(_NO_TOPIC) or reason.partition(":")[0].endswith(_REFUSALS)


def read_reason(error: Py4JJavaError) -> str:
    """The innermost cause as ``Class: message``."""
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    return f"{cause.getClass().getSimpleName()}: {cause.getMessage()}"


def read_client_properties(spark: SparkSession, config: KafkaConfig) -> dict[str, str]:
    """Kafka client properties: those of the file, and the brokers. Names and values may be secrets: never log them.

    Raises:
        ConfigError: The file is no properties file.
    """
    properties = _load_file(spark, config) if config.kafka_config else {}
    return {**properties, "bootstrap.servers": config.kafka_brokers}


def _load_file(spark: SparkSession, config: KafkaConfig) -> dict[str, str]:
    jvm: Any = spark._jvm
    loaded, problem = jvm.java.util.Properties(), ""
    try:
        loaded.load(jvm.java.io.StringReader(read_properties_text(config.kafka_config)))
    except UnicodeError:
        problem = "is not in UTF-8"
    except IllegalArgumentException:
        problem = "has an escape \\u without four hexadecimal digits; a backslash of a value is written twice"
    properties = {str(key): str(loaded.getProperty(key)) for key in loaded.stringPropertyNames()}
    if not problem and (stray := find_stray_names(properties)):
        problem = (
            f"has lines that are no properties, {len(stray)} of them (not shown, because they may be secrets); a value "
            "goes on in the next line only after a backslash"
        )
    if problem:
        raise client_config_error(config, f"{config.kafka_config} {problem}")
    return properties


# Values that are no secrets, and that messages have for other reasons.
_PLAIN = {"true", "false", "plaintext", "sasl_plaintext", "sasl_ssl", "gssapi", "oauthbearer", "https", "none", "kafka"}
_SHORTEST = 3  # shorter parts of a value are in any text
_INVALID_VALUE = re.compile(r"Invalid value (?P<value>.*) for configuration (?P<name>[\w.-]+)(?P<why>.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z][\w-]*(\.[\w-]+)+|acks|retries", re.ASCII)
_LONGEST_NAME = 100


def find_stray_names(properties: Mapping[str, str]) -> list[str]:
    """Names that no property has: lines of a value that was broken without a backslash. Never show them."""
    return [name for name in properties if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME]


def hide_values(reason: str, properties: Mapping[str, str]) -> str:
    """A reason of Kafka's client, with names of properties in the place of their values.

    Where it may quote a part of a value, it is left out, and the property is named: JAAS quotes words of a password.

    Args:
        reason: As ``Class: message``.
        properties: Those of the user's file.
    """
    kind, _, message = reason.partition(": ")
    if invalid := _INVALID_VALUE.search(message):
        why = invalid["why"].replace(invalid["value"], "…") if invalid["value"] else invalid["why"]
        message = f"it does not take the value of {invalid['name']}{why}"
    values = {n: v for n, v in properties.items() if len(v) >= _SHORTEST and v.lower() not in _PLAIN}
    for name, value in values.items():
        message = re.sub(rf"(?<![\w.-]){re.escape(value)}(?![\w-])", f"<{name}>", message)
    words = {word for word in re.split(r"[\s'\"`()<>\[\],;:=]+", message) if len(word) >= _SHORTEST} - set(properties)
    quoted = [name for name, value in values.items() if any(word in value or value in word for word in words)]
    if not invalid:  # a provider's value is known to Kafka alone
        quoted += [name for name, value in values.items() if "${" in value and name not in quoted]
    if "JAAS" in message:
        quoted = ["sasl.jaas.config"]
    if quoted:
        return f"{kind}, about {', '.join(sorted(quoted))} (what it says is not shown, because it may quote a secret)"
    return f"{kind}: {message}"


def client_config_error(config: KafkaConfig, reason: str) -> ConfigError:
    """For a Kafka client that refuses its configuration, a broker's name or its credentials."""
    return ConfigError(
        f"cannot read from Kafka at {config.kafka_brokers}: {reason}", hint="check --kafka-brokers and --kafka-config"
    )


def no_answer_error(config: KafkaConfig, seconds: float, reason: str) -> BronzeError:
    """For a Kafka that does not answer at a start."""
    return BronzeError(
        f"Kafka at {config.kafka_brokers} did not answer within {seconds:g} s (--startup-timeout): {reason}",
        hint="start the broker or correct --kafka-brokers, then run the same command again",
    )
