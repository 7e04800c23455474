"""Lag, and the headroom before data loss: how long until Kafka deletes a record that was not read yet.

Kafka deletes a segment of the log once its newest record is older than ``retention.ms``, and never the one it writes
to. So the Kafka timestamp of the next unread record plus ``retention.ms`` is the earliest moment; the real one is later
by up to a segment (``segment.ms``, ``segment.bytes``). ``retention.bytes`` deletes earlier and is not modelled.
"""

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.config import KafkaConfig
from bronze.kafka import read_topic_settings
from bronze.kafka_errors import KafkaUnavailable
from bronze.kafka_options import read_client_properties
from bronze.offsets import PlannedOffsets

_HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Retention:
    """How long Kafka keeps the topic's records: infinite, or None where it does not tell."""

    hours: float | None
    note: str = ""


def read_retention(spark: SparkSession, config: KafkaConfig) -> Retention:
    """The topic's retention time, and a note where another setting deletes records too."""
    settings = read_topic_settings(spark, config)
    if not settings:
        return Retention(None, "Kafka does not tell the topic's retention")
    if "delete" not in settings["cleanup.policy"]:
        return Retention(math.inf, "the topic is compacted: a record that a newer one replaces may be gone at any time")
    kept, size = int(settings["retention.ms"]), int(settings["retention.bytes"])
    note = f"retention.bytes is {size:,}: it may delete records before the headroom ends" if size >= 0 else ""
    return Retention(math.inf if kept < 0 else kept / _HOUR_MS, note)


def measure_lag(
    next_offsets: dict[int, int], held: PlannedOffsets, unread: dict[int, int], retention: Retention, now: datetime
) -> pd.DataFrame:
    """A row per Kafka partition.

    Args:
        next_offsets: Where the ingestion goes on.
        held: What Kafka holds.
        unread: Kafka timestamp of the next unread record, milliseconds since 1970; none where all is read.
        retention: The topic's.
        now: When Kafka was asked.

    Returns:
        Columns ``next offset``, ``Kafka earliest``, ``Kafka end``, ``lag`` (records, or offsets where transactions and
        compaction left some out), ``deleted unread`` (offsets), ``next unread`` (naive UTC), ``headroom`` (hours,
        infinite where nothing waits, NaN where it is not known, 0 where it has ended).
    """
    rows = []
    for partition, (earliest, end) in held.items():
        start = next_offsets.get(partition, 0)
        timestamp = unread.get(partition)
        rows.append(
            {
                "partition": partition,
                "next offset": start,
                "Kafka earliest": earliest,
                "Kafka end": end,
                "lag": max(0, end - max(start, earliest)),
                "deleted unread": max(0, earliest - start),
                "next unread": None if timestamp is None else datetime.fromtimestamp(timestamp / 1000, UTC),
                "headroom": 0.0 if start < earliest else _count_hours(timestamp, retention, now),
            }
        )
    frame = pd.DataFrame(rows).set_index("partition")
    frame["next unread"] = pd.to_datetime(frame["next unread"], utc=True).dt.tz_localize(None)
    return frame


def _count_hours(timestamp: int | None, retention: Retention, now: datetime) -> float:
    if timestamp is None:
        return math.inf
    if retention.hours is None:
        return math.nan
    return max(0.0, retention.hours - (now.timestamp() * 1000 - timestamp) / _HOUR_MS)


def read_next_timestamps(
    spark: SparkSession, config: KafkaConfig, next_offsets: dict[int, int], held: PlannedOffsets
) -> dict[int, int]:
    """Kafka timestamp (milliseconds since 1970) of the next unread record, per partition that has one.

    Reads one record of each partition that lags; a consumer without a group, which commits nothing.

    Raises:
        KafkaUnavailable: Kafka did not deliver them in time.
    """
    starts = {p: max(next_offsets.get(p, 0), earliest) for p, (earliest, _) in held.items()}
    waiting = {p: start for p, start in starts.items() if start < held[p][1]}
    if not waiting:
        return {}
    consumer = _open_consumer(spark, config)
    try:
        return _poll_first(spark, config, consumer, waiting, held)
    except Py4JJavaError as error:
        reason = str(error.java_exception)
        raise KafkaUnavailable(config.kafka_brokers, config.startup_timeout, reason) from None
    finally:
        consumer.close()


def _open_consumer(spark: SparkSession, config: KafkaConfig) -> Any:
    jvm: Any = spark._jvm
    properties = jvm.java.util.Properties()
    own = {"enable.auto.commit": "false", "isolation.level": "read_committed", "max.poll.records": "1"}
    small = {"max.partition.fetch.bytes": "65536"}  # a record that is larger comes nevertheless
    own["auto.offset.reset"] = "earliest"  # where Kafka deletes the record just now
    for key, value in {**read_client_properties(spark, config), **own, **small}.items():
        if key != "group.id":
            properties.setProperty(key, value)
    bytes_reader = jvm.org.apache.kafka.common.serialization.ByteArrayDeserializer
    return jvm.org.apache.kafka.clients.consumer.KafkaConsumer(properties, bytes_reader(), bytes_reader())


def _poll_first(
    spark: SparkSession, config: KafkaConfig, consumer: Any, waiting: dict[int, int], held: PlannedOffsets
) -> dict[int, int]:
    """Poll until each partition gave its first record or turned out to have none before its end."""
    jvm: Any = spark._jvm
    asked = {p: jvm.org.apache.kafka.common.TopicPartition(config.kafka_topic, p) for p in waiting}
    consumer.assign(list(asked.values()))
    for partition, start in waiting.items():
        consumer.seek(asked[partition], start)
    found: dict[int, int] = {}
    deadline = time.monotonic() + config.startup_timeout
    while asked:
        for record in consumer.poll(jvm.java.time.Duration.ofMillis(200)).iterator():
            found.setdefault(record.partition(), record.timestamp())
        # Only transaction markers and aborted records may be left: the position passes them without a record.
        done = [p for p, tp in asked.items() if p in found or consumer.position(tp) >= held[p][1]]
        consumer.pause([asked.pop(p) for p in done])
        if asked and time.monotonic() > deadline:
            raise KafkaUnavailable(config.kafka_brokers, config.startup_timeout, "it delivered no record")
    return found
