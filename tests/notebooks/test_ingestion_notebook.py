"""The ingestion notebook as it is scheduled, with papermill, and its recorded result."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
import yaml

from bronze import read_result
from sandbox.kafka import KafkaSandbox
from sandbox.produce import produce
from sandbox.topics import create_topic
from tests.support.paths import ROOT

NOTEBOOK = ROOT / "notebooks" / "ingestion.ipynb"


@pytest.fixture
def parameters(kafka: KafkaSandbox, tmp_path: Path) -> dict[str, Any]:
    """The notebook's parameters for a separate topic and lake, on the tests' broker."""
    paths = {name: str(tmp_path / name) for name in ("checkpoint_path", "output_path", "dlq_path")}
    topic = f"notebook-{tmp_path.name}"
    return {**paths, "use_sandbox": False, "kafka_brokers": kafka.brokers, "kafka_topic": topic}


def execute(parameters: dict[str, Any], output: Path) -> dict[str, Any]:
    papermill.execute_notebook(NOTEBOOK, output, parameters, kernel_name="python3", progress_bar=False)
    return read_result(output)


def run_papermill(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), *arguments, "--no-progress-bar"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment})


def test_small_and_large_runs_record_what_was_produced_and_nothing_twice(
    parameters: dict[str, Any], kafka: KafkaSandbox, tmp_path: Path
):
    """The small run, with papermill's own command and the production parameter file filled in."""
    produce(kafka.brokers, parameters["kafka_topic"], 200, 0.05)
    production = yaml.safe_load((ROOT / "notebooks" / "params" / "production.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**production, **parameters}))
    done = run_papermill(str(tmp_path / "small.ipynb"), "-f", str(tmp_path / "mine.yaml"))
    assert done.returncode == 0, done.stderr
    small = read_result(tmp_path / "small.ipynb")
    assert (small["records"], small["invalid"], small["batches"]) == (200, 10, 1)
    assert_shows_all(tmp_path / "small.ipynb")
    produce(kafka.brokers, parameters["kafka_topic"], 6_000, 0.02)
    large = execute({**parameters, "max_offsets_per_trigger": 1_500}, tmp_path / "large.ipynb")
    assert (large["records"], large["invalid"]) == (6_000, 120)
    assert (large["bronze_rows"], large["dlq_rows"]) == (6_070, 130)
    assert large["batches"] >= 4
    assert_shows_all(tmp_path / "large.ipynb")


def assert_shows_all(executed: Path) -> None:
    """The notebook shows its tables and plots, and no warnings."""
    outputs = [o for cell in nbformat.read(executed, 4).cells for o in cell.get("outputs", [])]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") == 4
    assert kinds.count("text/html") == 4
    assert [o["text"] for o in outputs if o.get("name") == "stderr"] == []


@pytest.mark.soak
def test_without_a_dlq_and_without_records_it_ends_well(
    parameters: dict[str, Any], kafka: KafkaSandbox, tmp_path: Path
):
    create_topic(kafka.brokers, parameters["kafka_topic"], 2)
    result = execute({**parameters, "dlq_path": ""}, tmp_path / "out.ipynb")
    assert (result["records"], result["bronze_rows"]) == (0, 0)


def test_the_production_file_fails_until_brokers_are_filled_in(tmp_path: Path):
    done = run_papermill(str(tmp_path / "out.ipynb"), "-f", str(ROOT / "notebooks" / "params" / "production.yaml"))
    assert done.returncode == 1
    assert "--kafka-brokers is required" in done.stderr
    assert (tmp_path / "out.ipynb").exists()


def test_brokers_beside_the_sandbox_are_refused(tmp_path: Path):
    done = run_papermill(str(tmp_path / "out.ipynb"), "-p", "kafka_brokers", "broker:9092")
    assert done.returncode == 1
    assert "use_sandbox is true, but kafka_brokers is 'broker:9092'" in done.stderr


def test_an_executed_notebook_holds_no_word_of_a_password(parameters: dict[str, Any], tmp_path: Path):
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    properties = tmp_path / "kafka.properties"
    properties.write_text(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n"
        f"sasl.jaas.config={module} required username=u password=first c4nary;\n"
    )
    with pytest.raises(papermill.PapermillExecutionError, match="about sasl.jaas.config"):
        execute({**parameters, "kafka_config": str(properties)}, tmp_path / "out.ipynb")
    executed = (tmp_path / "out.ipynb").read_text()
    assert "about sasl.jaas.config" in executed
    assert "c4nary" not in executed
