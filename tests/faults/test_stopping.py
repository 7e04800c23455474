"""Stopping: the batch that runs is committed, none is begun, and the next start repeats nothing."""

import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from bronze.jars import get_spark_packages
from tests.conftest import Lake, Topic, make_events
from tests.faults.conftest import Ingestion, assert_complete
from tests.integration.test_ingestion import BAD

RECORDS = 3_000 + len(BAD)
SUBMIT = (
    "spark-submit",
    "--master",
    "local[2,4]",
    "--packages",
    ",".join(get_spark_packages()),
    "lib/bronze_ingestion.py",
)


@pytest.fixture
def busy(topic: Topic, lake: Lake) -> Lake:
    """A backlog of many small batches, so that the query is never idle."""
    topic.produce(make_events(3_000) + BAD)
    return replace(lake, config=replace(lake.config, max_offsets_per_trigger=40))


def assert_stopped(lake: Lake, ingestion: Ingestion, reason: str, exit_code: int = 0) -> None:
    """It ended after the batch that ran, and what follows adds the rest."""
    assert ingestion.wait() == exit_code, ingestion.log[-3000:]
    assert f"Stopping, asked by {reason}" in ingestion.log
    (last,) = re.findall(r"Stopped after batch (\d+)", ingestion.log)
    committed = [int(number) for number in re.findall(r"Batch (\d+): total", ingestion.log)]
    assert committed == list(range(int(last) + 1))
    assert "ERROR" not in ingestion.log
    assert "Traceback" not in ingestion.log
    assert max(int(p.name) for p in lake.list_checkpoint("commits") if p.name.isdigit()) == int(last)
    assert 0 < len(lake.positions()) < RECORDS
    assert_resumed(lake)


def assert_resumed(lake: Lake, present: int | None = 0) -> None:
    """The next start repeats nothing and ends complete."""
    summary = lake.ingest(max_offsets_per_trigger=0)
    assert present is None or summary.present == present
    assert_complete(lake, RECORDS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("writer", ["direct", "delta-spark"])
def test_a_signal_to_the_process(busy: Lake, start: Callable[..., Ingestion], number: signal.Signals, writer: str):
    ingestion = start(replace(busy.config, writer=writer)).wait_for("Batch 2: total").send(number)
    assert_stopped(busy, ingestion, number.name)


def test_sigterm_to_the_jvm_of_spark_submit(busy: Lake, start: Callable[..., Ingestion]):
    ingestion = start(busy.config, *SUBMIT, PYSPARK_PYTHON=sys.executable).wait_for("Batch 2: total")
    assert_stopped(busy, ingestion.send(signal.SIGTERM), "the end of the JVM", exit_code=143)
