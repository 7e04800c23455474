"""Checks a running query with one client: does Kafka answer, and is the topic still the same?"""

import logging
import time
from typing import Any

from py4j.protocol import Py4JJavaError

from bronze.kafka.client import KafkaClient, is_final
from bronze.kafka.properties import client_config_error
from bronze.kafka.topic import Topic, recreated_topic_error, request_topic
from bronze.runtime.kafka_faults import find_fault, read_causes

log = logging.getLogger(__name__)

# Spark requests the offsets of a batch three times, and each time waits as long as Kafka's client does by default.
_TRIES = 3
_CLIENT_TIMEOUT_MS = "60000"
# A broker answers within milliseconds, or not at all.
_LOOK_SECONDS = 10


class TopicWatch:
    """Watches one topic while a query reads it; ``path`` is the table of its records.

    ``timeout`` is the number of seconds that the query waits for Kafka.
    """

    def __init__(self, client: KafkaClient, topic: Topic, path: str):
        self.client, self._topic, self._path = client, topic, path
        self.timeout = _read_timeout(client)
        self._answer: Any = None
        self._asked = time.monotonic()
        self._silent_since: float | None = None

    def check_topic(self) -> None:
        """Check that the topic was not recreated, after a batch was read and before it is committed.

        The offsets of a recreated topic refer to different records. Kafka never reuses an id, so with an unchanged id
        all records until now came from the same topic. Waits for Kafka as long as Spark does.

        Raises:
            ConfigError: The topic was recreated.
            UnknownTopicError: The topic no longer exists.
            BronzeError: Kafka does not answer.
        """
        if self._topic.topic_id:  # old brokers have none
            found = self.client.call_with_retry(self._read_topic_id, self.timeout)
            if found != self._topic.topic_id:
                raise recreated_topic_error(self._topic.name, self._path, self._topic.topic_id, found)

    def _read_topic_id(self) -> str:
        answer = request_topic(self.client).get()
        return str(answer.get(self._topic.name).topicId().toString())

    def heartbeat(self) -> None:
        """Log when Kafka stops answering, and when it answers again; runs every second and never blocks."""
        now = time.monotonic()
        if self._answer is None:
            if now - self._asked >= _LOOK_SECONDS or self._silent_since is not None:
                self._answer, self._asked = request_topic(self.client), now
        elif self._answer.isDone():
            self._note_answer(now)
            self._answer = None

    def _note_answer(self, now: float) -> None:
        brokers = self.client.config.kafka_brokers
        try:
            self._answer.get()
        except Py4JJavaError as error:
            causes = read_causes(error.java_exception)
            if find_fault(causes) or is_final(causes):  # Kafka does answer; the next batch fails with this error
                return
            self._silent_since = self._silent_since or self._asked
            log.warning("Kafka at %s does not answer, waited %d s: %s", brokers, now - self._silent_since, causes[-1])
        else:
            if self._silent_since is not None:
                log.info("Kafka at %s answers again, after %d s", brokers, now - self._silent_since)
            self._silent_since = None


def _read_timeout(client: KafkaClient) -> float:
    """Return the seconds that a running query waits for an answer, the same as Spark does.

    Raises:
        ConfigError: The properties file has a value that is not a number.
    """
    given = client.properties.get("default.api.timeout.ms", _CLIENT_TIMEOUT_MS).strip()
    if not given.isdecimal():
        raise client_config_error(client.config, "default.api.timeout.ms is not a number of milliseconds")
    return _TRIES * int(given) / 1000
