"""Backfills of a lake, and a race for their commit."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from bronze import backfill, writers
from bronze.config import BackfillConfig
from bronze.ops.backfill import BackfillResult
from tests.support.events import make_events
from tests.support.lake import Lake
from tests.support.topic import Topic

NAMES = ("kafka_brokers", "kafka_topic", "output_path", "dlq_path", "writer")
ALL = {"starting_offsets": "earliest"}


def configure_backfill(lake: Lake, **options: Any) -> BackfillConfig:
    """The lake's backfill; offsets may be given as a dict of partitions."""
    range_of = {} if any(name.startswith(("start", "end")) for name in options) else ALL
    given = {name: getattr(lake.config, name) for name in NAMES} | range_of | options
    as_json = {n: json.dumps({lake.config.kafka_topic: v}) for n, v in given.items() if isinstance(v, dict)}
    return BackfillConfig(**(given | as_json))


def run_backfill(lake: Lake, **options: Any) -> BackfillResult:
    return backfill(configure_backfill(lake, **options), lake.spark)


def fill(topic: Topic, count: int = 10) -> None:
    """Produce the same number of events to each of the three partitions."""
    for partition in range(3):
        topic.produce(make_events(count, first=partition * count), partition)


def let_commit_first(monkeypatch: pytest.MonkeyPatch, winner: Callable[[], Any]) -> None:
    """Run the winner between the write and the commit of the next batch."""
    original, waiting = writers.write_batch, [winner]

    def write(batch, task):
        written = original(batch, task)
        if waiting:
            waiting.pop()()
        return written

    monkeypatch.setattr(writers, "write_batch", write)
