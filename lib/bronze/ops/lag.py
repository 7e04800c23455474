"""Lag, and the headroom before data loss: the time until Kafka deletes a record that was not read yet.

Kafka deletes a log segment once its newest record is older than ``retention.ms``, but never the active segment. So the
next unread record is deleted at its Kafka timestamp plus ``retention.ms`` at the earliest, and later by up to a segment
(``segment.ms``, ``segment.bytes``). ``retention.bytes`` may delete it earlier, and is not considered. A timestamp in
the future counts as now, because Kafka keeps such a record longer. One before 2000 is ignored (``is_plausible``).
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from bronze.decode import EARLIEST, is_plausible
from bronze.kafka.client import KafkaClient
from bronze.kafka.topic import fetch_settings
from bronze.offsets import Bounds

_HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Retention:
    """How long Kafka keeps the topic's records; may be infinite, None if unknown."""

    hours: float | None
    note: str = ""


def fetch_retention(client: KafkaClient) -> Retention:
    """Fetch the topic's retention time, and a note if another setting also deletes records."""
    settings = fetch_settings(client)
    if not settings:
        return Retention(None, "the topic's retention is unknown, because Kafka did not return its settings")
    if "delete" not in settings["cleanup.policy"]:
        return Retention(math.inf, "the topic is compacted: Kafka may delete a record once a newer one replaces it")
    kept, size = int(settings["retention.ms"]), int(settings["retention.bytes"])
    note = f"retention.bytes is {size:,}: it may delete records before the headroom ends" if size >= 0 else ""
    return Retention(math.inf if kept < 0 else kept / _HOUR_MS, note)


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
                "headroom": 0.0 if start < earliest else _count_hours(timestamp, retention, now),
            }
        )
    frame = pd.DataFrame(rows).set_index("partition")
    frame["next unread"] = pd.to_datetime(frame["next unread"], utc=True).dt.tz_localize(None)
    return frame


def _to_datetime(timestamp: int | None, now: datetime) -> datetime | None:
    if timestamp is None or not is_plausible(timestamp * 1000, int(now.timestamp() * 1_000_000)):
        return None
    return datetime.fromtimestamp(timestamp / 1000, UTC)


def _count_hours(timestamp: int | None, retention: Retention, now: datetime) -> float:
    if timestamp is None or retention.hours == math.inf:
        return math.inf
    if retention.hours is None or timestamp * 1000 < EARLIEST:
        return math.nan
    return max(0.0, retention.hours - max(0.0, now.timestamp() * 1000 - timestamp) / _HOUR_MS)


def explain_unknown_headroom(lag: pd.DataFrame, retention: Retention) -> str:
    """Name the partitions whose headroom is unknown because of their records' timestamps; empty if there are none."""
    partitions = [] if retention.hours is None else lag.index[lag["headroom"].isna()].tolist()
    if not partitions:
        return ""
    return (
        f"the headroom of partitions {', '.join(map(str, partitions))} is not known: their next unread records have "
        "Kafka timestamps before 2000, and Kafka may delete them at any time"
    )
