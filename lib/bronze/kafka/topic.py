"""Requests the topic's metadata from Kafka: id, partitions, offsets and settings.

The Java client comes from Spark's own class path and gets the same client properties as Spark's source. So security
settings mean the same to both, and the start checks the properties that the query will use.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError

from bronze.config import IngestConfig, KafkaConfig
from bronze.errors import ConfigError, to_flag
from bronze.kafka.client import KafkaClient, missing_right_error
from bronze.offsets import Bounds
from bronze.parsing import parse_starting_offsets
from bronze.runtime.kafka_faults import read_causes
from bronze.runtime.paths import find_class

log = logging.getLogger(__name__)
_NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # Uuid.ZERO_UUID, which old brokers return


@dataclass(frozen=True)
class Topic:
    """A topic in Kafka. A recreated topic of the same name has another id; the id is empty if unknown."""

    name: str
    topic_id: str
    partitions: tuple[int, ...]


def fetch_topic(client: KafkaClient) -> Topic:
    """Look up the topic; waits for a broker up to ``startup_timeout`` seconds.

    Raises:
        BronzeError: No broker answered in time.
        UnknownTopicError: Kafka has no such topic.
        ConfigError: Kafka refuses the client, or the user may not read the topic.
    """
    name = client.config.kafka_topic
    found = client.call_with_retry(lambda: request_topic(client, True).get()).get(name)
    allowed = found.authorizedOperations()  # null from old brokers
    if allowed and not allowed.contains(find_class(client.spark, "org.apache.kafka.common.acl.AclOperation").READ):
        raise missing_right_error(client.config, "READ")
    partitions = range(found.partitions().size())  # Kafka numbers them from 0, without a gap
    return Topic(name, read_topic_id(found.topicId().toString(), client.config), tuple(partitions))


def request_topic(client: KafkaClient, with_rights: bool = False) -> Any:
    """Request the description of the topic; returns a future of Kafka's client.

    Args:
        client: Client of the topic.
        with_rights: Whether it has the operations that the user is allowed.
    """
    names = find_class(client.spark, "java.util.Collections").singletonList(client.config.kafka_topic)
    options = find_class(client.spark, "org.apache.kafka.clients.admin.DescribeTopicsOptions")()
    return client.admin.describeTopics(names, options.includeAuthorizedOperations(with_rights)).allTopicNames()


def fetch_offsets(client: KafkaClient, partitions: Iterable[int], timeout: float | None = None) -> Bounds:
    """Ask which offsets Kafka holds now: the earliest, and the end (exclusive, before any open transaction).

    Args:
        client: Client of the topic.
        partitions: Partitions of the topic.
        timeout: Seconds that a running query waits for Kafka; None at a start, which waits for ``startup_timeout``.

    Raises:
        BronzeError: Kafka does not answer at a start. It does not answer a running query.
    """
    earliest, latest = (list_offsets(client, partitions, spec, timeout=timeout) for spec in ("earliest", "latest"))
    return {partition: (earliest[partition].offset(), latest[partition].offset()) for partition in earliest}


def list_offsets(
    client: KafkaClient, partitions: Iterable[int], spec: str, *arguments: int, timeout: float | None = None
) -> dict[int, Any]:
    """Return offset and timestamp per partition, read committed; ``spec`` is a method of Java's ``OffsetSpec``."""
    offset_spec = getattr(find_class(client.spark, "org.apache.kafka.clients.admin.OffsetSpec"), spec)(*arguments)
    topic_partition = find_class(client.spark, "org.apache.kafka.common.TopicPartition")
    requested = {p: topic_partition(client.config.kafka_topic, p) for p in partitions}
    request = find_class(client.spark, "java.util.HashMap")()
    for requested_partition in requested.values():
        request.put(requested_partition, offset_spec)
    committed = find_class(client.spark, "org.apache.kafka.common.IsolationLevel").READ_COMMITTED
    options = find_class(client.spark, "org.apache.kafka.clients.admin.ListOffsetsOptions")(committed)
    found = client.call_with_retry(lambda: client.admin.listOffsets(request, options).all().get(), timeout)
    return {p: found.get(requested_partition) for p, requested_partition in requested.items()}


def fetch_settings(client: KafkaClient) -> dict[str, str]:
    """Return the topic's settings, such as ``retention.ms``; empty if this client is not allowed to read them."""
    name = client.config.kafka_topic
    config_resource = find_class(client.spark, "org.apache.kafka.common.config.ConfigResource")
    resource = config_resource(config_resource.Type.TOPIC, name)
    resources = find_class(client.spark, "java.util.Collections").singletonList(resource)
    try:
        found = client.admin.describeConfigs(resources).all().get()
    except Py4JJavaError as error:
        log.warning("cannot read the settings of topic %s: %s", name, read_causes(error.java_exception)[-1])
        return {}
    return {entry.name(): entry.value() for entry in found.get(resource).entries().iterator()}


def check_starting_offsets(config: IngestConfig, topic: Topic, available: Bounds) -> None:
    """Refuse JSON offsets that do not name exactly the topic's partitions, with offsets that Kafka holds.

    Raises:
        ConfigError: A partition is not named or does not exist. Kafka has deleted an offset, or has not reached it yet.
    """
    offsets = parse_starting_offsets(config.starting_offsets, topic.name)
    if offsets is None:
        return
    if missing := sorted(set(topic.partitions) - set(offsets)):
        raise ConfigError(
            f"--starting-offsets must name every partition of {topic.name}; missing: {', '.join(map(str, missing))} "
            "(-2 is the earliest offset, -1 the latest)"
        )
    if unknown := sorted(set(offsets) - set(topic.partitions)):
        raise unknown_partitions_error("starting_offsets", topic.name, unknown)
    outside = [
        f"offset {offset} of partition {p} (it holds {available[p][0]} to {available[p][1] - 1})"
        for p, offset in sorted(offsets.items())
        if offset >= 0 and not available[p][0] <= offset <= available[p][1]
    ]
    if outside:
        raise ConfigError(f"--starting-offsets: {topic.name} does not hold {'; '.join(outside)}")


def read_topic_id(text: str, config: KafkaConfig) -> str:
    """Return the topic's id as Kafka prints it; empty, with a warning, if the broker has none."""
    if text != _NO_TOPIC_ID:
        return text
    log.warning(
        "Kafka at %s has no topic ids, so this run cannot notice if %s is deleted and recreated",
        config.kafka_brokers,
        config.kafka_topic,
    )
    return ""


def unknown_partitions_error(name: str, topic: str, unknown: Sequence[int]) -> ConfigError:
    """Make the error for JSON offsets that name partitions which the topic does not have."""
    return ConfigError(f"{to_flag(name)} names partitions that {topic} does not have: {', '.join(map(str, unknown))}")


def recreated_topic_error(topic: str, path: str, known: str, found: str) -> ConfigError:
    """Make the error for a topic that was deleted and recreated: its offsets refer to different records."""
    return ConfigError(
        f"topic {topic} was deleted and recreated since {path} was created (topic id {found}, the table has {known}); "
        "its offsets now refer to different records.",
        hint="Use new --output-path, --dlq-path and --checkpoint-path.",
    )
