"""The progress of a run over a backlog: batches done, records left, records per second, time left."""

import json
import logging
import time
from collections import deque
from dataclasses import dataclass

from pyspark.sql.streaming.listener import StreamingQueryProgress
from pyspark.sql.streaming.query import StreamingQuery

from bronze.runtime.logs import event

log = logging.getLogger(__name__)
# Seconds: the minimum time between two lines, and the window over which the rate is measured.
_INTERVAL = 10
_WINDOW = 60
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


@dataclass(frozen=True)
class Point:
    """The progress of a run at one moment.

    Attributes:
        seconds: The moment, on the monotonic clock.
        batches: Batches that this run has completed.
        left: Offsets that it has not read; transaction markers and deleted records are included.
    """

    seconds: float
    batches: int
    left: int


class Backlog:
    """The offsets that an ``available_now`` query has not read yet; logs at most one line in ten seconds.

    Spark fixes the end of the backlog when the query starts. A query of one batch logs nothing.
    """

    def __init__(self, query: StreamingQuery):
        self._query = query
        self._started = self._logged = time.monotonic()
        self._first_batch = self._batch = -1
        self._first = Point(self._started, 0, 0)
        self._points: deque[Point] = deque()

    def look(self) -> None:
        """Log the progress, if there was any since the last line. Called every second; it never waits."""
        newest = self._query.lastProgress
        if newest is None or newest.batchId == self._batch:
            return
        now, left = time.monotonic(), count_left(newest)
        if self._batch < 0:
            before = [each for each in self._query.recentProgress if each.batchId <= newest.batchId]
            self._first_batch = before[0].batchId
            self._points.append(Point(self._started, 0, left + sum(map(count_read, before))))
            self._first = self._points[0]
        self._batch = newest.batchId
        self._points.append(Point(now, self._batch - self._first_batch + 1, left))
        while len(self._points) > 2 and self._points[1].seconds <= now - _WINDOW:
            self._points.popleft()
        if left and now - self._logged >= _INTERVAL:
            self._logged = now
            fields = event("progress", batches=self._points[-1].batches, left=left)
            log.info("Progress: %s", format_progress(self._first, self._points[0], self._points[-1]), extra=fields)


def count_left(progress: StreamingQueryProgress) -> int:
    """Offsets from the end of a batch to the end of the backlog."""
    return sum(_count_between(source.endOffset, source.latestOffset) for source in progress.sources)


def count_read(progress: StreamingQueryProgress) -> int:
    """Offsets of a batch. For the first batch of a checkpoint Spark reports no start, so its records are counted."""
    return sum(
        _count_between(source.startOffset, source.endOffset)
        if _read_offsets(source.startOffset)
        else source.numInputRows
        for source in progress.sources
    )


def _count_between(first: str, end: str) -> int:
    """Offsets from one end to another. A partition that was added in between starts at 0."""
    starts = _read_offsets(first)
    return sum(max(0, last - starts.get(partition, 0)) for partition, last in _read_offsets(end).items())


def _read_offsets(text: str) -> dict[tuple[str, str], int]:
    """Parse the offsets that Kafka's source reports; empty if it does not know them yet."""
    by_topic = json.loads(text or "null") or {}
    return {(topic, partition): offset for topic, offsets in by_topic.items() for partition, offset in offsets.items()}


def format_progress(first: Point, recent: Point, now: Point) -> str:
    """The progress in one line; without the rate and the time left if nothing was read since ``recent``.

    Args:
        first: The start of the run.
        recent: The start of the window of the rate.
        now: The newest batch.
    """
    done = max(0, first.left - now.left)
    batches = f"{now.batches:,} batch" + ("" if now.batches == 1 else "es")
    text = f"{batches} done, {done:,} of {done + now.left:,} records; {now.left:,} left"
    seconds, read = now.seconds - recent.seconds, recent.left - now.left
    if seconds <= 0 or read <= 0:
        return text
    rate = read / seconds
    return f"{text} at {rate:,.0f} records/s, about {format_duration(now.left / rate)}"


def format_duration(seconds: float) -> str:
    """Seconds in the two largest units, such as ``3 min 20 s``; at least one second."""
    rest = max(1, round(seconds))
    parts: list[tuple[int, str]] = []
    for unit, size in _UNITS:
        if rest >= size or parts:
            parts.append((rest // size, unit))
            rest %= size
    return " ".join(f"{count:,} {unit}" for count, unit in parts[:2] if count)
