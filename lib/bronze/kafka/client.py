"""The Kafka client: Java's own, from Spark's class path, with retries until Kafka answers."""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from time import monotonic, sleep
from typing import Any, TypeVar

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.sql import SparkSession

from bronze.config import KafkaConfig
from bronze.errors import BronzeError, ConfigError, TransientError, UnknownTopicError
from bronze.kafka.advertised import find_unreachable
from bronze.kafka.probe import find_failure, find_mismatch
from bronze.kafka.properties import client_config_error, hide_values, read_client_properties
from bronze.runtime.jars import missing_jars_error
from bronze.runtime.kafka_faults import (
    RENEW,
    TRUST,
    Fault,
    find_fault,
    find_unfit_login,
    read_causes,
    refused_again_error,
    show,
)
from bronze.runtime.paths import find_class
from bronze.runtime.spark_errors import lost_kafka_error

log = logging.getLogger(__name__)
_ATTEMPT_MS = 5_000
_MAX_PAUSE = 8.0  # seconds
# An answer of a broker that is restarting may be wrong. The client itself asks again within this time.
_CONFIRM_PAUSE = 0.8  # seconds
_NO_TOPIC = ("UnknownTopicOrPartitionException", "InvalidTopicException")
_NO_TOKEN = "retrieving token from callback handler"
_BROKERS = "bootstrap.servers"
_REFUSALS = ("AuthorizationException", "ConfigException")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Failure:
    """An attempt without an answer; ``error`` is None if waiting may help.

    Attributes:
        is_advertised: Whether an address that the brokers advertise is the reason.
    """

    reason: str
    error: BronzeError | None
    is_advertised: bool = False


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
        """
        self.spark, self.config = spark, config
        self.properties = read_client_properties(spark, config)  # may hold secrets: never log them
        self._is_closed = self._has_answered = self._has_failed = False

    @cached_property
    def admin(self) -> Any:
        """Java's client, which logs in when it is created; create it within ``call_with_retry``."""
        return _create_admin(self.spark, self.config, self.properties)

    def close(self) -> None:
        """Close the admin client; a JVM that is shutting down may refuse this. Closing it twice does no harm."""
        if not self._is_closed and "admin" in vars(self):
            self._is_closed = True
            with suppress(Py4JError):
                self.admin.close(find_class(self.spark, "java.time.Duration").ofSeconds(1))

    def call_with_retry(self, question: Callable[[], Answer], timeout: float | None = None) -> Answer:
        """Ask until Kafka answers; an error that waiting cannot fix is raised when it comes twice, or at the end.

        Args:
            question: Calls the admin client.
            timeout: Seconds that a running query waits; None at a start, which waits for ``startup_timeout``.

        Raises:
            BronzeError: Kafka did not answer at a start. It did not answer a running query. It has answered before, and
                now refuses the client.
            UnknownTopicError: Kafka has no such topic.
            ConfigError: Kafka refuses the client, or the client its properties, or it is not on the class path.
        """
        brokers, seconds = self.config.kafka_brokers, self.config.startup_timeout if timeout is None else timeout
        started, pause, previous = monotonic(), 1.0, ""
        while True:
            answer = self._try(question)
            if not isinstance(answer, _Failure):
                return answer
            waited = monotonic() - started
            if answer.error and not isinstance(answer.error, TransientError):
                if str(answer.error) == previous or waited >= seconds:
                    raise answer.error
                previous = str(answer.error)
                sleep(_CONFIRM_PAUSE)
                continue
            if waited >= seconds:
                if answer.error:
                    raise answer.error
                if timeout is not None:
                    raise lost_kafka_error(answer.reason)
                raise no_answer_error(self.config, seconds, answer.reason, answer.is_advertised)
            log.warning("Kafka at %s does not answer, waited %d s: %s", brokers, waited, answer.reason)
            sleep(min(pause, seconds - waited))  # some errors return at once
            pause = min(2 * pause, _MAX_PAUSE)

    def _try(self, question: Callable[[], Answer]) -> "Answer | _Failure":
        """Ask once; before its first answer, check that the port speaks the client's protocol."""
        try:
            _ = self.admin  # its creation checks the properties, and logs in
            if not self._has_answered and (fault := find_mismatch(self.properties, self._has_failed)):
                return _Failure(fault.problem, fault_error(self.config, fault))
            answer = question()
        except BronzeError as error:
            return _Failure(str(error), error)
        except Py4JJavaError as error:
            causes = read_causes(error.java_exception)
            if causes[-1].startswith("Interrupt"):  # the query is being stopped
                raise
            final, self._has_failed = self._explain(causes), True
            advertised = "" if final or self._has_answered else find_unreachable(self.admin)
            return _Failure(advertised or causes[-1], final, advertised != "")
        self._has_answered = True
        return answer

    def _explain(self, causes: list[str]) -> BronzeError | None:
        """Build the error for an answer that stays the same, however long one waits; None if it may change."""
        config = self.config
        if causes[-1].startswith(_NO_TOPIC):
            return UnknownTopicError(
                f"Kafka at {config.kafka_brokers} has no topic {config.kafka_topic!r}",
                hint="create it, or correct --kafka-topic",
            )
        fault = find_fault(causes, self.properties)
        if fault and fault.alert:
            fault = _add_validity(fault, self.spark, self.properties)
        if fault and self._has_answered:
            return refused_again_error(fault)
        if any(cause.startswith("TopicAuthorizationException") for cause in causes):
            return missing_right_error(config, "DESCRIBE")
        if fault:
            return fault_error(config, fault)
        return client_config_error(config, causes[-1]) if is_final(causes) else None

    def build_source_options(self, isolation: str) -> dict[str, Any]:
        """Return the client properties as options of Spark's Kafka source, with our defaults of the consumer."""
        options = {f"kafka.{key}": value for key, value in {**_CONSUMER, **self.properties}.items()}
        return {**options, "kafka.isolation.level": isolation}


