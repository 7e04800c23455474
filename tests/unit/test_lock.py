"""The lock of a checkpoint on a local file system; needs no Spark."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bronze.errors import BronzeError
from bronze.runtime.lock import check_lock, hold_lock, locked_checkpoint_error
from bronze.runtime.logs import RUN_ID

HOLDER = """
import sys, time
from bronze.runtime.lock import hold_lock
with hold_lock(None, sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "checkpoint")


@pytest.fixture
def holder(path: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock."""
    environment = {**os.environ, "BRONZE_RUN_ID": "scheduled__2026-11-26T00:00:00+00:00"}
    command = [sys.executable, "-c", HOLDER, path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_run_is_refused_while_another_process_holds_the_lock(path: str, holder: subprocess.Popen[str]):
    expected = rf"since 20.* UTC \(run scheduled__2026-11-26T00:00:00\+00:00, process {holder.pid} on "
    with pytest.raises(BronzeError, match=expected), hold_lock(None, path):  # type: ignore[arg-type]
        pytest.fail("it was held twice")
    with pytest.raises(BronzeError, match=expected):
        check_lock(path)


def test_a_process_that_was_killed_holds_nothing(path: str, holder: subprocess.Popen[str]):
    holder.kill()
    holder.wait()
    check_lock(path)
    with hold_lock(None, path):  # type: ignore[arg-type]
        assert json.loads(Path(path, "bronze.lock").read_text())["run_id"] == RUN_ID


def test_the_lock_is_free_after_a_run_that_failed(path: str):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), hold_lock(None, path):  # type: ignore[arg-type]
            _ = 1 / 0
    assert Path(path, "bronze.lock").read_text() == ""


def test_a_run_in_the_same_process_is_refused_too(path: str):
    with hold_lock(None, path), pytest.raises(BronzeError, match=RUN_ID):  # type: ignore[arg-type]
        check_lock(f"file:{path}")


def test_a_check_writes_nothing(path: str):
    check_lock(path)
    check_lock("s3a://bucket/checkpoint")
    assert not Path(path).exists()


def test_a_lock_that_cannot_be_written_does_not_stop_a_run(tmp_path: Path):
    (tmp_path / "file").touch()
    with hold_lock(None, str(tmp_path / "file" / "checkpoint")):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("holder", ["", "{", "[]", '{"since": "2026"}'])
def test_a_lock_that_is_being_written_is_one_too(holder: str):
    assert "since a moment ago, so this one has ended" in str(locked_checkpoint_error("/lake/c", holder))
