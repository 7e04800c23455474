"""`--log-format json` of a real run: each line of the log is an object, Spark's included, and has the run's id."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from deltalake import DeltaTable

from bronze.delta.ledger import decode_note
from tests.support.events import BAD, make_events
from tests.support.ingestion import Ingestion
from tests.support.lake import Lake
from tests.support.topic import Topic

JSON = {"log_format": "json"}


def read_lines(ingestion: Ingestion) -> list[dict]:
    """The lines of the log; the warnings of the JVM before Spark's log starts are left out."""
    return [json.loads(line) for line in ingestion.log.splitlines() if not line.startswith("WARNING: ")]


def test_every_line_is_an_object_with_the_run_s_id_and_the_commits_have_it_too(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion]
):
    topic.produce(make_events(30) + BAD)
    run = start(replace(lake.config, max_offsets_per_trigger=20, **JSON), BRONZE_RUN_ID="nightly")
    assert run.wait() == 0, run.log
    lines = read_lines(run)
    assert {line["run_id"] for line in lines} == {"nightly"}
    batches = [line for line in lines if line.get("event") == "batch"]
    assert [batch["batch"] for batch in batches] == [0, 1]
    assert sum(batch["counts"]["valid"] for batch in batches) == 30
    ends = [batch["offsets"] for batch in batches]
    assert all(ends[0][partition][1] == ends[1][partition][0] for partition in ends[0])
    assert [line.get("event") for line in lines][-2:] == ["result", "end"]
    notes = [decode_note(commit.get("userMetadata")) for commit in DeltaTable(lake.config.output_path).history()]
    assert {note.run_id for note in notes if note} == {"nightly"}


@pytest.mark.soak
def test_spark_s_own_warnings_are_objects_too(topic: Topic, lake: Lake, start: Callable[..., Ingestion]):
    """Spark warns of a setting that has another name since Spark 2.3."""
    topic.produce(make_events(5))
    loud = {"SPARK_SUBMIT_OPTS": "-Dspark.yarn.executor.memoryOverhead=1"}
    run = start(replace(lake.config, **JSON), BRONZE_RUN_ID="nightly", **loud)
    run.wait()
    spark = [line for line in read_lines(run) if line["logger"].startswith("org.apache.")]
    assert spark and {line["run_id"] for line in spark} == {"nightly"}


def test_an_error_is_the_last_line(lake: Lake, start: Callable[..., Ingestion]):
    run = start(replace(lake.config, kafka_topic="missing", **JSON))
    assert run.wait() == 2
    failed = read_lines(run)[-1]
    assert (failed["event"], failed["level"], failed["exit_code"]) == ("failed", "ERROR", 2)
    assert "missing" in failed["problem"]
