"""Which Kafka timestamps a clock could mean, and what stands for the others. One rule, for every use of them.

A producer may stamp a record with seconds, an uptime, microseconds, or nothing. Such a timestamp is kept as it came,
and says nothing: a record's time is its Kafka timestamp; where that is missing, before 2000 or after the start of the
batch that ingested the record, it is that start. A batch is as old as its records that have a usable one; where none
has, the batch's start stands for them. Executors import this module.
"""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
EARLIEST = (datetime(2000, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
# How far a producer's clock may be ahead: what brokers allow by default (message.timestamp.after.max.ms).
MAX_AHEAD = timedelta(hours=1) // MICROSECOND


def is_plausible(kafka_timestamp: int | None, now: int) -> bool:
    """Whether a clock could mean a Kafka timestamp; both in microseconds since 1970."""
    return kafka_timestamp is not None and EARLIEST <= kafka_timestamp <= now + MAX_AHEAD


def choose_time(kafka_timestamp: int | None, start: int) -> int:
    """A record's time, by the rule above; microseconds since 1970, never before 2000.

    Args:
        kafka_timestamp: The record's.
        start: When the batch that ingested it started.
    """
    if kafka_timestamp is not None and EARLIEST <= kafka_timestamp <= start:
        return kafka_timestamp
    return max(start, EARLIEST)
