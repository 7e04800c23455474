"""Lag, and the headroom before data loss: how long until Kafka deletes a record that was not read yet.

Kafka deletes a segment of the log once its newest record is older than ``retention.ms``, and never the one it writes
to. So the Kafka timestamp of the next unread record plus ``retention.ms`` is the earliest moment; the real one is later
by up to a segment (``segment.ms``, ``segment.bytes``). ``retention.bytes`` deletes earlier and is not modelled.
A timestamp in the future counts as now: Kafka keeps that record for longer. One before 2000 says nothing (clock.py).
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
    """How long Kafka keeps the topic's records: infinite, or None where it does not tell."""

    hours: float | None
    note: str = ""


def fetch_retention(client: KafkaClient) -> Retention:
    """The topic's retention time, and a note where another setting deletes records too."""
    settings = fetch_settings(client)
    if not settings:
        return Retention(None, "Kafka does not tell the topic's retention")
    if "delete" not in settings["cleanup.policy"]:
        return Retention(math.inf, "the topic is compacted: a record that a newer one replaces may be gone at any time")
    kept, size = int(settings["retention.ms"]), int(settings["retention.bytes"])
    note = f"retention.bytes is {size:,}: it may delete records before the headroom ends" if size >= 0 else ""
    return Retention(math.inf if kept < 0 else kept / _HOUR_MS, note)


def measure_lag(
    next_offsets: dict[int, int], available: Bounds, unread: dict[int, int], retention: Retention, now: datetime
) -> pd.DataFrame:
    """A row per Kafka partition.

    Args:
        next_offsets: Where the ingestion goes on.
        available: What Kafka holds.
        unread: Kafka timestamp of the next unread record, milliseconds since 1970, as ``read_next_timestamps`` has it;
            none where all is read.
        retention: The topic's.
        now: When Kafka was asked.

    Returns:
        Columns ``next offset``, ``Kafka earliest``, ``Kafka end``, ``lag`` (records, or offsets where transactions and
        compaction left some out), ``deleted unread`` (offsets), ``next unread`` (naive UTC, none where no clock could
        mean it), ``headroom`` (hours, infinite where nothing waits or expires, NaN where it is not known, 0 where it
        has ended).
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
    """Where the records' own timestamps leave the headroom unknown; empty where there is no such partition."""
    partitions = [] if retention.hours is None else lag.index[lag["headroom"].isna()].tolist()
    if not partitions:
        return ""
    return (
        f"the headroom of partitions {', '.join(map(str, partitions))} is not known: their next unread records have "
        "Kafka timestamps before 2000, and Kafka may delete them at any time"
    )
