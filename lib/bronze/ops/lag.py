"""Lag and headroom of each Kafka partition, as a table."""

from datetime import UTC, datetime

import pandas as pd

from bronze.decode import is_plausible
from bronze.kafka.retention import Retention, count_headroom
from bronze.offsets import Bounds


def measure_lag(
    next_offsets: dict[int, int], available: Bounds, unread: dict[int, int], retention: Retention, now: datetime
) -> pd.DataFrame:
    """A row per Kafka partition.

    Args:
        next_offsets: Where the ingestion continues.
        available: The offsets that Kafka holds.
        unread: Kafka timestamp of the next unread record in milliseconds since 1970, from
            ``read_next_timestamps``; no entry if all is read.
        retention: The topic's retention.
        now: Time of the measurement.

    Returns:
        Columns ``next offset``, ``Kafka earliest``, ``Kafka end``, ``lag`` (offsets; with
        transactions or compaction more than records), ``deleted unread`` (offsets), ``next unread`` (naive UTC, none if
        implausible), ``headroom`` (hours; infinite if nothing waits or expires, NaN if unknown, 0 if records are
        already deleted).
    """
    rows = []
    for partition, (earliest, end) in available.items():
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
                "next unread": _to_datetime(timestamp, now),
                "headroom": 0.0 if start < earliest else count_headroom(timestamp, retention, now),
            }
        )
    frame = pd.DataFrame(rows).set_index("partition")
    frame["next unread"] = pd.to_datetime(frame["next unread"], utc=True).dt.tz_localize(None)
    return frame


def _to_datetime(timestamp: int | None, now: datetime) -> datetime | None:
    if timestamp is None or not is_plausible(timestamp * 1000, int(now.timestamp() * 1_000_000)):
        return None
    return datetime.fromtimestamp(timestamp / 1000, UTC)


def explain_unknown_headroom(lag: pd.DataFrame, retention: Retention) -> str:
    """Name the partitions whose headroom is unknown because of their records' timestamps; empty if there are none."""
    partitions = [] if retention.hours is None else lag.index[lag["headroom"].isna()].tolist()
    if not partitions:
        return ""
    return (
        f"the headroom of partitions {', '.join(map(str, partitions))} is not known: their next unread records have "
        "Kafka timestamps before 2000, and Kafka may delete them at any time"
    )


def explain_lost_end(lag: pd.DataFrame) -> str:
    """Name the partitions that end before the offsets that were read; empty if there are none."""
    partitions = lag.index[lag["next offset"] > lag["Kafka end"]].tolist()
    if not partitions:
        return ""
    return (
        f"the topic ends before the offsets that were read, in partitions {', '.join(map(str, partitions))}: it has "
        "lost its newest records; bronze audit names their offsets"
    )
