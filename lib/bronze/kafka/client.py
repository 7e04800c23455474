"""The Kafka client: Java's own, from Spark's class path, with retries until Kafka answers."""

import logging
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from py4j.protocol import Py4JError, Py4JJavaError
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

# For the consumers of Spark's source. They wait 20 ms at the end of a range: with Kafka's half second, 16 partitions
# with 30 records each took 2.4 s instead of 0.5 s. Spark asks Kafka for the available offsets at each poll, so a read
# with fewer and larger polls takes 0.8 of the time. Spark keeps the last poll of each partition in the heap.
_CONSUMER = {"fetch.max.wait.ms": "20", "max.poll.records": "1000", "max.partition.fetch.bytes": str(2 * 1024 * 1024)}


class KafkaClient:
    """One Java admin client for a whole run and one topic; reads the client properties once.

    Java's client reconnects after an outage of the brokers, and is thread-safe.
    """

    def __init__(self, spark: SparkSession, config: KafkaConfig):
        """
        Args:
            spark: Session with Kafka's client on its class path.
            config: Address of Kafka.

        Raises:
            ConfigError: The Kafka client is not on the class path. A broker's name cannot be resolved, or the client
                refuses its properties.
        """
        self.spark, self.config = spark, config
        self.jvm: Any = spark._jvm
        self.properties = read_client_properties(spark, config)  # may hold secrets: never log them
        self._is_closed = False
        self.admin = _create_admin(self.jvm, config, self.properties)

    def close(self) -> None:
        """Close the admin client; a JVM that is shutting down may refuse this. Closing it twice does no harm."""
        if not self._is_closed:
            self._is_closed = True
            with suppress(Py4JError):
                self.admin.close(self.jvm.java.time.Duration.ofSeconds(1))

    def call_with_retry(self, question: Callable[[Any], Answer], timeout: float | None = None) -> Answer:
        """Call the admin client until Kafka answers; errors that waiting cannot fix are raised immediately.

        Args:
            question: Takes the admin client.
            timeout: Seconds that a running query waits; None at a start, which waits for ``startup_timeout``.

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
                time.sleep(min(pause, seconds - waited))  # some errors return at once
                pause = min(2 * pause, _MAX_PAUSE)

    def _raise_if_final(self, reason: str) -> None:
        """Raise an error that waiting cannot fix."""
        if is_final(reason):
            if reason.startswith(_NO_TOPIC):
                raise UnknownTopicError(
                    f"Kafka at {self.config.kafka_brokers} has no topic {self.config.kafka_topic!r}",
                    hint="create it, or correct --kafka-topic",
                ) from None
            raise client_config_error(self.config, reason) from None

    def build_source_options(self, isolation: str) -> dict[str, Any]:
        """Return the client properties as options of Spark's Kafka source, with our defaults of the consumer."""
        options = {f"kafka.{key}": value for key, value in {**_CONSUMER, **self.properties}.items()}
        return {**options, "kafka.isolation.level": isolation}


def _create_admin(jvm: Any, config: KafkaConfig, given: dict[str, str]) -> Any:
    properties, bytes_reader = jvm.java.util.Properties(), "org.apache.kafka.common.serialization.ByteArrayDeserializer"
    for key, value in given.items():
        properties.setProperty(key, value)
    # One attempt may take as long as all attempts together; the default is a minute.
    attempt = str(min(_ATTEMPT_MS, config.startup_timeout * 1000))
    own = {"default.api.timeout.ms": attempt, "request.timeout.ms": attempt}
    try:
        # The executors' consumers use properties that the admin client does not check.
        jvm.org.apache.kafka.clients.consumer.ConsumerConfig(
            {"key.deserializer": bytes_reader, "value.deserializer": bytes_reader, **given}
        )
        for key, value in own.items():
            properties.setProperty(key, value)
        return jvm.org.apache.kafka.clients.admin.AdminClient.create(properties)
    except TypeError:  # py4j treats a missing class as a package
        raise missing_jars_error() from None
    except Py4JJavaError as error:
        reason = hide_values(read_reason(error), {n: v for n, v in given.items() if n != "bootstrap.servers"})
    raise client_config_error(config, reason)  # outside the except block, so that Java's error is not its context


