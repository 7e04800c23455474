"""Observes a running ingestion from outside: metrics, health, the consumer group and lineage.

The stream only reports its batches and failures. Nothing here can delay a batch for long or fail it: what asks Kafka or
a receiver runs in other threads, and an error is a warning. A part is loaded only if the configuration asks for it.
"""

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from bronze.config import IngestConfig
from bronze.errors import BronzeError
from bronze.observe.summary import Batch
from bronze.pipeline import Pipeline
from bronze.stop_http import Page

log = logging.getLogger(__name__)


class Part(Protocol):
    """A part of the monitor."""

    def on_start(self) -> None:
        """The run starts."""

    def on_batch(self, batch: Batch) -> None:
        """A batch is committed to the tables."""

    def on_failure(self, error: BronzeError) -> None:
        """The query failed, and will be restarted."""

    def on_end(self, error: BaseException | None) -> None:
        """The run ends."""


class Monitor:
    """Passes the events of a run to its parts, and answers ``/metrics`` and ``/health``."""

    def __init__(self, parts: list[Part], pages: dict[str, Callable[[], Page]]):
        self._parts, self._pages = parts, pages

    def on_batch(self, batch: Batch) -> None:
        """Report a batch that is committed to the tables."""
        self._tell("on_batch", batch)

    def on_failure(self, error: BronzeError) -> None:
        """Report a failure after which the query is restarted."""
        self._tell("on_failure", error)

    def answer(self, path: str) -> Page | None:
        """The page at a path; None if there is none."""
        page = self._pages.get(path)
        return page() if page else None

    def __enter__(self) -> "Monitor":
        self._tell("on_start")
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._tell("on_end", error)

    def _tell(self, event: str, *values: Any) -> None:
        for part in self._parts:
            try:
                getattr(part, event)(*values)
            except Exception as error:  # monitoring never fails a run
                log.warning("monitoring failed, the ingestion continues: %s: %s", type(error).__name__, error)


def make_monitor(pipeline: Pipeline, config: IngestConfig) -> Monitor:
    """Start the parts that the configuration asks for.

    Raises:
        ConfigError: A part needs a package that is not installed.
    """
    parts: list[Part] = []
    pages: dict[str, Callable[[], Page]] = {}
    if config.commit_group:
        from bronze.monitor.group import GroupCommits

        parts.append(GroupCommits(pipeline.kafka, config.commit_group))
    if config.lineage_url:
        from bronze.observe.lineage import Lineage

        parts.append(Lineage(config, pipeline.spark.version, pipeline.tables))
    if config.http_port or config.metrics_file:
        from bronze.monitor.live import LiveState, make_metrics

        live = LiveState(pipeline, config, make_metrics(pipeline, config))
        parts.append(live)
        pages = {"/metrics": live.show_metrics, "/health": live.show_health}
    return Monitor(parts, pages)
