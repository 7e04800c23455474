"""The command line: its flags are the configuration's fields, and it responds without Spark where possible."""

import os
import re
import subprocess
import sys
import time
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest

from bronze.cli import build_parser, main
from bronze.config import IngestConfig
from tests.support.commands import run_bronze
from tests.support.pages import read_page

OPTIONS = {field.name: field for field in fields(IngestConfig)}
PATHS = ["--checkpoint-path", "/lake/c", "--output-path", "/lake/b"]
REQUIRED = ["--kafka-brokers", "localhost:9092", *PATHS]


def squeeze(text: str) -> str:
    """Remove white space, because help texts are wrapped, also after a hyphen."""
    return "".join(text.split())


@pytest.fixture(scope="module")
def help_text() -> str:
    shown = run_bronze("ingest", "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    return shown.stdout


def parse(*arguments: str) -> dict[str, Any]:
    given = vars(build_parser().parse_args(["ingest", *arguments]))
    assert given.pop("command") == "ingest"
    return given


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_help_has_the_flag_and_the_help_text_of_each_field(option: Field[Any], help_text: str):
    assert f"--{option.name.replace('_', '-')}" in help_text
    assert squeeze(option.metadata["help"]) in squeeze(help_text)


def test_the_flags_are_the_fields_and_the_way_to_accept_data_loss(help_text: str):
    flags = set(re.findall(r"^\s+(--[a-z-]+)", help_text, re.MULTILINE))
    assert flags == {f"--{name.replace('_', '-')}" for name in OPTIONS} | {"--accept-data-loss"}


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_help_names_the_default_of_each_field_that_has_one(option: Field[Any], help_text: str):
    assert option.default is not MISSING
    if type(option.default) is not bool and option.default:
        assert squeeze(f"{option.metadata['help']} (default: {option.default})") in squeeze(help_text)


def test_help_names_the_exit_codes(help_text: str):
    assert squeeze("exit codes: 0 done or stopped as asked; 1 ") in squeeze(help_text)


def test_help_comes_within_a_second():
    def measure() -> float:
        started = time.perf_counter()
        run_bronze("ingest", "--help")
        return time.perf_counter() - started

    assert min(measure() for _ in range(3)) < 1


@pytest.mark.parametrize("arguments", [["ingest", "--help"], ["ingest", *REQUIRED, "--startup-timeout", "0"]])
def test_help_and_bad_values_are_answered_without_the_large_libraries(arguments: list[str]):
    code = f"""
import sys
from bronze.cli import main
try:
    main({arguments})
except SystemExit:
    pass
print(sorted({{"pyspark", "pyarrow", "pandas", "deltalake", "py4j"}} & set(sys.modules)), file=sys.stderr)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert shown.stderr.splitlines()[-1] == "[]"


def test_flags_not_given_are_left_to_the_configuration():
    assert parse(*REQUIRED) == {
        "kafka_brokers": "localhost:9092",
        "checkpoint_path": "/lake/c",
        "output_path": "/lake/b",
    }


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--kafka-topic", "mine"], "kafka_topic", "mine"),
        (["--dlq-path=/lake/dlq"], "dlq_path", "/lake/dlq"),
        (["--dlq-path", ""], "dlq_path", ""),
        (["--trigger-interval", "30 seconds"], "trigger_interval", "30 seconds"),
        (["--max-offsets-per-trigger", "500"], "max_offsets_per_trigger", 500),
        (["--startup-timeout", "5"], "startup_timeout", 5),
        (["--writer", "delta-spark"], "writer", "delta-spark"),
        (["--available-now"], "available_now", True),
        (["--with-metrics"], "with_metrics", True),
        (["--fail-on-data-loss"], "fail_on_data_loss", True),
        (["--accept-data-loss"], "fail_on_data_loss", False),
    ],
)
def test_a_flag_sets_its_field(arguments: list[str], name: str, value: Any):
    given = parse(*REQUIRED, *arguments)
    assert given[name] == value
    assert getattr(IngestConfig(**given), name) == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: --kafka-brokers, --output-path, --checkpoint-path"),
        (PATHS, "required: --kafka-brokers"),
        ([*REQUIRED, "--unknown"], "unrecognized arguments: --unknown"),
        ([*REQUIRED, "stray"], "unrecognized arguments: stray"),
        ([*REQUIRED, "--dlq", "/lake/d"], "unrecognized arguments: --dlq"),
        ([*REQUIRED, "--available"], "unrecognized arguments: --available"),
        ([*REQUIRED, "--dlq_path", "/lake/d"], "unrecognized arguments: --dlq_path"),
        ([*REQUIRED, "--http-token=s3cret"], "unrecognized arguments: --http-token"),
        ([*REQUIRED, "--http-token", "s3cret"], "unrecognized arguments: --http-token"),
        ([*REQUIRED, "--max-offsets-per-trigger", "many"], "argument --max-offsets-per-trigger: invalid int value"),
        ([*REQUIRED, "--startup-timeout", "1.5"], "argument --startup-timeout: invalid int value: '1.5'"),
        ([*REQUIRED, "--writer", "fast"], "argument --writer: invalid choice: 'fast'"),
        ([*REQUIRED, "--dlq-path"], "argument --dlq-path: expected one argument"),
        ([*REQUIRED, "--available-now=yes"], "argument --available-now: ignored explicit argument 'yes'"),
    ],
)
def test_arguments_that_cannot_be_read_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    shown = refuse(capsys, *arguments)
    assert shown.startswith("usage: bronze ")
    assert message in shown.splitlines()[-1]
    assert "s3cret" not in shown


@pytest.mark.parametrize("arguments", [[], ["digest"]])
def test_a_command_is_required(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(arguments)
    assert ended.value.code == 2
    assert "command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--startup-timeout", "0"], "--startup-timeout: expected a whole number from 1 to 31,622,400, got 0"),
        (["--max-offsets-per-trigger", "-1"], "--max-offsets-per-trigger: expected a whole number from 0"),
        (["--kafka-brokers", " "], "--kafka-brokers is required: Kafka bootstrap servers"),
        (["--kafka-topic", ""], "--kafka-topic is required: Kafka topic to read"),
        (["--starting-offsets", "{"], "--starting-offsets: expected earliest, latest or JSON"),
        (["--dlq-path", "/lake/b/dlq"], "--dlq-path: expected a path outside --output-path (/lake/b)"),
        (["--kafka-config", "/no/such"], "--kafka-config: expected a readable Kafka properties file"),
    ],
)
def test_a_bad_value_is_one_message_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["ingest", *REQUIRED, *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"bronze: {message}")
    assert len(shown.err.splitlines()) == 1


def test_a_bad_value_ends_the_process_with_code_2_where_there_is_no_java():
    ended = run_bronze("ingest", *REQUIRED, "--startup-timeout", "0")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == "bronze: --startup-timeout: expected a whole number from 1 to 31,622,400, got 0\n"


def test_an_unknown_flag_ends_the_process_with_code_2():
    ended = run_bronze("ingest", *REQUIRED, "--unknown")
    assert ended.returncode == 2
    assert ended.stderr.endswith("error: unrecognized arguments: --unknown\n")


def test_an_interrupt_before_the_query_is_one_line_and_exit_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupt(config: IngestConfig) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bronze.stream.ingest", interrupt)
    assert main(["ingest", *REQUIRED]) == 130
    *_, last = capsys.readouterr().err.splitlines()
    assert last == "bronze: interrupted; run the same command again to continue"


@pytest.mark.parametrize("version", ["3.5.7", "4.0.1", "4.1.1", "5.0.0"])
def test_another_spark_ends_with_exit_2_and_the_version_that_is_needed(tmp_path: Path, version: str):
    (tmp_path / "pyspark").mkdir()
    (tmp_path / "pyspark" / "__init__.py").write_text(f'__version__ = "{version}"')
    command = [sys.executable, "-m", "bronze", "ingest", *REQUIRED]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"the driver's Spark is {version}, from {tmp_path}/pyspark; Spark 4.2 is needed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "left", [{"PYSPARK_GATEWAY_PORT": "1", "PYSPARK_GATEWAY_SECRET": "x"}, {"PYSPARK_GATEWAY_PORT": ""}]
)
def test_a_left_over_variable_of_spark_submit_is_named(left: dict[str, str]):
    command = [sys.executable, "-m", "bronze", "ingest", *REQUIRED]
    done = subprocess.run(command, env={**os.environ, **left}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "bronze: PYSPARK_GATEWAY_PORT is set, but at that port there is no JVM"
    )


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("bronze_ingestion", "bronze: another package called bronze is imported, "),
        ("bronze", "No module named bronze.__main__"),
        ("bronze.notebook.run", "No module named 'bronze.notebook'"),
    ],
)
def test_the_troubleshooting_has_the_message_about_another_package_called_bronze(
    module: str, message: str, tmp_path: Path
):
    (tmp_path / "bronze").mkdir()
    (tmp_path / "bronze" / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", module], env=environment, capture_output=True, text=True)
    assert message in done.stderr and message in read_page("docs/troubleshooting.md")
    assert "Traceback" not in done.stderr
