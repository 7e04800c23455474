"""The notebooks as they are scheduled: papermill's own command, with the tables and the executed copies in S3."""

from collections import Counter
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import nbformat
import pytest

from bronze.notebook.cells import RESULT_MIME, find_result
from sandbox.s3 import S3Sandbox
from tests.support.commands import run_command
from tests.support.events import BAD, make_events
from tests.support.lake import Lake
from tests.support.notebooks import CONFIG_FIELDS
from tests.support.object_store import repair
from tests.support.topic import Topic


def run_papermill(name: str, lake: Lake, given: dict[str, str], **environment: str) -> CompletedProcess[str]:
    """Run a notebook on the lake; its executed copy goes to the folder of the tables."""
    shared = {"kafka_brokers", "kafka_topic", "output_path", "dlq_path"} & set(CONFIG_FIELDS[name])
    parameters = {"use_sandbox": "False", **{field: getattr(lake.config, field) for field in shared}, **given}
    words = [word for pair in parameters.items() for word in ("-p", *pair)]
    output = f"{lake.config.output_path.replace('s3a://', 's3://')}.ipynb"
    return run_command("papermill", f"notebooks/{name}.ipynb", output, *words, "--no-progress-bar", **environment)


def execute(name: str, lake: Lake, s3: S3Sandbox, **given: str) -> tuple[dict[str, Any], Counter[str]]:
    """Run a notebook; return the result and the number of outputs of each kind that its copy in S3 has."""
    done = run_papermill(name, lake, given)
    assert done.returncode == 0, done.stderr
    assert " WARN " not in done.stderr
    copy = s3.file_system.open_input_stream(f"{lake.config.output_path.removeprefix('s3a://')}.ipynb").read()
    cells = nbformat.reads(copy.decode(), 4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []
    return find_result(cells)[RESULT_MIME], Counter(kind for output in outputs for kind in output.get("data", {}))


def test_the_backfill_adds_what_the_stream_left_out(topic: Topic, lake: Lake, s3: S3Sandbox):
    topic.produce(make_events(10))
    lake.ingest()
    topic.produce(make_events(20, first=10) + BAD)
    result, kinds = execute("backfill", lake, s3)
    assert (result["planned"], result["present"], result["valid"], result["invalid"]) == (28, 10, 20, 8)
    assert (kinds["image/png"], kinds["text/html"]) == (1, 2)
    assert len(set(lake.positions())) == len(lake.positions()) == 38


def test_papermill_says_before_the_run_that_its_client_is_missing(lake: Lake, tmp_path: Path):
    (tmp_path / "boto3.py").write_text("raise ImportError")
    done = run_papermill("backfill", lake, {}, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "The boto3 optional dependency is missing. Please run pip install papermill[s3]" in done.stderr
    assert "Executing notebook" not in done.stderr


@pytest.mark.soak  # 20 seconds, and test_messages.py runs it too, with our own command
def test_the_ingestion_fills_the_tables(topic: Topic, lake: Lake, s3: S3Sandbox):
    topic.produce(make_events(20) + BAD)
    result, kinds = execute("ingestion", lake, s3, checkpoint_path=lake.config.checkpoint_path)
    assert (result["records"], result["bronze_rows"], result["dlq_rows"]) == (28, 20, 8)
    assert (kinds["image/png"], kinds["text/html"]) == (4, 4)
    assert len(set(lake.positions())) == len(lake.positions()) == 28


@pytest.mark.soak  # 25 seconds, and the replay has a test without the notebook
def test_the_inspection_of_the_dlq_replays_what_is_valid_now(topic: Topic, lake: Lake, s3: S3Sandbox):
    topic.produce(make_events(10) + BAD)
    lake.ingest()
    repair(lake)
    result, kinds = execute("dlq_inspection", lake, s3, dry_run="False")
    assert (result["open"], result["appended"], result["still_failing"]) == (8, 1, 7)
    assert (kinds["image/png"], kinds["text/html"]) == (2, 7)
    assert lake.bronze.where("event_id = 'event-10'").count() == 1


@pytest.mark.soak  # 25 seconds, and the status has a test without the notebook
def test_the_monitoring_measures_tables_and_lag(topic: Topic, lake: Lake, s3: S3Sandbox):
    topic.produce(make_events(20) + BAD)
    lake.ingest()
    topic.produce(make_events(5))
    result, kinds = execute("table_monitoring", lake, s3, checkpoint_path=lake.config.checkpoint_path)
    assert (result["records"], result["invalid"], result["lag (records)"]) == (28, 8, 5)
    assert (kinds["image/png"], kinds["text/html"]) == (6, 10)
