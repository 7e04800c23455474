"""Finds Kafka timestamps of offsets and offsets of timestamps; skips records with an implausible timestamp.

Kafka looks up a time in its index. If it answers with an implausible record, this module reads the neighbouring
records. So a single record of the year 58872 neither hides the records after it, nor decides how old the records are.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from py4j.protocol import Py4JJavaError

from bronze.decode import EARLIEST, EPOCH, is_plausible
from bronze.kafka.client import KafkaClient, no_answer_error
from bronze.kafka.topic import list_offsets
from bronze.offsets import Bounds
from bronze.runtime.paths import find_class

# Records to search for a plausible timestamp.
_NEIGHBOURS = 100
# Offset and Kafka timestamp in milliseconds since 1970.
Stamp = tuple[int, int]
_LATEST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


def find_offsets_at(client: KafkaClient, timestamp_ms: int, available: Bounds, *, is_end: bool) -> dict[int, int]:
    """Return the first offset whose Kafka timestamp is at or after a time, per partition; -1 if none is.

    A record with a timestamp in the future gets the time of the next record with a usable one. If there is none nearby,
    the end of a range moves later and its start earlier; a backfill skips the records that the tables already have.

    Raises:
        BronzeError: Kafka does not answer.
    """
    found = list_offsets(client, available, "forTimestamp", timestamp_ms)
    offsets = {partition: info.offset() for partition, info in found.items()}
    # Kafka answers with a timestamp before 2000 only if the time itself is before 2000.
    odd = [p for p, info in found.items() if not _is_usable(ms := info.timestamp()) and ms * 1000 >= EARLIEST]
    if odd:
        with _open_reader(client) as reader:
            offsets |= {p: _search(reader, p, (offsets[p], available[p][1]), timestamp_ms, is_end) for p in odd}
    return offsets


def _search(reader: "_Reader", partition: int, span: tuple[int, int], timestamp_ms: int, is_end: bool) -> int:
    """Bisect a partition, assuming that its usable timestamps ascend."""
    low, high = span
    while low < high:
        middle = (low + high) // 2
        usable, is_all = _find_usable(reader, partition, middle, span[1])
        is_reached = usable >= timestamp_ms if usable is not None else is_all or not is_end
        low, high = (low, middle) if is_reached else (middle + 1, high)
    if is_end and low < span[1] and _find_usable(reader, partition, low, span[1]) == (None, True):
        return span[1]  # the last records have no usable timestamp: they belong to the records before them
    return low


def _find_usable(reader: "_Reader", partition: int, start: int, end: int) -> tuple[int | None, bool]:
    """Return the first usable timestamp from an offset on, and whether the search reached the end."""
    stamps = reader.read({partition: (start, end)})[partition]
    return next((ms for _, ms in stamps if _is_usable(ms)), None), len(stamps) < _NEIGHBOURS


def find_timestamps(client: KafkaClient, available: Bounds) -> dict[int, tuple[int, int]]:
    """Return the timestamps of the earliest and the newest record, in ms since 1970; -1 if there is no record.

    Raises:
        BronzeError: Kafka does not answer.
    """
    first = list_offsets(client, available, "forTimestamp", 0)
    newest = list_offsets(client, available, "maxTimestamp")
    times = {p: (first[p].timestamp(), newest[p].timestamp()) for p in available}
    odd = {p: available[p] for p, both in times.items() if first[p].offset() >= 0 and not all(map(_is_usable, both))}
    if odd:
        with _open_reader(client) as reader:
            heads = reader.read(odd)
            last = {p: (max(begin, end - _NEIGHBOURS), end) for p, (begin, end) in odd.items()}
            tails = reader.read(last, whole=True)
        for p in odd:
            begun, ended = ([ms for _, ms in stamps if _is_usable(ms)] for stamps in (heads[p], tails[p]))
            times[p] = (begun[0] if begun else times[p][0], max(ended) if ended else times[p][1])
    return times


def read_next_timestamps(client: KafkaClient, next_offsets: dict[int, int], available: Bounds) -> dict[int, int]:
    """Return the Kafka timestamp (milliseconds since 1970) of the next unread record, per partition that has one.

    If it is implausible, return the first plausible one after it, otherwise the last plausible one before it, otherwise
    the implausible one itself. Reads one record of each partition that lags, and commits no offset.

    Raises:
        BronzeError: Kafka did not deliver them in time.
    """
    starts = {p: max(next_offsets.get(p, 0), earliest) for p, (earliest, _) in available.items()}
    waiting = {p: (start, available[p][1]) for p, start in starts.items() if start < available[p][1]}
    if not waiting:
        return {}
    with _open_reader(client) as reader:
        unread = {p: stamps for p, stamps in reader.read(waiting).items() if stamps}
        odd = [p for p, stamps in unread.items() if not _is_usable(stamps[-1][1])]
        begins = {p: available[p][0] for p in odd}
        before = {p: (max(begins[p], starts[p] - _NEIGHBOURS), starts[p]) for p in odd if starts[p] > begins[p]}
        read = reader.read(before, whole=True)
    return {p: _choose_next(stamps, read.get(p, [])) for p, stamps in unread.items()}


def _choose_next(unread: list[Stamp], before: list[Stamp]) -> int:
    nearest = [ms for _, ms in (unread[-1], *reversed(before)) if _is_usable(ms)]
    return nearest[0] if nearest else unread[0][1]


def format_timestamp(timestamp_ms: int) -> str:
    """Format a Kafka timestamp as ISO 8601; ``after 9999`` if it is beyond Python's calendar."""
    if timestamp_ms < 0:
        return "before 1970"  # Kafka uses -1 for no timestamp
    if timestamp_ms > _LATEST:
        return "after 9999"
    return (EPOCH + timedelta(milliseconds=timestamp_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _is_usable(timestamp_ms: int) -> bool:
    return is_plausible(timestamp_ms * 1000, time.time_ns() // 1000)


@dataclass(frozen=True)
class _Reader:
    """A consumer without a group, which reads a few records of each partition."""

    client: KafkaClient
    consumer: Any

    def read(self, spans: Bounds, whole: bool = False) -> dict[int, list[Stamp]]:
        """Read stamps from the first offset of each span up to the first usable one, or of the whole span.

        Reads at most _NEIGHBOURS stamps per span. If fewer stamps come back and none is usable, the span has no more.
        """
        spark, config = self.client.spark, self.client.config
        topic_partition = find_class(spark, "org.apache.kafka.common.TopicPartition")
        requested = {p: topic_partition(config.kafka_topic, p) for p in spans}
        wait = find_class(spark, "java.time.Duration").ofMillis(200)
        self.consumer.assign(list(requested.values()))
        self.consumer.resume(list(requested.values()))  # an earlier read paused them
        for partition, (start, _) in spans.items():
            self.consumer.seek(requested[partition], start)
        found: dict[int, list[Stamp]] = {p: [] for p in spans}
        deadline = time.monotonic() + config.startup_timeout
        while requested:
            polled = self.consumer.poll(wait)
            for part in polled.partitions().iterator():
                partition = part.partition()
                records = polled.records(part).iterator()
                _collect(records, found[partition], spans[partition][1], whole)
            # Only transaction markers and aborted records may remain: the position passes them without a record.
            done = [
                p
                for p, tp in requested.items()
                if _is_enough(found[p], whole) or self.consumer.position(tp) >= spans[p][1]
            ]
            self.consumer.pause([requested.pop(p) for p in done])
            if requested and time.monotonic() > deadline:
                raise no_answer_error(config, config.startup_timeout, "it delivered no record")
        return found


def _collect(records: Iterator[Any], stamps: list[Stamp], end: int, whole: bool) -> None:
    for record in records:
        if _is_enough(stamps, whole) or record.offset() >= end:
            return
        stamps.append((record.offset(), record.timestamp()))


def _is_enough(stamps: list[Stamp], whole: bool) -> bool:
    return len(stamps) >= _NEIGHBOURS or (not whole and bool(stamps) and _is_usable(stamps[-1][1]))


@contextmanager
def _open_reader(client: KafkaClient) -> Iterator[_Reader]:
    spark, config = client.spark, client.config
    properties = find_class(spark, "java.util.Properties")()
    own = {"enable.auto.commit": "false", "isolation.level": "read_committed", "max.poll.records": str(_NEIGHBOURS)}
    small = {"max.partition.fetch.bytes": "65536"}  # Kafka still delivers a larger record
    own["auto.offset.reset"] = "earliest"  # in case Kafka deletes the record meanwhile
    for key, value in {**client.properties, **own, **small}.items():
        if key != "group.id":
            properties.setProperty(key, value)
    bytes_reader = find_class(spark, "org.apache.kafka.common.serialization.ByteArrayDeserializer")
    kafka_consumer = find_class(spark, "org.apache.kafka.clients.consumer.KafkaConsumer")
    consumer = kafka_consumer(properties, bytes_reader(), bytes_reader())
    try:
        yield _Reader(client, consumer)
    except Py4JJavaError as error:
        reason = str(error.java_exception)
        raise no_answer_error(config, config.startup_timeout, reason) from None
    finally:
        consumer.close()
