"""Notebooks run with our command: it refuses a parameter that the notebook does not have, or that has a wrong type."""

from pathlib import Path

import nbformat
import pytest

from bronze import read_result
from bronze.notebook.run import main

CELLS = """
from bronze.errors import DataLossError
from bronze.notebook.cells import record_result
===
count: int = 5  # how many
name: str = "a"  # whose
is_fast: bool = False  # in a hurry
===
record_result(count=count, name=name, is_fast=is_fast)
===
if name == "lost":
    raise DataLossError("Kafka has deleted records before they were read: partition 3, offsets 5-9")
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS.split("===")]
    cells[1].metadata["tags"] = ["parameters"]
    path = tmp_path / "small.ipynb"
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=spec), path)
    return path


def run(notebook: Path, *arguments: str) -> int:
    return main([str(notebook), "-o", str(notebook.with_name("out.ipynb")), *arguments])


def test_the_command_line_counts_more_than_the_file(notebook: Path, capsys: pytest.CaptureFixture[str]):
    file = notebook.with_name("p.yaml")
    file.write_text("count: 7\nname: b\n")
    assert run(notebook, "-f", str(file), "-p", "name", "c", "-p", "is_fast", "true") == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split() for line in shown[-4:-1]] == [["count", "7"], ["name", "c"], ["is_fast", "True"]]


def test_the_result_has_the_id_of_the_run(notebook: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BRONZE_RUN_ID", "nightly")
    assert run(notebook) == 0
    assert read_result(notebook.with_name("out.ipynb"))["run_id"] == "nightly"


def test_an_unknown_parameter_fails_before_anything_runs(notebook: Path, capsys: pytest.CaptureFixture[str]):
    assert run(notebook, "-p", "nmae", "c") == 2
    assert "has no parameter nmae; it has: count, is_fast, name" in capsys.readouterr().err
    assert not notebook.with_name("out.ipynb").exists()


def test_a_value_of_another_type_fails(notebook: Path, capsys: pytest.CaptureFixture[str]):
    assert run(notebook, "-p", "count", "many") == 2
    assert "parameter count: expected a value of type int, got 'many'" in capsys.readouterr().err


def test_an_output_in_a_store_whose_client_is_missing_fails_before_anything_runs(
    notebook: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([str(notebook), "-o", "gs://bucket/out.ipynb"]) == 2
    message = capsys.readouterr().err
    assert "--output gs://bucket/out.ipynb cannot be written" in message and "papermill[s3]" in message


def test_a_failure_keeps_the_notebook_and_the_error_s_exit_code(notebook: Path, capsys: pytest.CaptureFixture[str]):
    assert run(notebook, "-p", "name", "lost") == 3
    assert "DataLossError: Kafka has deleted records" in capsys.readouterr().err
    assert nbformat.read(notebook.with_name("out.ipynb"), 4).cells[-1].outputs


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"count: 2026-13-45",
        b"count: " + b"9" * 5000,
        b"1: 2\nname: a",
        b"name: [",
        b"[" * 5000,
        b"name: 's3cret",
        b"name: s3cret: a",
        b"s3cret",
        b"a: &a [*a]\nb: \x00s3cret",
    ],
    ids=range(10),
)
def test_a_file_that_holds_no_parameters_is_named_and_not_quoted(
    notebook: Path, capsys: pytest.CaptureFixture[str], content: bytes
):
    file = notebook.with_name("p.yaml")
    file.write_bytes(content)
    assert run(notebook, "-f", str(file)) == 2
    shown = capsys.readouterr().err
    assert f"{file} is not a YAML file of parameters" in shown
    assert "s3cret" not in shown


def test_a_missing_notebook_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path / "no.ipynb") == 2
    assert "there is no file" in capsys.readouterr().err
