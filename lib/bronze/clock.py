"""Which Kafka timestamps a clock could mean, and what stands for the others. One rule, for every use of them.

A producer may stamp a record with seconds, an uptime, microseconds, or nothing. Such a timestamp is kept as it came,
and says nothing: a record's time is its Kafka timestamp; where that is missing, before 2000 or after the start of the
batch that ingested the record, it is that start. A batch is as old as its records that have a usable one; where none
has, the batch's start stands for them. Executors import this module.
"""

from datetime import UTC, datetime, timedelta

from pyspark.sql import Column
from pyspark.sql import functions as F

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
EARLIEST = (datetime(2000, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
# How far a producer's clock may be ahead: what brokers allow by default (message.timestamp.after.max.ms).
MAX_AHEAD = timedelta(hours=1) // MICROSECOND
_LATEST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND


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


def format_time(microseconds: int) -> str:
    """A time as ISO 8601 with milliseconds; ``after 9999`` where the calendar ends before it."""
    if microseconds < 0:
        return "before 1970"  # Kafka has -1 for no timestamp
    if microseconds > _LATEST:
        return "after 9999"
    return (EPOCH + microseconds * MICROSECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def usable_time_column(kafka_timestamp: Column, start: Column) -> Column:
    """Kafka timestamps of rows, at most the start of their batch; null where no clock could mean them."""
    earliest = F.timestamp_micros(F.lit(EARLIEST))
    latest = start + F.make_dt_interval(secs=F.lit(MAX_AHEAD / 1_000_000))
    return F.when(kafka_timestamp.between(earliest, latest), F.least(kafka_timestamp, start))
