"""Fill a topic with sample events."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from math import inf
from typing import NamedTuple

from confluent_kafka import KafkaError, Message, Producer
from tqdm import tqdm

from bronze.errors import BronzeError, InvalidOptionError
from sandbox.events import WINDOW, SampleRecord, generate_booked, generate_events
from sandbox.topics import create_topic, measure_topics

TOPIC = "api-usage-events.v1"
# Earlier events are invalid, and events happen up to two days before they arrive.
EARLIEST_START = datetime(2000, 1, 3, tzinfo=UTC)
# How far the clock of the producer of booked records is ahead. In the demo, the ingestion starts before this time has
# passed, the replay after it.
CLOCK_AHEAD = timedelta(seconds=45)
MAX_QUEUED = 20_000  # records, some 50 MB
PRODUCER_CONFIG = {
    "enable.idempotence": True,
    "compression.type": "lz4",
    "linger.ms": 20,
    "message.timeout.ms": 30_000,
    "log_level": 0,  # errors are raised as exceptions
}


class Summary(NamedTuple):
    """The result of ``produce``; ``invalid`` counts records by error type, ``booked`` those that become valid later."""

    topic: str
    records: int
    valid: int
    invalid: dict[str, int]
    booked: int
    seconds: float

    def __str__(self) -> str:
        kinds = ", ".join(f"{number:,} {error_type}" for error_type, number in self.invalid.items())
        done = f"produced {self.records:,} records to {self.topic} in {self.seconds:.1f} s"
        counts = f"{self.valid:,} valid, {sum(self.invalid.values()):,} invalid ({kinds or 'none'})"
        booked = f", {self.booked:,} stamped a day ahead, valid in {CLOCK_AHEAD.seconds} s" if self.booked else ""
        return f"{done}: {counts}{booked}"


def produce(
    brokers: str,
    topic: str = TOPIC,
    count: int = 20_000,
    invalid_ratio: float = 0.01,
    *,
    partitions: int = 8,
    seed: int | None = None,
    start_time: datetime | None = None,
    rate: float = 0.0,
    booked: int = 0,
) -> Summary:
    """Produce sample events, keyed by tenant, with the time of arrival as the record's timestamp.

    Args:
        brokers: ``host:port``.
        topic: Created if it is missing.
        count: Number of records, invalid ones included.
        invalid_ratio: Share of the records that are invalid, 0 to 1.
        partitions: Partitions of a new topic.
        seed: Seed of the events; by default the number of records ever produced to the topic, so that each
            call gives new events.
        start_time: First arrival, with a zone; the last is three hours later. By default the last arrival is
            now, or with a rate, every arrival is the time of sending.
        rate: Records per second, 0 for no limit.
        booked: Number of further records, at the end, whose events are stamped a day in advance. They are invalid until
            CLOCK_AHEAD has passed.

    Raises:
        InvalidOptionError: An argument is out of its range.
        BrokerNotReachableError: No broker answers.
        BronzeError: The broker did not accept a record within 30 seconds.
    """
    _check_range("count", count, count >= 0, "a whole number, 0 or more")
    _check_range("invalid_ratio", invalid_ratio, 0 <= invalid_ratio <= 1, "a number from 0 to 1")
    _check_range("booked", booked, booked >= 0, "a whole number, 0 or more")
    _check_range("partitions", partitions, partitions >= 1, "a whole number, 1 or more")
    _check_range("seed", seed, 0 <= (seed or 0) <= 2**53, "a whole number from 0 to 2**53")
    _check_range("rate", rate, 0 <= rate < inf, "records per second, 0 for as many as possible")
    if start_time:
        _check_start_time(start_time)
    existing = measure_topics(brokers).get(topic)
    if existing is None:
        create_topic(brokers, topic, partitions)
    if seed is None:
        seed = existing.produced if existing else 0
    window = timedelta(seconds=count / rate) if rate and not start_time else WINDOW
    start = start_time or datetime.now(UTC) - (timedelta(0) if rate else window)
    begun = time.monotonic()
    records = chain(
        _pace(generate_events(count, seed, start, invalid_ratio, window), rate), _book(booked, seed + count)
    )
    numbers = _send(brokers, topic, tqdm(records, total=count + booked, unit=" records", disable=None))
    numbers["invalid_timestamp"] -= booked
    invalid = {error_type: number for error_type, number in numbers.items() if error_type and number}
    return Summary(topic, count + booked, numbers[None], invalid, booked, time.monotonic() - begun)


def _book(count: int, seed: int) -> Iterator[SampleRecord]:
    """Booked records, from a producer whose clock is ahead."""
    yield from generate_booked(count, seed, datetime.now(UTC) + CLOCK_AHEAD)


def _check_range(name: str, given: float | None, is_in_range: bool, expected: str) -> None:
    if given is not None and not is_in_range:
        raise InvalidOptionError(name, given, expected)


def _check_start_time(start_time: datetime) -> None:
    latest = datetime.now(UTC) - WINDOW
    if start_time.tzinfo is None:
        raise InvalidOptionError("start_time", start_time.isoformat(), "a time with a zone, 2025-01-31T12:00:00Z")
    if not EARLIEST_START <= start_time <= latest:
        expected = f"{EARLIEST_START:%Y-%m-%dT%H:%MZ} to {latest:%Y-%m-%dT%H:%MZ} (the events span 3 hours)"
        raise InvalidOptionError("start_time", start_time.isoformat(), expected)


def _pace(records: Iterable[SampleRecord], rate: float) -> Iterator[SampleRecord]:
    begun = time.monotonic()
    for position, record in enumerate(records):
        if rate:
            time.sleep(max(0.0, begun + position / rate - time.monotonic()))
        yield record


def _send(brokers: str, topic: str, records: Iterable[SampleRecord]) -> Counter[str | None]:
    """Return the number of records by error type (None: valid), once all are delivered."""
    producer = Producer(PRODUCER_CONFIG | {"bootstrap.servers": brokers})
    outcomes: Counter[str | None] = Counter()
    error_types: Counter[str | None] = Counter()

    def note(error: KafkaError | None, message: Message) -> None:
        outcomes[error.str() if error else None] += 1

    for record in records:
        while len(producer) >= MAX_QUEUED:
            producer.poll(0.1)
        producer.produce(topic, record.value, record.key, timestamp=record.timestamp, on_delivery=note)
        producer.poll(0)
        error_types[record.error_type] += 1
        if any(outcomes):
            producer.purge()
            break
    producer.flush()
    if reason := next(filter(None, outcomes), None):
        raise BronzeError(f"producing to {topic} failed after {outcomes[None]:,} records: {reason}")
    return error_types
