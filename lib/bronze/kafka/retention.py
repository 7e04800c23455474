"""The headroom before data loss: the time until Kafka deletes a record that was not read yet.

Kafka deletes a log segment once its newest record is older than ``retention.ms``, but never the active segment. So the
next unread record is deleted at its Kafka timestamp plus ``retention.ms`` at the earliest, and later by up to a segment
(``segment.ms``, ``segment.bytes``). ``retention.bytes`` may delete it earlier, and is not considered. A timestamp in
the future counts as now, because Kafka keeps such a record longer. One before 2000 is ignored (``is_plausible``).
"""

import math
from dataclasses import dataclass
from datetime import datetime

from bronze.decode import EARLIEST
from bronze.kafka.client import KafkaClient
from bronze.kafka.topic import fetch_settings

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


def count_headroom(timestamp: int | None, retention: Retention, now: datetime) -> float:
    """Count the hours until Kafka may delete the next unread record.

    Args:
        timestamp: Its Kafka timestamp in milliseconds since 1970; None if all records are read.
        retention: The topic's retention.
        now: Time of the measurement.

    Returns:
        The hours; infinite if nothing waits or expires, NaN if unknown.
    """
    if timestamp is None or retention.hours == math.inf:
        return math.inf
    if retention.hours is None or timestamp * 1000 < EARLIEST:
        return math.nan
    return max(0.0, retention.hours - max(0.0, now.timestamp() * 1000 - timestamp) / _HOUR_MS)
