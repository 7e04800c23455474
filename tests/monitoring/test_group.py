"""The lag in Kafka's own tools: offsets that the stream commits to a consumer group."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from bronze.runtime.jars import find_java, resolve_jars
from sandbox.kafka import JARS
from tests.support.events import make_events
from tests.support.ingestion import Ingestion
from tests.support.lake import Lake
from tests.support.topic import Topic, read_group_offset
from tests.support.waiting import wait_until

KAFKA_VERSION = JARS[0].rpartition(":")[2]


def describe_group(brokers: str, group: str) -> dict[int, tuple[int, int, int]]:
    """Committed offset, end and lag per partition, from ``kafka-consumer-groups --describe``."""
    jars = resolve_jars(f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}", JARS[1])
    tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    command = [find_java(), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", tool]
    environment = {**os.environ, "CLASSPATH": os.pathsep.join(map(str, jars))}
    flags = ["--bootstrap-server", brokers, "--describe", "--group", group]
    done = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True, timeout=60)
    rows = re.findall(rf"^{group} +\S+ +(\d+) +(\d+) +(\d+) +(\d+) ", done.stdout, re.MULTILINE)
    assert rows, done.stdout + done.stderr
    return {int(partition): (int(committed), int(end), int(lag)) for partition, committed, end, lag in rows}


def test_kafkas_own_tool_shows_the_lag(topic: Topic, lake: Lake):
    topic.produce(make_events(30), partition=0)
    topic.produce(make_events(12), partition=1)
    lake.ingest(commit_group="bronze-lag")
    topic.produce(make_events(5), partition=1)
    shown = describe_group(topic.brokers, "bronze-lag")
    assert shown == {0: (30, 30, 0), 1: (12, 17, 5), 2: (0, 0, 0)}


def test_offsets_in_the_group_are_never_read_back(topic: Topic, lake: Lake):
    topic.produce(make_events(30), partition=0)
    lake.ingest(commit_group="bronze-back")
    set_offset(topic, "bronze-back", 3)
    topic.produce(make_events(4), partition=0)
    assert lake.ingest(commit_group="bronze-back").counts.total == 4
    assert describe_group(topic.brokers, "bronze-back")[0] == (34, 34, 0)


def set_offset(topic: Topic, group: str, offset: int) -> None:
    admin = AdminClient({"bootstrap.servers": topic.brokers})
    request = ConsumerGroupTopicPartitions(group, [TopicPartition(topic.name, 0, offset)])
    for future in admin.alter_consumer_group_offsets([request]).values():
        future.result()


def test_the_group_follows_the_tables(topic: Topic, lake: Lake, start: Callable[..., Ingestion]):
    topic.produce(make_events(10), partition=0)
    config = replace(lake.config, commit_group="bronze-order", available_now=False, trigger_interval="1 second")
    start(config).wait_for("total=10")
    wait_until(lambda: read_group_offset(topic, "bronze-order") == 10, 60)
    topic.produce(make_events(10), partition=0)
    wait_until(lambda: read_group_offset(topic, "bronze-order") == 20, 60)
    assert len(lake.positions()) == 20


@contextmanager
def consume(topic: Topic, group: str) -> Iterator[None]:
    """Another consumer that uses the group: Kafka then refuses offsets that do not come from a member."""
    consumer = Consumer({"bootstrap.servers": topic.brokers, "group.id": group})
    consumer.subscribe([topic.name])
    wait_until(lambda: consumer.poll(0.5) is not None or bool(consumer.assignment()), 60)
    yield
    consumer.close()


def test_a_commit_that_fails_warns_once_and_fails_no_batch(
    topic: Topic, lake: Lake, bronze_log: pytest.LogCaptureFixture
):
    topic.produce(make_events(40), partition=0)
    with consume(topic, "bronze-busy"):
        summary = lake.ingest(commit_group="bronze-busy", max_offsets_per_trigger=10)
    warnings = [message for message in bronze_log.messages if message.startswith("cannot commit offsets")]
    assert (summary.batch_count, summary.counts.total, len(warnings)) == (4, 40, 1)
