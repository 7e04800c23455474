"""What the demo arranges, so that its backfill and its replay have something to do."""

import json
import sys
import time

from sandbox.topics import fetch_bounds, fetch_newest_timestamp

EARLIEST = -2  # as Spark reads it


def choose_late_start(brokers: str, topic: str, records: int) -> str:
    """Return starting offsets that leave out the first records of the largest partition, of a small one half of it.

    Raises:
        BrokerNotReachable: No broker answers.
        KafkaException: There is no such topic.
    """
    bounds = fetch_bounds(brokers, topic)
    sizes = {partition: end - first for partition, (first, end) in bounds.items()}
    largest = max(sizes, key=lambda partition: sizes[partition])
    start = bounds[largest][0] + min(records, sizes[largest] // 2)
    return json.dumps({topic: {str(p): start if p == largest else EARLIEST for p in sizes}})


def wait_for_clock(brokers: str, topic: str) -> float:
    """Wait until no record is stamped later than now, and return the seconds; a broker allows an hour at the most.

    Raises:
        BrokerNotReachable: No broker answers.
        KafkaException: There is no such topic.
    """
    newest = fetch_newest_timestamp(brokers, topic) / 1000
    if (seconds := newest - time.time()) <= 0:
        return 0.0
    print(f"waiting {seconds:.0f} s, until the booked records are no longer too far ahead", file=sys.stderr)
    while (rest := newest - time.time()) >= 0:
        time.sleep(rest + 0.01)
    return seconds
