"""spark-submit of the entrypoint from a plain checkout, with --packages: on local[2] and on a standalone cluster.

spark-submit puts what the driver's Python prints, on whichever stream, on standard output.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyspark
import pytest
from pyspark.sql import SparkSession

from bronze.config import CreateTablesConfig
from bronze.runtime.jars import get_spark_packages
from bronze.runtime.session import ship_package
from sandbox.system import find_free_port
from tests.conftest import ROOT, Lake, Topic, list_flags, make_events, run_command
from tests.integration.test_ingestion import BAD

SPARK_HOME = Path(pyspark.__file__).parent
# An interpreter of the same version that has none of our packages, as a cluster's nodes have it.
BARE_PYTHON = str(Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}"))


def submit(lake: Lake, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["spark-submit", *flags, "--packages", ",".join(get_spark_packages()), "lib/bronze_ingestion.py"]
    return run_command(*command, *list_flags(lake.config), "--available-now", timeout=300, **environment)


def test_spark_submit_ingests_on_local_2(topic: Topic, lake: Lake):
    topic.produce(make_events(30) + BAD)
    done = submit(lake, "--master", "local[2]", PYSPARK_PYTHON=sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "Batch 0: total=38, valid=30, invalid=8" in done.stdout
    assert "38 records in 1 batches: 30 valid, 8 invalid" in done.stdout
    assert len(lake.positions()) == len(set(lake.positions())) == 38


def test_spark_submit_without_packages_says_which(lake: Lake):
    done = run_command(
        *["spark-submit", "--master", "local[1]", "lib/bronze_ingestion.py", "--kafka-brokers", "127.0.0.1:1"],
        *["--checkpoint-path", lake.config.checkpoint_path, "--output-path", lake.config.output_path],
    )
    assert done.returncode == 2
    assert f"submit with --packages {','.join(get_spark_packages())}" in done.stdout


def test_a_context_is_sent_the_package_once(spark: SparkSession):
    ship_package(spark)
    sent = len(spark.sparkContext._python_includes)
    ship_package(spark)
    assert len(spark.sparkContext._python_includes) == sent


def test_another_command_runs_by_its_name(lake: Lake):
    arguments = ["create-tables", *list_flags(lake.configure(CreateTablesConfig))]
    done = run_command("spark-submit", "--master", "local[1]", "lib/bronze_ingestion.py", *arguments)
    assert (done.returncode, done.stdout.count("CREATE TABLE")) == (0, 2)


def test_wrong_arguments_end_spark_submit_with_exit_2(lake: Lake):
    done = run_command("spark-submit", "--master", "local[1]", "lib/bronze_ingestion.py", "--kafka-brokers", "x:1")
    assert done.returncode == 2
    assert "the following arguments are required: --output-path, --checkpoint-path" in done.stdout


@contextmanager
def run_cluster(folder: Path, workers: int = 1, cores: int = 2) -> Iterator[str]:
    """A standalone cluster while the block runs; its master's URL. Executors write to ``folder/work``."""
    port = find_free_port()
    url = f"spark://127.0.0.1:{port}"
    master = ["master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
    worker = ["worker.Worker", "--host", "127.0.0.1", "--webui-port", "0", "--cores", str(cores), "--memory", "1g"]
    worker += ["--work-dir", str(folder / "work"), url]
    processes = []
    try:
        for number, command in enumerate([master] + [worker] * workers):
            with (folder / f"node-{number}").open("w") as log:
                processes.append(start_daemon(command, log))
        for number in range(1, workers + 1):
            wait_for_text(folder / f"node-{number}", "Successfully registered with master")
        yield url
    finally:
        for process in processes:
            process.terminate()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of one worker with two cores; its master's URL."""
    with run_cluster(tmp_path_factory.mktemp("cluster")) as url:
        yield url


def start_daemon(command: list[str], log) -> subprocess.Popen:
    environment = {**os.environ, "SPARK_HOME": str(SPARK_HOME), "SPARK_LOCAL_IP": "127.0.0.1"}
    spark_class = [str(SPARK_HOME / "bin" / "spark-class"), f"org.apache.spark.deploy.{command[0]}", *command[1:]]
    return subprocess.Popen(spark_class, stdout=log, stderr=subprocess.STDOUT, env=environment)


def wait_for_text(log: Path, text: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while text not in log.read_text():
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.2)


CLUSTER = ("--conf", "spark.executor.memory=700m", "--conf", "spark.driver.host=127.0.0.1", "--master")
BARE_EXECUTORS = {"PYSPARK_PYTHON": BARE_PYTHON, "PYSPARK_DRIVER_PYTHON": sys.executable}


def test_executors_without_packages_get_them_from_the_archive(cluster: str, topic: Topic, lake: Lake):
    lake = replace(lake, config=replace(lake.config, writer="delta-spark"))  # the one for a cluster's file system
    archive = run_command("make", "env-archive", timeout=300)
    assert archive.returncode == 0, archive.stderr
    topic.produce(make_events(30) + BAD)
    flags = ["--archives", f"{ROOT}/dist/bronze-env.tar.gz#env", "--conf", "spark.executorEnv.PYTHONPATH=env"]
    done = submit(lake, *CLUSTER, cluster, *flags, **BARE_EXECUTORS)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert len(lake.positions()) == len(set(lake.positions())) == 38


def test_executors_without_packages_and_archive_are_explained(cluster: str, topic: Topic, lake: Lake):
    topic.produce(make_events(3))
    done = submit(lake, *CLUSTER, cluster, **BARE_EXECUTORS)
    assert done.returncode == 2, done.stdout + done.stderr[-3000:]
    assert "the executors' Python has no module" in done.stdout
    assert "--archives dist/bronze-env.tar.gz#env" in done.stdout