def is_final(reason: str) -> bool:
    """Whether this answer of Kafka or its client stays the same, however long one waits."""
    return reason.startswith(_NO_TOPIC) or reason.partition(":")[0].endswith(_REFUSALS)


def read_reason(error: Py4JJavaError) -> str:
    """Return the innermost cause as ``Class: message``."""
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    return f"{cause.getClass().getSimpleName()}: {cause.getMessage()}"


def read_client_properties(spark: SparkSession, config: KafkaConfig) -> dict[str, str]:
    """Return the client properties: the file's, and the brokers. Names and values may be secrets: never log them.

    Raises:
        ConfigError: The file is not a properties file.
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
            f"has {len(stray)} lines that are not properties (not shown, because they may be secrets); a value "
            "continues on the next line only after a backslash"
        )
    if problem:
        raise client_config_error(config, f"{config.kafka_config} {problem}")
    return properties


# Values that are not secret, and that occur in messages for other reasons.
_PLAIN = {"true", "false", "plaintext", "sasl_plaintext", "sasl_ssl", "gssapi", "oauthbearer", "https", "none", "kafka"}
_SHORTEST = 3  # shorter parts of a value may occur in any text
_INVALID_VALUE = re.compile(r"Invalid value (?P<value>.*) for configuration (?P<name>[\w.-]+)(?P<why>.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z][\w-]*(\.[\w-]+)+|acks|retries", re.ASCII)
_LONGEST_NAME = 100


def find_stray_names(properties: Mapping[str, str]) -> list[str]:
    """Return names that no property can have: continued lines of a value without a backslash. Never log them."""
    return [name for name in properties if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME]


def hide_values(reason: str, properties: Mapping[str, str]) -> str:
    """Replace the values of properties by their names in a reason of Kafka's client.

    A message that may quote a part of a value is replaced by the property's name, because JAAS quotes parts of a
    password.

    Args:
        reason: The reason as ``Class: message``.
        properties: Properties of the user's file.
    """
    kind, _, message = reason.partition(": ")
    if invalid := _INVALID_VALUE.search(message):
        why = invalid["why"].replace(invalid["value"], "…") if invalid["value"] else invalid["why"]
        message = f"it does not accept the value of {invalid['name']}{why}"
    values = {n: v for n, v in properties.items() if len(v) >= _SHORTEST and v.lower() not in _PLAIN}
    for name, value in values.items():
        message = re.sub(rf"(?<![\w.-]){re.escape(value)}(?![\w-])", f"<{name}>", message)
    words = {word for word in re.split(r"[\s'\"`()<>\[\],;:=]+", message) if len(word) >= _SHORTEST} - set(properties)
    quoted = [name for name, value in values.items() if any(word in value or value in word for word in words)]
    if not invalid:  # only Kafka knows the value that a config provider returns
        quoted += [name for name, value in values.items() if "${" in value and name not in quoted]
    if "JAAS" in message:
        quoted = ["sasl.jaas.config"]
    if quoted:
        return f"{kind}, about {', '.join(sorted(quoted))} (message not shown, because it may quote a secret)"
    return f"{kind}: {message}"


def client_config_error(config: KafkaConfig, reason: str) -> ConfigError:
    """Make the error for a Kafka client that refuses its configuration, a broker's name or its credentials."""
    return ConfigError(
        f"cannot read from Kafka at {config.kafka_brokers}: {reason}", hint="check --kafka-brokers and --kafka-config"
    )


def no_answer_error(config: KafkaConfig, seconds: float, reason: str) -> BronzeError:
    """Make the error for brokers that do not answer at a start."""
    return BronzeError(
        f"Kafka at {config.kafka_brokers} did not answer within {seconds:g} s (--startup-timeout): {reason}",
        hint="start the broker or correct --kafka-brokers, then run the same command again",
    )
