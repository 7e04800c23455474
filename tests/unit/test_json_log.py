"""The log as JSON: one object per line, with the run's id."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bronze.observe.summary import Batch, log_batch
from bronze.runtime.logs import RUN_ID, configure_logging, event, report, report_failure
from bronze.transforms import Counts

BATCH = Batch(7, Counts({0: 5, 1: 3}, {"tombstone": 2}), 1.23456, bounds={0: (10, 15), 1: (0, 3)})


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """A JSON log."""
    logger, stream = logging.getLogger("bronze"), io.StringIO()
    monkeypatch.setattr(logger, "handlers", [])
    configure_logging(stream, "json")
    yield stream


def read(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_each_event_is_an_object_on_one_line(stream: io.StringIO):
    logging.getLogger("bronze.any").warning('two\nlines of "%s"', "ü", extra=event("any", number=1))
    (line,) = read(stream)
    assert line.pop("time").endswith("Z")
    expected = {"level": "WARNING", "logger": "bronze.any", "run_id": RUN_ID, "message": 'two\nlines of "ü"'}
    assert line == {**expected, "event": "any", "number": 1}


def test_a_batch_has_its_offsets_and_counts_as_fields(stream: io.StringIO):
    log_batch(BATCH, with_metrics=False)
    (line,) = read(stream)
    assert (line["event"], line["batch"], line["seconds"]) == ("batch", 7, 1.235)
    assert line["offsets"] == {"0": [10, 15], "1": [0, 3]}
    counts = {"total": 8, "valid": 6, "invalid": 2, "present": 0}
    assert line["counts"] == {**counts, "by_error_type": {"tombstone": 2}, "by_partition": {"0": 5, "1": 3}}


def test_an_exception_stays_on_its_line(stream: io.StringIO):
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        logging.getLogger("bronze.any").exception("it failed")
    (line,) = read(stream)
    assert line["exception"].startswith("Traceback (most recent call last):\n")


def test_results_and_errors_are_events_too(stream: io.StringIO, capsys: pytest.CaptureFixture[str]):
    report("8 records", "result", batches=1)
    report_failure("it failed; run it again", 1, problem="it failed", hint="run it again")
    result, failed = read(stream)
    assert (result["message"], result["batches"]) == ("8 records", 1)
    assert (failed["event"], failed["exit_code"], failed["hint"]) == ("failed", 1, "run it again")
    assert capsys.readouterr() == ("", "")


def test_as_text_they_are_printed(capsys: pytest.CaptureFixture[str]):
    report("8 records", "result", batches=1)
    report_failure("it failed", 1)
    assert capsys.readouterr() == ("8 records\n", "bronze: it failed\n")


@pytest.mark.parametrize(
    ("given", "expected"), [("manual__2026-11-26T00:00:00+00:00",) * 2, ('a b"c', "a_b_c"), ("x" * 300, "x" * 200)]
)
def test_a_scheduler_may_name_the_run(given: str, expected: str):
    command = [sys.executable, "-c", "from bronze.runtime.logs import RUN_ID; print(RUN_ID)"]
    shown = subprocess.run(command, env={"BRONZE_RUN_ID": given, "PYTHONPATH": ":".join(sys.path)}, capture_output=True)
    assert shown.stdout.decode().strip() == expected
