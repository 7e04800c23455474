"""Topics and their record counts, through a broker's AdminClient."""

import time
from collections import Counter
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from bronze.errors import BronzeError

TIMEOUT = 10.0  # seconds
# A broker answers so for a moment after a partition was created, or after the broker has started.
STARTING = (KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION)


class TopicSize(NamedTuple):
    """A topic's partitions, the records that it holds now, and those ever produced to it (its end offsets)."""

    partitions: int
    records: int
    produced: int


class BrokerNotReachableError(BronzeError):
    """No broker answers at an address."""


def no_broker_error(brokers: str) -> BrokerNotReachableError:
    """Build the error for brokers that do not answer."""
    return BrokerNotReachableError(
        f"no Kafka broker answers at {brokers}", hint="python -m sandbox up (make sandbox-up) starts one."
    )


def connect(brokers: str) -> AdminClient:
    """Return an AdminClient, once its broker has answered.

    Raises:
        BrokerNotReachableError: The broker did not answer within three seconds.
    """
    # Without a log level, librdkafka writes every failed attempt to connect to standard error.
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    try:
        admin.list_topics(timeout=3)
    except KafkaException:
        raise no_broker_error(brokers) from None
    return admin


def create_topic(brokers: str, name: str, partitions: int, config: dict[str, str] | None = None) -> None:
    """Create a topic without replicas.

    Raises:
        BrokerNotReachableError: No broker answers.
        KafkaException: The broker refused, for instance because the topic exists.
    """
    new = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config or {})
    admin = connect(brokers)  # keep a reference: a temporary would be deleted, with its request, before the answer
    admin.create_topics([new], request_timeout=TIMEOUT)[name].result()


def measure_topics(brokers: str) -> dict[str, TopicSize]:
    """Return the size of each topic by name, without Kafka's internal topics.

    Raises:
        BrokerNotReachableError: No broker answers.
        KafkaException: The broker refused.
    """
    admin = connect(brokers)
    topics = {
        name: [TopicPartition(name, partition) for partition in topic.partitions]
        for name, topic in admin.list_topics(timeout=TIMEOUT).topics.items()
        if not name.startswith("__")
    }
    begins, ends = (_fetch_offsets(admin, topics, spec) for spec in (OffsetSpec.earliest(), OffsetSpec.latest()))
    return {name: TopicSize(len(topics[name]), ends[name] - begins[name], ends[name]) for name in topics}


def _fetch_offsets(admin: AdminClient, topics: dict[str, list[TopicPartition]], spec: OffsetSpec) -> Counter[str]:
    """Sum the partitions' offsets by topic."""
    sums: Counter[str] = Counter()
    for partition, found in _ask_offsets(admin, [p for listed in topics.values() for p in listed], spec).items():
        sums[partition.topic] += found.offset
    return sums


def _ask_offsets(admin: AdminClient, partitions: list[TopicPartition], spec: OffsetSpec) -> dict[TopicPartition, Any]:
    """Offset and timestamp of one record of each partition; waits for partitions that have no leader yet."""
    end = time.monotonic() + TIMEOUT
    while True:
        asked = admin.list_offsets(dict.fromkeys(partitions, spec), request_timeout=TIMEOUT) if partitions else {}
        try:
            return {partition: future.result() for partition, future in asked.items()}
        except KafkaException as error:
            if error.args[0].code() not in STARTING or time.monotonic() > end:
                raise
        time.sleep(0.1)


def fetch_bounds(brokers: str, topic: str) -> dict[int, tuple[int, int]]:
    """Return the first offset and the end of each partition of a topic.

    Raises:
        BrokerNotReachableError: No broker answers.
        KafkaException: There is no such topic, or the broker refused.
    """
    admin, partitions = _open_topic(brokers, topic)
    begins, ends = (_ask_offsets(admin, partitions, spec) for spec in (OffsetSpec.earliest(), OffsetSpec.latest()))
    return {p.partition: (begins[p].offset, ends[p].offset) for p in partitions}


def fetch_newest_timestamp(brokers: str, topic: str) -> int:
    """Return the newest timestamp of a topic's records, in ms since 1970; negative if there are none.

    Raises:
        BrokerNotReachableError: No broker answers.
        KafkaException: There is no such topic, or the broker refused.
    """
    admin, partitions = _open_topic(brokers, topic)
    return max(found.timestamp for found in _ask_offsets(admin, partitions, OffsetSpec.max_timestamp()).values())


def _open_topic(brokers: str, topic: str) -> tuple[AdminClient, list[TopicPartition]]:
    admin = connect(brokers)
    found = admin.list_topics(topic, timeout=TIMEOUT).topics[topic]
    if found.error:
        raise KafkaException(found.error)
    return admin, [TopicPartition(topic, partition) for partition in sorted(found.partitions)]
