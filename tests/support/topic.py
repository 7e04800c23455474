"""A topic of one test: records, transactions, and deletion by retention."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient


@dataclass(frozen=True)
class Topic:
    """A topic of one test."""

    brokers: str
    name: str

    def produce(self, values: Sequence[bytes | None], partition: int = -1, **config: Any) -> None:
        """Produce values to one partition, or spread over all of them."""
        producer = Producer({"bootstrap.servers": self.brokers, "message.max.bytes": 16_000_000, **config})
        for number, value in enumerate(values):
            producer.produce(self.name, value, key=b"tenant-%d" % (number % 7), partition=partition)
            producer.poll(0)
        assert producer.flush(30) == 0


def produce_transaction(topic: Topic, values: list[bytes], partition: int, commit: bool) -> None:
    producer = Producer({"bootstrap.servers": topic.brokers, "transactional.id": f"{topic.name}-{time.monotonic()}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic.name, value, partition=partition)
    producer.flush(30)
    producer.commit_transaction(30) if commit else producer.abort_transaction(30)


def delete_records(topic: Topic, partition: int, before: int) -> None:
    """Delete records, as retention does: the partition then starts at an offset."""
    admin = AdminClient({"bootstrap.servers": topic.brokers})
    for future in admin.delete_records([TopicPartition(topic.name, partition, before)]).values():
        future.result()


def read_group_offset(topic: Topic, group: str) -> int:
    """The offset of partition 0 in a consumer group; -1 if it has none."""
    admin = AdminClient({"bootstrap.servers": topic.brokers})
    (future,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
    return max((each.offset for each in future.result().topic_partitions if each.partition == 0), default=-1)
