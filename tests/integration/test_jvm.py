"""One JVM for the Sparks of a command, as ``make demo`` runs its notebooks: each has a context of its own in it."""

import sys

import psutil

from tests.conftest import Lake, Topic, list_flags, make_events, run_command

_RUN = """
from bronze.session import get_session
spark = get_session()
print("run", spark._jvm.java.lang.ProcessHandle.current().pid(), spark.sparkContext.applicationId)
spark.stop()
"""
_INGEST = """
import sys
from pyspark.sql import SparkSession
from bronze.cli import main
main(["ingest", *sys.argv[1:]])
SparkSession.active().stop()
"""


def run_on_one_jvm(steps: str, *arguments: str):
    return run_command(sys.executable, "-m", "sandbox.jvm", "sh", "-ec", steps, *arguments)


def test_sparks_one_after_the_other_share_a_jvm_which_ends_with_the_command():
    done = run_on_one_jvm('"$0" -c "$1"; "$0" -c "$1"; exit 7', sys.executable, _RUN)
    (_, first, app), (_, second, other) = [line.split() for line in done.stdout.splitlines()]
    assert first == second and app != other
    assert done.returncode == 7
    assert not psutil.pid_exists(int(first))


def test_a_stream_runs_in_a_jvm_that_had_another(topic: Topic, lake: Lake):
    topic.produce(make_events(30))
    command = [sys.executable, "-c", _INGEST, *list_flags(lake.config), "--available-now"]
    done = run_on_one_jvm('"$@"; rm -r "$0"; "$@"', lake.config.checkpoint_path, *command)
    assert done.returncode == 0, done.stderr
    assert "30 of its records were in the tables already and were left out" in done.stderr
    assert lake.bronze.count() == 30
