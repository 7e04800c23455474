"""Stopping: the current batch is committed, no other batch starts, and the next start repeats nothing."""

import errno
import json
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import papermill
import pytest

from bronze import read_result
from bronze.errors import TransientError
from bronze.runtime.jars import get_spark_packages
from bronze.stop import StopSwitch
from sandbox.system import find_free_port
from tests.support.audit import assert_complete
from tests.support.events import BAD, make_events
from tests.support.ingestion import BRONZE, PAUSE, SLOW, Ingestion
from tests.support.lake import Lake
from tests.support.paths import ROOT
from tests.support.topic import Topic

RECORDS = 3_000 + len(BAD)
NOTEBOOK_PARAMETERS = papermill.inspect_notebook(ROOT / "notebooks" / "ingestion.ipynb")
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
    """The run ended after the current batch, and the next run adds the rest."""
    assert ingestion.wait() == exit_code, ingestion.log[-3000:]
    assert f"Stopping (requested by {reason})" in ingestion.log
    (last,) = re.findall(r"Stopped after batch (\d+)", ingestion.log)
    committed = [int(number) for number in re.findall(r"Batch (\d+): total", ingestion.log)]
    assert committed == list(range(int(last) + 1))
    assert "ERROR" not in ingestion.log
    assert "Traceback" not in ingestion.log
    assert max(int(p.name) for p in lake.list_checkpoint("commits") if p.name.isdigit()) == int(last)
    assert 0 < len(lake.positions()) < RECORDS
    assert_resumed(lake)


def assert_resumed(lake: Lake, present: int | None = 0) -> None:
    """The next start repeats nothing, and the tables are then complete."""
    summary = lake.ingest(max_offsets_per_trigger=0)
    assert present is None or summary.counts.present == present
    assert_complete(lake, RECORDS)


@pytest.mark.parametrize(
    ("number", "writer"),
    [
        (signal.SIGTERM, "direct"),
        (signal.SIGINT, "delta-spark"),
        pytest.param(signal.SIGINT, "direct", marks=pytest.mark.soak),
        pytest.param(signal.SIGTERM, "delta-spark", marks=pytest.mark.soak),
    ],
)
def test_a_signal_to_the_process(busy: Lake, start: Callable[..., Ingestion], number: signal.Signals, writer: str):
    ingestion = start(replace(busy.config, writer=writer)).wait_for("Batch 2: total").send(number)
    assert_stopped(busy, ingestion, number.name)


def test_sigterm_to_the_jvm_of_spark_submit(busy: Lake, start: Callable[..., Ingestion]):
    ingestion = start(busy.config, *SUBMIT, PYSPARK_PYTHON=sys.executable).wait_for("Batch 2: total")
    assert_stopped(busy, ingestion.send(signal.SIGTERM), "the shutdown of the JVM", exit_code=143)


@pytest.fixture
def port() -> int:
    return find_free_port()


def call(port: int, path: str = "", method: str = "GET", **headers: str) -> tuple[int, object]:
    """Status and JSON of an HTTP call."""
    url = f"http://127.0.0.1:{port}/api/v1/applications{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method, headers=headers)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_an_http_call(busy: Lake, start: Callable[..., Ingestion], port: int):
    ingestion = start(replace(busy.config, http_port=port)).wait_for("Batch 2: total")
    _, [application] = call(port)
    assert call(port, "/local-1/stop", "POST")[0] == 404
    assert call(port, f"/{application['id']}/stop", "POST", Origin="http://evil.example")[0] == 403
    assert call(port, f"/{application['id']}/stop", "POST")[0] == 202
    assert_stopped(busy, ingestion, "an HTTP call")


@pytest.mark.soak
def test_an_http_call_needs_the_token_where_there_is_one(
    busy: Lake, start: Callable[..., Ingestion], port: int, tmp_path: Path
):
    (tmp_path / "token").write_text("s3cret-token\n")
    config = replace(busy.config, http_port=port, http_host="0.0.0.0", http_token_file=str(tmp_path / "token"))
    ingestion = start(config).wait_for("Batch 2: total")
    assert call(port)[0] == call(port, Authorization="Bearer wrong")[0] == 401
    _, [application] = call(port, Authorization="Bearer s3cret-token")
    assert call(port, f"/{application['id']}/stop", "POST", Authorization="Bearer s3cret-token")[0] == 202
    assert_stopped(busy, ingestion, "an HTTP call")
    assert "s3cret-token" not in ingestion.log


def test_a_stop_file_and_no_start_while_it_is_there(busy: Lake, start: Callable[..., Ingestion], tmp_path: Path):
    config = replace(busy.config, stop_file=str(tmp_path / "stop"))
    ingestion = start(config).wait_for("Batch 2: total")
    (tmp_path / "stop").touch()
    assert_stopped(busy, ingestion, f"the stop file {tmp_path / 'stop'}")
    refused = start(busy.config, *BRONZE, "--stop-file", str(tmp_path / "stop"))
    assert refused.wait() == 2
    assert "remove it to start" in refused.log


def test_a_second_signal_stops_at_once(busy: Lake, start: Callable[..., Ingestion]):
    slow = replace(busy.config, max_offsets_per_trigger=0, stop_timeout=600)
    ingestion = start(slow, *SLOW).wait_for("the batch begins").send(signal.SIGTERM).wait_for("Stopping (requested by")
    assert ingestion.send(signal.SIGTERM).wait(30) == 130
    assert "Stopping at once" in ingestion.log
    assert busy.positions() == []
    assert_resumed(busy)


