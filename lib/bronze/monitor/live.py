"""The metrics and the health of a run: from its events, and from a thread that looks at the query and asks Kafka."""

import json
import logging
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime

from bronze.config import IngestConfig
from bronze.errors import BronzeError, ConfigError
from bronze.kafka.retention import Retention, count_headroom, fetch_retention
from bronze.kafka.times import read_next_timestamps
from bronze.kafka.topic import fetch_offsets
from bronze.observe.health import STUCK_SECONDS, Health
from bronze.observe.metrics import INSTALL, Metrics
from bronze.observe.run_metrics import RunMetrics
from bronze.observe.summary import Batch
from bronze.offsets import Bounds
from bronze.pipeline import Pipeline
from bronze.runtime.paths import find_class
from bronze.stop_http import Page

log = logging.getLogger(__name__)
# Seconds: between two looks at the query, two questions for the offsets, and two for the retention and timestamps.
_TICK, _LAG_SECONDS, _HEADROOM_SECONDS = 2, 15, 60
_REFUSED_SECONDS = 3600
_CLOSE_SECONDS = 5
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def make_metrics(pipeline: Pipeline, config: IngestConfig) -> RunMetrics | None:
    """The metrics; None if the port is only for stop calls, because prometheus-client is missing."""
    try:
        metrics = Metrics("ingest", pipeline.topic.name)
    except ConfigError:
        if config.metrics_file:
            raise
        return None
    return RunMetrics(metrics, pipeline.spark.version, config.checkpoint_path)


class LiveState:
    """The state of a run that ``/metrics`` and ``/health`` show."""

    def __init__(self, pipeline: Pipeline, config: IngestConfig, metrics: RunMetrics | None):
        self._pipeline, self._config, self._metrics = pipeline, config, metrics
        self.health = Health(STUCK_SECONDS + _read_interval(pipeline, config))
        self._next: dict[int, int] = {}
        self._retention: Retention | None = None
        self._asked = self._measured = self._refused = float("-inf")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)

    def on_start(self) -> None:
        """Start to look."""
        self._thread.start()

    def on_batch(self, batch: Batch) -> None:
        """Count a batch."""
        self._next = {**self._next, **batch.ends}
        self.health.note_progress()
        if self._metrics:
            self._metrics.on_batch(batch)

    def on_failure(self, error: BronzeError) -> None:
        """Note that the query does not run until it is restarted."""
        self.health.failure = error.problem
        if self._metrics:
            self._metrics.on_failure(error)

    def on_end(self, error: BaseException | None) -> None:
        """Note how the run ended, and write the file."""
        self._end.set()
        self._thread.join(_CLOSE_SECONDS)
        if error is not None:
            self.health.failure = str(error) or type(error).__name__
        if self._metrics:
            self._metrics.on_end(error)
            if self._config.metrics_file:
                if error is None and not self._thread.is_alive():
                    with suppress(Exception):  # the JVM may be shutting down; the rest is worth writing
                        self._ask_kafka(with_headroom=True)
                self._metrics.metrics.write(self._config.metrics_file)

    def show_metrics(self) -> Page:
        """The answer of ``/metrics``."""
        if self._metrics:
            return 200, _TEXT, self._metrics.metrics.render()
        return 501, "text/plain; charset=utf-8", f"metrics need the package prometheus-client: {INSTALL}\n".encode()

    def show_health(self) -> Page:
        """The answer of ``/health``."""
        state = self.health.describe()
        return 503 if state["reasons"] else 200, "application/json", json.dumps(state).encode() + b"\n"

    def _watch(self) -> None:
        try:
            if found := self._pipeline.get_checkpoint(self._config.checkpoint_path).read():
                self._next = {**found.next_offsets, **self._next}
        except Exception as error:  # the start itself reports a damaged checkpoint
            log.debug("monitor: no offsets from the checkpoint: %s", error)
        while not self._end.wait(_TICK):
            try:
                self._look()
            except Exception as error:  # such as of a JVM that is shutting down
                log.debug("monitor: %s: %s", type(error).__name__, error)

    def _look(self) -> None:
        is_up = any(q.name == f"bronze-{self._pipeline.topic.name}" for q in self._pipeline.spark.streams.active)
        if is_up:
            self.health.failure = ""
        if self._metrics:
            self._metrics.metrics.set("bronze_query_up", int(is_up))
        now = time.monotonic()
        if now - self._asked >= _LAG_SECONDS:
            self._asked = now
            self._ask_kafka(now - self._measured >= _HEADROOM_SECONDS)

    def _ask_kafka(self, with_headroom: bool) -> None:
        """Ask for the offsets that Kafka holds, once: the stream itself waits for Kafka and logs that it does."""
        next_offsets = self._next
        partitions = {*self._pipeline.topic.partitions, *next_offsets}
        try:
            available = fetch_offsets(self._pipeline.kafka, partitions, timeout=0)
        except BronzeError as error:
            self.health.note_silence(error.problem)
            if self._metrics:
                self._metrics.metrics.set("bronze_kafka_up", 0)
            return
        known = {p: bounds for p, bounds in available.items() if p in next_offsets}
        lag = {p: max(0, end - max(next_offsets[p], earliest)) for p, (earliest, end) in known.items()}
        self.health.note_lag(sum(lag.values()) if known else None)
        if self._metrics:
            self._metrics.note_lag(lag)
            self._metrics.note_offsets(next_offsets)
            if with_headroom and known:
                self._metrics.note_headroom(self._measure_headroom(next_offsets, known))
                self._measured = time.monotonic()

    def _measure_headroom(self, next_offsets: dict[int, int], known: Bounds) -> dict[int, float]:
        retention = self._fetch_retention()
        unread = read_next_timestamps(self._pipeline.kafka, next_offsets, known)
        now = datetime.now(UTC)
        return {
            p: 0.0 if next_offsets[p] < earliest else count_headroom(unread.get(p), retention, now)
            for p, (earliest, _) in known.items()
        }

    def _fetch_retention(self) -> Retention:
        """Ask for the topic's retention, which may change; once an hour if Kafka refuses, which logs a warning."""
        if self._retention is None or time.monotonic() - self._refused >= _REFUSED_SECONDS:
            self._retention = fetch_retention(self._pipeline.kafka)
            self._refused = time.monotonic() if self._retention.hours is None else float("-inf")
        return self._retention


def _read_interval(pipeline: Pipeline, config: IngestConfig) -> float:
    """The trigger interval in seconds, from Spark's own parser; the start has checked it."""
    trigger = find_class(pipeline.spark, "org.apache.spark.sql.streaming.Trigger")
    return float(trigger.ProcessingTime(config.trigger_interval).intervalMs()) / 1000
