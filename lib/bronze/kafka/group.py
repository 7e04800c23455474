"""Commits the offsets of committed batches to a consumer group, so that Kafka's own tools show the lag.

Nothing ever reads these offsets back: the checkpoint and the tables alone say where the ingestion continues.
"""

from collections.abc import Mapping

from py4j.protocol import Py4JJavaError

from bronze.errors import BronzeError
from bronze.kafka.client import KafkaClient
from bronze.runtime.kafka_faults import read_causes
from bronze.runtime.paths import find_class


def commit_group_offsets(client: KafkaClient, group: str, offsets: Mapping[int, int]) -> None:
    """Set the offsets of a consumer group that has no members.

    Args:
        client: Kafka client of the topic.
        group: Name of the group.
        offsets: The offset after the last one that was committed to the tables, per partition.

    Raises:
        BronzeError: Kafka does not answer, or refuses; the caller logs it as a warning.
    """
    common = find_class(client.spark, "org.apache.kafka.common.TopicPartition")
    metadata = find_class(client.spark, "org.apache.kafka.clients.consumer.OffsetAndMetadata")
    request = find_class(client.spark, "java.util.HashMap")()
    for partition, offset in offsets.items():
        request.put(common(client.config.kafka_topic, partition), metadata(offset))
    try:
        client.admin.alterConsumerGroupOffsets(group, request).all().get()
    except Py4JJavaError as error:
        reason = read_causes(error.java_exception)[-1]
        if reason.startswith("GroupAuthorizationException"):
            reason = f"this client has no right to it; grant READ and DESCRIBE on the group {group}"
        raise BronzeError(reason) from None