@pytest.mark.parametrize("moment", ["at once", "while it waits for the checkpoint"])
def test_a_second_signal_does_not_wait_for_a_checkpoint_of_the_log(
    lake: Lake, topic: Topic, start: Callable[..., Ingestion], moment: str
):
    topic.produce(make_events(RECORDS))
    config = replace(lake.config, available_now=False, trigger_interval="1 second")
    ingestion = start(config, *PAUSE, PAUSE_AT="during a checkpoint of the log").wait_for("Paused")
    ingestion.wait_for("Batch 0: total").send(signal.SIGTERM)
    if moment != "at once":
        ingestion.wait_for("Stopped after batch")
    assert ingestion.send(signal.SIGINT).wait(30) == 130
    assert_resumed(lake, present=None)


def test_an_unexpected_error_stops_the_query(topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch):
    """Otherwise the query would go on in a notebook's session, without its lock and its stop requests."""
    topic.produce(make_events(RECORDS))
    with monkeypatch.context() as patch:
        patch.setattr("bronze.stream.check_stop_file", fail)
        with pytest.raises(RuntimeError, match="unexpected"):
            lake.ingest(available_now=False, trigger_interval="1 second")
    assert lake.spark.streams.active == []
    assert_resumed(lake, present=None)


def fail(*_: object) -> None:
    raise RuntimeError("unexpected")


def test_an_error_of_a_disk_while_the_stream_waits_restarts_it(
    topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch
):
    topic.produce(make_events(1_000))
    failures: list[OSError] = []

    def check(switch: StopSwitch, _: str) -> None:
        if not failures and lake.has_rows(1_000):
            topic.produce(make_events(RECORDS - 1_000, first=1_000))
            failures.append(OSError(errno.EIO, os.strerror(errno.EIO)))
            raise failures[0]
        if lake.has_rows(RECORDS):
            switch.request("the test")

    monkeypatch.setattr("bronze.stream.check_stop_file", check)
    assert lake.ingest(available_now=False, trigger_interval="1 second").restarts == 1
    assert_complete(lake, RECORDS)


def test_an_error_of_a_disk_without_a_restart_left_ends_the_run(
    topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch
):
    topic.produce(make_events(RECORDS))

    def fail_to_read(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("bronze.stream.check_stop_file", fail_to_read)
        with pytest.raises(TransientError, match="Input/output error"):
            lake.ingest(available_now=False, trigger_interval="1 second", max_restarts=0)
    assert_resumed(lake, present=None)


def test_the_stop_timeout_is_kept(busy: Lake, start: Callable[..., Ingestion]):
    slow = replace(busy.config, max_offsets_per_trigger=0, stop_timeout=2)
    ingestion = start(slow, *SLOW).wait_for("the batch begins").send(signal.SIGTERM)
    assert ingestion.wait(30) == 0, ingestion.log
    assert "longer than --stop-timeout, 2 s" in ingestion.log
    assert busy.positions() == []
    assert_resumed(busy)


def test_a_stream_that_waits_for_records_stops_without_a_batch(
    lake: Lake, topic: Topic, start: Callable[..., Ingestion]
):
    config = replace(lake.config, available_now=False, trigger_interval="1 second")
    ingestion = start(config).wait_for("Batch 0: empty").send(signal.SIGTERM)
    assert ingestion.wait(60) == 0
    assert "Stopped after batch 0" in ingestion.log
    topic.produce(make_events(RECORDS))
    assert_resumed(lake)


def list_papermill(lake: Lake, output: Path, *flags: str) -> list[str]:
    """The command that runs the ingestion notebook, and logs to standard error."""
    parameters = {field.name: getattr(lake.config, field.name) for field in fields(lake.config)}
    changed = {name: value for name, value in parameters.items() if name in NOTEBOOK_PARAMETERS}
    given = [word for name, value in changed.items() for word in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks" / "ingestion.ipynb"), str(output)]
    return [*command, "--log-output", "-p", "use_sandbox", "False", *given, *flags]


def find_kernel(notebook: Ingestion) -> int:
    """The process of the notebook's kernel."""
    children = Path(f"/proc/{notebook.process.pid}/task/{notebook.process.pid}/children").read_text().split()
    (kernel,) = [pid for pid in children if b"ipykernel_launcher" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return int(kernel)


def test_an_interrupt_of_the_notebook_s_kernel(busy: Lake, start: Callable[..., Ingestion], tmp_path: Path):
    """Like the stop button in JupyterLab: SIGINT to the kernel; the next cells show the ingested records."""
    notebook = start(None, *list_papermill(busy, tmp_path / "out.ipynb")).wait_for("Batch 2: total")
    os.kill(find_kernel(notebook), signal.SIGINT)
    assert_stopped(busy, notebook, "SIGINT")
    assert 0 < read_result(tmp_path / "out.ipynb")["records"] < RECORDS


@pytest.mark.soak
def test_papermill_s_time_out_repeats_one_batch_at_the_most(
    busy: Lake, start: Callable[..., Ingestion], tmp_path: Path
):
    """The kernel only gets a few seconds; a batch is then interrupted, or has not started."""
    endless = replace(busy, config=replace(busy.config, available_now=False, trigger_interval="0 seconds"))
    command = list_papermill(endless, tmp_path / "out.ipynb", "--execution-timeout", "45")
    notebook = start(None, *command)
    assert notebook.wait(180) == 1
    assert "A cell timed out" in notebook.log
    summary = busy.ingest(max_offsets_per_trigger=0)
    assert summary.counts.present <= busy.config.max_offsets_per_trigger
    assert_complete(busy, RECORDS)
