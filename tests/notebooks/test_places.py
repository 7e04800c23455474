"""What a notebook writes, and where, under papermill: no unrequested sample events, and paths as for a command."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from deltalake import DeltaTable

from bronze import read_result
from bronze.errors import ConfigError
from sandbox.kafka import KafkaSandbox
from sandbox.notebook import start_sandbox
from sandbox.topics import measure_topics
from tests.support.events import make_events
from tests.support.paths import ROOT
from tests.support.topic import Topic

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PLACE = """
from pathlib import Path
from bronze.notebook.cells import record_result, set_up_notebook
set_up_notebook()
===
output_path: str = "data/bronze"  # path of the bronze Delta table, created by the first ingestion
===
record_result(place=str(Path(output_path).resolve()))
"""


def papermill(notebook: Path, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "papermill", str(notebook), *arguments, "--no-progress-bar"]
    path = os.pathsep.join([str(ROOT / "lib"), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=env, timeout=300)


TYPE = "ConfigError: parameter use_sandbox: expected a value of type bool"
PLACE_ERROR = "ConfigError: use_sandbox is true, but output_path is '"
CASES = [
    *((notebook, ["-p", "use_sandbox", "false"], TYPE) for notebook in NOTEBOOKS),
    pytest.param(NOTEBOOKS[1], ["-p", "use_sandbox", "1"], TYPE, marks=pytest.mark.soak),
    (NOTEBOOKS[1], [], PLACE_ERROR),
    (NOTEBOOKS[2], [], PLACE_ERROR),
]


@pytest.mark.parametrize(("notebook", "given", "error"), CASES, ids=lambda v: getattr(v, "stem", None))
def test_no_sample_events_reach_named_tables(notebook: Path, given: list[str], error: str, tmp_path: Path):
    paths = {name: str(tmp_path / "lake" / name) for name in ("output_path", "dlq_path")}
    named = [text for name, path in paths.items() for text in ("-p", name, path)]
    sandbox = {"SANDBOX_DATA_DIR": str(tmp_path / "sandbox"), "SANDBOX_PORT": "0"}
    try:
        done = papermill(notebook, str(tmp_path / "out.ipynb"), *given, *named, cwd=ROOT, **sandbox)
    finally:
        started = KafkaSandbox(tmp_path / "sandbox").stop() if (tmp_path / "sandbox").exists() else False
    assert done.returncode == 1
    assert error in done.stderr
    assert not started
    assert not (tmp_path / "lake").exists()


def test_a_topic_on_the_running_sandbox_is_used_and_not_filled(
    kafka: KafkaSandbox, topic: Topic, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SANDBOX_DATA_DIR", str(kafka.data_dir))
    topic.produce(make_events(1))
    assert start_sandbox(topic.name) == kafka.brokers
    assert measure_topics(kafka.brokers)[topic.name].records == 1
    with pytest.raises(ConfigError, match="use_sandbox is true, but kafka_topic is 'orders'"):
        start_sandbox("orders")


@pytest.fixture
def airflow(tmp_path: Path) -> Path:
    """Another project, with its own project file."""
    (tmp_path / "airflow" / "dags").mkdir(parents=True)
    (tmp_path / "airflow" / "pyproject.toml").write_text('[project]\nname = "airflow"\n')
    return tmp_path / "airflow" / "dags"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A notebook in a checkout's ``notebooks/`` that records what a relative path resolves to."""
    folder = tmp_path / "checkout" / "notebooks"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", folder.parent)
    shutil.copy(ROOT / "notebooks" / "ingestion.ipynb", folder)
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in PLACE.split("===")]
    cells[1].metadata["tags"] = ["parameters"]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=spec), folder / "place.ipynb")
    return folder / "place.ipynb"


@pytest.mark.parametrize("arguments", [["-p", "output_path", "lake/b"], []], ids=["given", "default"])
def test_a_relative_path_begins_where_papermill_was_called(place: Path, airflow: Path, arguments: list[str]):
    done = papermill(place, "out.ipynb", *arguments, cwd=airflow)
    assert done.returncode == 0, done.stderr
    assert read_result(airflow / "out.ipynb")["place"] == str(airflow / (arguments[-1] if arguments else "data/bronze"))


def test_a_relative_path_begins_in_the_folder_that_papermill_is_told(place: Path, airflow: Path, tmp_path: Path):
    done = papermill(place, str(tmp_path / "out.ipynb"), "--cwd", str(airflow.parent), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_result(tmp_path / "out.ipynb")["place"] == str(airflow.parent / "data" / "bronze")


def test_in_jupyterlab_a_relative_path_begins_at_the_checkout(place: Path, tmp_path: Path):
    """JupyterLab starts kernels in the notebook's folder, and so does nbmake."""
    done = papermill(place, str(tmp_path / "out.ipynb"), "--cwd", str(place.parent), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_result(tmp_path / "out.ipynb")["place"] == str(tmp_path / "checkout" / "data" / "bronze")


def test_our_own_command_resolves_a_relative_path_as_papermill_does(place: Path, airflow: Path):
    command = [sys.executable, "-m", "bronze.notebook.run", str(place), "-p", "output_path", "lake/b"]
    done = subprocess.run(command, cwd=airflow, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert read_result(airflow / "runs" / "place.ipynb")["place"] == str(airflow / "lake" / "b")


@pytest.mark.soak
def test_the_ingestion_of_another_project_writes_where_it_was_called(topic: Topic, airflow: Path):
    topic.produce(make_events(5))
    parameters = airflow / "p.yaml"
    parameters.write_text(
        f"use_sandbox: false\nkafka_brokers: {topic.brokers}\nkafka_topic: {topic.name}\n"
        "output_path: lake/b\ndlq_path: lake/d\ncheckpoint_path: lake/c\n"
    )
    done = papermill(ROOT / "notebooks" / "ingestion.ipynb", "out.ipynb", "-f", "p.yaml", cwd=airflow)
    assert done.returncode == 0, done.stderr
    assert DeltaTable(str(airflow / "lake" / "b")).count() == 5
    assert not (airflow.parent / "lake").exists()
