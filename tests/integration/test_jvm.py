"""One JVM for the Spark sessions of a command, as in ``make demo``: each session has its own context."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import psutil
import pytest

from tests.support.commands import ON_ONE_JVM, list_flags, run_command
from tests.support.events import make_events
from tests.support.lake import Lake
from tests.support.topic import Topic
from tests.support.waiting import wait_until

_INGEST = """
import sys
from pyspark.sql import SparkSession
from bronze.cli import main
main(["ingest", *sys.argv[1:]])
spark = SparkSession.active()
print("JVM", spark._jvm.java.lang.ProcessHandle.current().pid(), spark.sparkContext.applicationId)
spark.stop()
"""
# Handles a signal, as an ingestion does, and still needs the JVM afterwards.
_TRAP = """
import signal, sys
from pyspark.java_gateway import launch_gateway
signal.signal(int(sys.argv[1]), lambda *_: print(launch_gateway().jvm.Math.max(3, 5)))
open("started", "w")
signal.pause()
"""


def run_on_one_jvm(*command: str) -> CompletedProcess[str]:
    return run_command(*ON_ONE_JVM, *command)


@pytest.mark.soak
def test_streams_one_after_the_other_share_a_jvm_which_ends_with_the_command(topic: Topic, lake: Lake):
    topic.produce(make_events(30))
    ingest = [sys.executable, "-c", _INGEST, *list_flags(lake.config), "--available-now"]
    done = run_on_one_jvm("sh", "-ec", '"$@"; rm -r "$0"; "$@"', lake.config.checkpoint_path, *ingest)
    told = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("JVM")]
    (jvm, app), (other_jvm, other_app) = told
    assert jvm == other_jvm and app != other_app
    assert "skipped 30 records that were already in the tables" in done.stderr
    assert not psutil.pid_exists(int(jvm))


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_code_is_the_commands(script: str, code: int):
    assert run_on_one_jvm("sh", "-c", script).returncode == code


@pytest.mark.parametrize(("command", "said"), [([], "no command is given"), (["no-such"], "no such command: no-such")])
def test_a_command_that_is_none_is_refused_at_once(command: list[str], said: str):
    done = run_on_one_jvm(*command)
    assert (done.returncode, said in done.stderr) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_the_commands_which_has_its_jvm_until_it_ends(number: signal.Signals, tmp_path: Path):
    command = [*ON_ONE_JVM, sys.executable, "-c", _TRAP, str(int(number))]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    wait_until((tmp_path / "started").exists)
    # A terminal sends an interrupt to all processes, a supervisor SIGTERM to the first.
    send = os.killpg if number == signal.SIGINT else os.kill
    send(process.pid, number)
    assert (process.communicate(timeout=60)[0], process.returncode) == ("5\n", 0)
