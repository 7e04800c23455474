"""What a running query asks Kafka again and again, over one client: does it answer, is the topic still the same?"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.config import KafkaConfig
from bronze.kafka.client import ask, client_config_error, is_final, open_admin, read_client_properties, read_reason
from bronze.kafka.topic import Topic, recreated_topic_error, request_topic

log = logging.getLogger(__name__)

# Spark asks for the offsets of a batch three times, each as long as Kafka's client waits by default.
_TRIES = 3
_CLIENT_TIMEOUT_MS = "60000"
# A broker that answers does so in milliseconds.
_LOOK_SECONDS = 10


class TopicWatch:
    """Watches one topic while a query reads it; ``path`` is the table that its records go into.

    ``patience`` is for how many seconds the query waits for Kafka.
    """

    def __init__(self, spark: SparkSession, config: KafkaConfig, admin: Any, topic: Topic, path: str):
        self._spark, self._config, self._admin, self._topic, self._path = spark, config, admin, topic, path
        self.patience = _read_patience(spark, config)
        self._answer: Any = None
        self._asked = time.monotonic()
        self._silent_since: float | None = None

    def check_topic(self) -> None:
        """Make sure that the topic is still the one it was, after a batch was read and before it is committed.

        The offsets of a topic that was deleted and recreated mean other records. An id never comes back, so as long as
        it is the same, all that was read until now came from the one topic. Waits for Kafka as long as Spark does.

        Raises:
            ConfigError: It is another.
            UnknownTopicError: It is gone.
            BronzeError: Kafka does not answer.
        """
        if self._topic.topic_id:  # old brokers have none
            found = ask(self._config, self._read_topic_id, self.patience)
            if found != self._topic.topic_id:
                raise recreated_topic_error(self._topic.name, self._path, self._topic.topic_id, found)

    def _read_topic_id(self) -> str:
        answer = request_topic(self._spark, self._admin, self._config).get()
        return str(answer.get(self._topic.name).topicId().toString())

    def look(self) -> None:
        """Say when Kafka does not answer, and when it does again; called every second, and never waits."""
        now = time.monotonic()
        if self._answer is None:
            if now - self._asked >= _LOOK_SECONDS or self._silent_since is not None:
                self._answer, self._asked = request_topic(self._spark, self._admin, self._config), now
        elif self._answer.isDone():
            self._note_answer(now)
            self._answer = None

    def _note_answer(self, now: float) -> None:
        try:
            self._answer.get()
        except Py4JJavaError as error:
            reason = read_reason(error)
            if is_final(reason):  # it answers; the next batch ends by it
                return
            self._silent_since = self._silent_since or self._asked
            waited = now - self._silent_since
            log.warning("Kafka at %s does not answer, waited %d s: %s", self._config.kafka_brokers, waited, reason)
        else:
            if self._silent_since is not None:
                waited = now - self._silent_since
                log.info("Kafka at %s answers again, after %d s", self._config.kafka_brokers, waited)
            self._silent_since = None


def _read_patience(spark: SparkSession, config: KafkaConfig) -> float:
    """Seconds that a running query waits for an answer, as long as Spark does.

    Raises:
        ConfigError: The properties file has no number for it.
    """
    given = read_client_properties(spark, config).get("default.api.timeout.ms", _CLIENT_TIMEOUT_MS).strip()
    if not given.isdecimal():
        raise client_config_error(config, "default.api.timeout.ms is no number of milliseconds")
    return _TRIES * int(given) / 1000


@contextmanager
def watch_topic(spark: SparkSession, config: KafkaConfig, topic: Topic, path: str) -> Iterator[TopicWatch]:
    """A watch that has its own client until the block ends.

    Raises:
        ConfigError: The client's properties cannot be used.
    """
    with open_admin(spark, config) as admin:
        yield TopicWatch(spark, config, admin, topic, path)
