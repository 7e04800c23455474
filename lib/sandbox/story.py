"""Prepares the demo, so that its backfill and its replay find records."""

import json
import sys
import time

from sandbox.produce import CLOCK_AHEAD
from sandbox.topics import fetch_bounds, fetch_newest_timestamp

EARLIEST = -2  # Spark's number for the earliest offset


def choose_late_start(brokers: str, topic: str, records: int) -> str:
    """Return starting offsets that skip the first records of the largest partition, at most half of them.

    Raises:
        BrokerNotReachableError: No broker answers.
        KafkaException: There is no such topic.
    """
    bounds = fetch_bounds(brokers, topic)
    sizes = {partition: end - first for partition, (first, end) in bounds.items()}
    largest = max(sizes, key=lambda partition: sizes[partition])
    start = bounds[largest][0] + min(records, sizes[largest] // 2)
    return json.dumps({topic: {str(p): start if p == largest else EARLIEST for p in sizes}})


def wait_for_clock(brokers: str, topic: str) -> float:
    """Wait until booked records are valid, and return the seconds; ignore timestamps that lie further ahead.

    Raises:
        BrokerNotReachableError: No broker answers.
        KafkaException: There is no such topic.
    """
    newest = fetch_newest_timestamp(brokers, topic) / 1000
    seconds = newest - time.time()
    if not 0 < seconds <= CLOCK_AHEAD.total_seconds():
        return 0.0
    print(f"waiting {seconds:.0f} s until the booked records are no longer too far in the future", file=sys.stderr)
    while (rest := newest - time.time()) >= 0:
        time.sleep(rest + 0.01)
    return seconds