def _create_admin(spark: SparkSession, config: KafkaConfig, given: dict[str, str]) -> Any:
    if unfit := find_unfit_login(given):
        raise fault_error(config, unfit)
    properties = find_class(spark, "java.util.Properties")()
    bytes_reader = "org.apache.kafka.common.serialization.ByteArrayDeserializer"
    # One attempt may take as long as all attempts together; the default is a minute.
    attempt = str(min(_ATTEMPT_MS, config.startup_timeout * 1000))
    own = {"default.api.timeout.ms": attempt, "request.timeout.ms": attempt}
    try:
        # The executors' consumers use properties that the admin client does not check.
        find_class(spark, "org.apache.kafka.clients.consumer.ConsumerConfig")(
            {"key.deserializer": bytes_reader, "value.deserializer": bytes_reader, **given}
        )
        for key, value in {**given, **own}.items():
            properties.setProperty(key, value)
        return find_class(spark, "org.apache.kafka.clients.admin.AdminClient").create(properties)
    except TypeError:  # py4j treats a missing class as a package
        raise missing_jars_error() from None
    except Py4JJavaError as error:
        causes = read_causes(error.java_exception)
    fault = find_fault(causes, given)  # outside the except block, so that Java's error is not the context of ours
    provider = given.get("sasl.oauthbearer.token.endpoint.url", "")
    if fault and provider and _NO_TOKEN in str(causes) and (failure := find_failure(provider)):
        raise TransientError(
            f"the identity provider ({show('endpoint', given) or 'URL not shown'}) {failure}",
            hint="run the same command again once it answers, or correct sasl.oauthbearer.token.endpoint.url in the "
            "--kafka-config file",
        )
    if fault:
        raise fault_error(config, fault)
    raise client_config_error(config, hide_values(causes[-1], {n: v for n, v in given.items() if n != _BROKERS}))


def _add_validity(fault: Fault, spark: SparkSession, properties: dict[str, str]) -> Fault:
    """Add until when the certificate of ``ssl.keystore.location`` is valid, and keep the cure that follows from it."""
    with suppress(Py4JError, TypeError, ValueError):
        engine = "org.apache.kafka.common.security.ssl.DefaultSslEngineFactory"  # reads each type of file
        factory = find_class(spark, engine)()
        factory.configure(find_class(spark, "org.apache.kafka.clients.admin.AdminClientConfig")(properties).values())
        keys = factory.keystore()
        names = filter(keys.isKeyEntry, find_class(spark, "java.util.Collections").list(keys.aliases()))
        end = min(str(keys.getCertificate(name).getNotAfter().toInstant()) for name in names)
        if end < str(find_class(spark, "java.time.Instant").now()):
            return Fault(f"{fault.problem}, which expired on {end}", RENEW)
        return Fault(f"{fault.problem}, which is valid until {end}", TRUST)
    return fault


def is_final(causes: list[str]) -> bool:
    """Whether this answer of Kafka or its client stays the same, however long one waits."""
    kinds = [cause.partition(":")[0] for cause in causes]
    return causes[-1].startswith(_NO_TOPIC) or any(kind.endswith(_REFUSALS) for kind in kinds)


def fault_error(config: KafkaConfig, fault: Fault) -> ConfigError:
    """Make the error for a fault that keeps a client from its first contact with Kafka."""
    return ConfigError(f"cannot connect to Kafka at {config.kafka_brokers}: {fault.problem}", hint=fault.cure)


def missing_right_error(config: KafkaConfig, operation: str) -> ConfigError:
    """Make the error for a user without a right on the topic."""
    other = ", or there is no such topic (Kafka gives the same answer)" if operation == "DESCRIBE" else ""
    return ConfigError(
        f"the user that connects to Kafka at {config.kafka_brokers} has no right to {operation} topic "
        f"{config.kafka_topic!r}{other}",
        hint="ask an administrator of Kafka to grant READ, which includes DESCRIBE (kafka-acls.sh --bootstrap-server "
        f"{config.kafka_brokers} --add --operation Read --topic {config.kafka_topic} --allow-principal User:NAME), or "
        "correct the user (sasl.jaas.config or ssl.keystore.location in the --kafka-config file) or --kafka-topic",
    )


def no_answer_error(config: KafkaConfig, seconds: float, reason: str, is_advertised: bool = False) -> TransientError:
    """Make the error for brokers that do not answer at a start."""
    if is_advertised:
        return TransientError(
            f"Kafka at {config.kafka_brokers} cannot be used: {reason} (tried for {seconds:g} s, --startup-timeout)",
            hint="correct the brokers' advertised.listeners, or make this machine able to resolve and reach that "
            "address, then run the same command again",
        )
    return TransientError(
        f"Kafka at {config.kafka_brokers} did not answer within {seconds:g} s (--startup-timeout): {reason}",
        hint="start the broker or correct --kafka-brokers, then run the same command again",
    )
