"""Crashes: wherever ``kill -9`` hits, uncommitted records are read again and committed ones are skipped."""

import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable

from bronze.config import AuditConfig
from bronze.runtime.jars import get_spark_packages
from sandbox.system import find_free_port
from tests.support.audit import assert_complete
from tests.support.cluster import CLUSTER, find_paused_executor, run_cluster
from tests.support.commands import list_flags
from tests.support.events import BAD, make_event, make_events
from tests.support.ingestion import PAUSE, PAUSE_SCRIPT, Ingestion
from tests.support.kills import LONG, count_batches
from tests.support.lake import EITHER_WRITER, Lake
from tests.support.paths import ROOT
from tests.support.schema_change import change_schema, migrate_bronze, run_changed
from tests.support.topic import Topic
from tests.support.waiting import wait_until

SUBMIT = ("spark-submit", "--packages", ",".join(get_spark_packages()))


@pytest.fixture
def begun(topic: Topic, lake: Lake) -> Lake:
    """Tables with 44 records of an earlier batch, and 108 records that are not read yet."""
    topic.produce(make_events(40) + BAD[:4])
    lake.ingest()
    topic.produce(make_events(100, first=40) + BAD)
    return lake


def list_strays(lake: Lake) -> set[Path]:
    """Files of the tables that no commit refers to."""
    files: set[Path] = set()
    for path in (lake.config.output_path, lake.config.dlq_path):
        files |= set(Path(path).rglob("*.parquet")) - {Path(uri) for uri in DeltaTable(path).file_uris()}
    return {file for file in files if "_delta_log" not in file.parts}


def count_rows(lake: Lake) -> tuple[int, int]:
    """Rows of bronze and of the DLQ."""
    return DeltaTable(lake.config.output_path).count(), DeltaTable(lake.config.dlq_path).count()


# The rows in the tables when a batch of 100 valid and 8 invalid records is killed.
MOMENTS = {
    "before the write": (0, 0),
    "during the write": (0, 0),
    "between the commits": (0, 8),
    "before the checkpoint's commit": (100, 8),
}


@pytest.mark.parametrize("writer", EITHER_WRITER)
@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_9_at_each_moment_of_a_batch(begun: Lake, start: Callable[..., Ingestion], moment: str, writer: str):
    ingestion = start(replace(begun.config, writer=writer), *PAUSE, PAUSE_AT=moment).wait_for(f"Paused {moment}", LONG)
    if moment == "during the write":
        wait_until(lambda: bool(list_strays(begun)))
    ingestion.kill()
    valid, invalid = MOMENTS[moment]
    assert count_rows(begun) == (40 + valid, 4 + invalid)
    assert begun.ingest(writer=writer).counts.present == valid + invalid
    assert_complete(begun, 152)


@pytest.mark.parametrize("moment", ["between the tables", "before the checkpoint is bound"])
def test_kill_9_while_the_tables_are_made(topic: Topic, lake: Lake, start: Callable[..., Ingestion], moment: str):
    topic.produce(make_events(20) + BAD)
    start(lake.config, *PAUSE, PAUSE_AT=moment).wait_for(f"Paused {moment}", LONG).kill()
    assert [path.name for path in Path(lake.config.checkpoint_path).iterdir()] == ["bronze.lock"]
    assert lake.ingest().counts.total == 28
    assert_complete(lake, 28)


@pytest.mark.parametrize("writer", [pytest.param("direct", marks=pytest.mark.soak), "delta-spark"])
def test_kill_9_between_the_commits_and_then_a_changed_schema(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], tmp_path: Path, writer: str
):
    """Status codes become strings: the DLQ's records are now valid, and most of those meant for bronze are not."""
    numbers = [make_event(n, response={"status_code": 200}) for n in range(30)]
    texts = [make_event(n, response={"status_code": "200"}) for n in range(20)]
    topic.produce(numbers + texts + [make_event(n, response={}) for n in range(10)])
    config = replace(lake.config, writer=writer)
    start(config, *PAUSE, PAUSE_AT="between the commits").wait_for("Paused", LONG).kill()
    assert count_rows(lake) == (0, 20)
    migrate_bronze(lake)
    commands = ["ingest", *list_flags(config)], ["audit", *list_flags(lake.configure(AuditConfig))]
    done = run_changed(change_schema(tmp_path), *commands)
    assert done.stdout.splitlines()[-1] == "[0, 0]", done.stdout + done.stderr
    assert "60 records in 1 batches: 10 valid, 30 invalid, 20 already in the tables" in done.stdout
    assert "(10 in bronze, 50 in the DLQ); lag 0" in done.stdout


@pytest.mark.soak
def test_a_machine_that_is_lost_in_the_middle_of_a_batch(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], tmp_path: Path
):
    """A task has written its files but not reported to the driver when its executor and its worker are killed."""
    topic.produce(make_events(500) + BAD)
    with run_cluster(tmp_path, workers=2, cores=1) as url:
        command = [*SUBMIT, *CLUSTER, url, PAUSE_SCRIPT, "ingest"]
        pause = {"PAUSE_AT": "during the write", "PYSPARK_PYTHON": sys.executable}
        ingestion = start(lake.config, *command, **pause)
        for process in find_paused_executor(tmp_path / "work", ingestion):
            process.kill()
        assert ingestion.wait(LONG) == 0, ingestion.log[-3000:]
    assert "Lost executor" in ingestion.log
    assert list_strays(lake)
    assert_complete(lake, 508)


@pytest.mark.soak
def test_a_driver_on_other_ports_and_in_another_folder_goes_on(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], tmp_path: Path
):
    topic.produce(make_events(3_000) + BAD)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first = submit(start, lake, cwd=ROOT, max_offsets_per_trigger=40)
    first.wait_for("Batch 2: total", LONG).send(signal.SIGTERM).wait(LONG)
    assert "StackOverflowError" not in first.log
    second = submit(start, lake, cwd=elsewhere)
    assert second.wait(LONG) == 0, second.log[-3000:]
    assert re.findall(r"Batch (\d+): total", second.log)[0] == str(count_batches(first))
    assert "already in the tables" not in second.log
    assert_complete(lake, 3_008)


def submit(start: Callable[..., Ingestion], lake: Lake, cwd: Path, **changes: int) -> Ingestion:
    """spark-submit on separate ports."""
    ports = ["--conf", f"spark.driver.port={find_free_port()}", "--conf", f"spark.blockManager.port={find_free_port()}"]
    command = [*SUBMIT, "--master", "local[2,4]", *ports, str(ROOT / "lib" / "bronze_ingestion.py")]
    config = replace(lake.config, http_port=find_free_port(), **changes)
    return start(config, *command, cwd=cwd, PYSPARK_PYTHON=sys.executable)
