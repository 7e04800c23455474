"""spark-submit on a standalone cluster of two workers, whose executors have a bare Python and the archive."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bronze.runtime.jars import LOG_STORE, S3_EXCLUDED, get_s3_packages, get_spark_packages, list_jars
from bronze.runtime.session import list_s3_settings
from tests.support.audit import assert_complete
from tests.support.cluster import BARE_EXECUTORS, CLUSTER, find_paused_executor
from tests.support.commands import list_flags, run_command
from tests.support.events import BAD, make_events
from tests.support.ingestion import PAUSE_SCRIPT, Ingestion
from tests.support.kills import LONG, wait_for_batches
from tests.support.lake import Lake
from tests.support.paths import ROOT
from tests.support.topic import Topic

ENTRYPOINT = str(ROOT / "lib" / "bronze_ingestion.py")
RECORDS = 500 + len(BAD)
# The other place takes as long, and is left to `make test-soak`.
IN_S3 = pytest.mark.parametrize("any_place", ["s3", pytest.param("disk", marks=pytest.mark.soak)], indirect=True)
ON_DISK = pytest.mark.parametrize("any_place", ["disk", pytest.param("s3", marks=pytest.mark.soak)], indirect=True)


def list_submit(cluster: str, archive: str) -> list[str]:
    """spark-submit with the flags that docs/operations.md and docs/s3.md name."""
    packages = ["--packages", ",".join([*get_spark_packages(), *get_s3_packages()]), "--exclude-packages", S3_EXCLUDED]
    return ["spark-submit", *packages, "--jars", str(LOG_STORE), *list_settings(archive), *CLUSTER, cluster]


def list_settings(archive: str) -> list[str]:
    """The settings for the executors' Python and for S3."""
    s3 = [word for pair in list_s3_settings(os.environ).items() for word in ("--conf", "=".join(pair))]
    return ["--archives", archive, "--conf", "spark.executorEnv.PYTHONPATH=env", *s3]


@IN_S3
def test_an_executor_that_is_killed_in_the_middle_of_a_batch(
    topic: Topic, any_place: Lake, start: Callable[..., Ingestion], cluster: str, archive: str, nodes: Path
):
    """A task has written its files but not reported to the driver."""
    topic.produce(make_events(500) + BAD)
    command = [*list_submit(cluster, archive), PAUSE_SCRIPT, "ingest"]
    ingestion = start(any_place.config, *command, PAUSE_AT="during the write", **BARE_EXECUTORS)
    executor, _ = find_paused_executor(nodes / "work", ingestion)
    executor.kill()
    assert ingestion.wait(LONG) == 0, ingestion.log[-3000:]
    assert "Lost executor" in ingestion.log
    assert "using the direct writer" in ingestion.log.lower()
    assert_complete(any_place, RECORDS)


@pytest.mark.soak
def test_executors_with_the_archive_return_rows_to_delta_spark(topic: Topic, lake: Lake, cluster: str, archive: str):
    topic.produce(make_events(30) + BAD)
    flags = list_flags(replace(lake.config, writer="delta-spark"))
    done = run_command(*list_submit(cluster, archive), ENTRYPOINT, *flags, timeout=300, **BARE_EXECUTORS)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert_complete(lake, 38)


def test_executors_without_packages_and_archive_are_explained(topic: Topic, lake: Lake, cluster: str):
    topic.produce(make_events(3))
    command = ["spark-submit", "--packages", ",".join(get_spark_packages()), *CLUSTER, cluster, ENTRYPOINT]
    done = run_command(*command, *list_flags(lake.config), **BARE_EXECUTORS)
    assert done.returncode == 2, done.stdout + done.stderr[-3000:]
    assert "the executors' Python has no module" in done.stdout
    assert "--archives dist/bronze-env.tar.gz#env" in done.stdout


@IN_S3
def test_a_driver_in_client_mode_that_is_killed(
    topic: Topic, any_place: Lake, start: Callable[..., Ingestion], cluster: str, archive: str
):
    topic.produce(make_events(500) + BAD)
    command = [*list_submit(cluster, archive), ENTRYPOINT, "--max-offsets-per-trigger", "50"]
    first = start(any_place.config, *command, **BARE_EXECUTORS)
    wait_for_batches(first, 2)
    first.kill()
    second = start(any_place.config, *command, **BARE_EXECUTORS)
    assert second.wait(LONG) == 0, second.log[-3000:]
    assert "Batch 0: total" not in second.log
    assert_complete(any_place, RECORDS)


def test_cluster_mode_is_refused_by_spark_itself_for_a_python_file(cluster: str):
    done = run_command("spark-submit", "--deploy-mode", "cluster", "--master", cluster, ENTRYPOINT)
    assert done.returncode == 1
    assert "not supported for python applications on standalone clusters" in done.stderr


@ON_DISK
def test_a_supervised_driver_in_cluster_mode_that_is_killed(
    topic: Topic, any_place: Lake, cluster: str, archive: str, nodes: Path
):
    """The cluster runs Spark's own PythonRunner, which docs/deploy.md names, and starts it again."""
    topic.produce(make_events(500) + BAD)
    command = ["spark-submit", "--deploy-mode", "cluster", "--supervise", "--driver-memory", "800m"]
    command += ["--jars", ",".join(map(str, list_jars(["s3"]))), *list_settings(archive), *CLUSTER, cluster]
    for name, python in {"driver.python": sys.executable, "python": BARE_EXECUTORS["PYSPARK_PYTHON"]}.items():
        command += ["--conf", f"spark.pyspark.{name}={python}"]
    command += ["--class", "org.apache.spark.deploy.PythonRunner", str(LOG_STORE)]
    flags = [*list_flags(any_place.config), "--max-offsets-per-trigger", "50"]
    done = run_command(*command, ENTRYPOINT, "", "ingest", *flags)
    assert done.returncode == 0, done.stderr
    driver = Driver(nodes / "work", done.stderr)
    driver.wait_for("Batch 2: total")
    driver.kill()
    driver.wait_for("records in")
    assert driver.log.count("Batch 0: total") == 1
    assert_complete(any_place, RECORDS)


class Driver:
    """A driver that a worker of the cluster runs."""

    def __init__(self, folder: Path, submitted: str):
        (self.name,) = set(re.findall(r"driver-\d{14}-\d{4}", submitted))
        self._folder = folder / self.name

    @property
    def log(self) -> str:
        return "".join(file.read_text() for file in self._folder.glob("std*"))

    def wait_for(self, text: str, seconds: float = LONG) -> None:
        end = time.monotonic() + seconds
        while text not in self.log:
            assert time.monotonic() < end, self.log[-3000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """kill -9 of its JVM and its Python, as when a machine is lost."""
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if any(self.name in word for word in command) and "org.apache.spark.deploy.worker.DriverWrapper" in command:
                for each in [*process.children(recursive=True), process]:
                    with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
                        each.send_signal(signal.SIGKILL)
