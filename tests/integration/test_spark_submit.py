"""spark-submit of the entrypoint from a plain checkout, with --packages: on local[2] and on a standalone cluster.

spark-submit prints the output of the driver's Python, from both streams, on standard output.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pyspark.sql import SparkSession

from bronze.config import CreateTablesConfig
from bronze.runtime.jars import get_spark_packages
from bronze.runtime.session import ship_package
from tests.support.cluster import BARE_EXECUTORS, CLUSTER, run_cluster
from tests.support.commands import list_flags, run_command
from tests.support.events import BAD, make_events
from tests.support.lake import Lake
from tests.support.paths import ROOT
from tests.support.topic import Topic


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


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the master of a cluster with one worker and two cores."""
    with run_cluster(tmp_path_factory.mktemp("cluster")) as url:
        yield url


def test_executors_without_packages_get_them_from_the_archive(cluster: str, topic: Topic, lake: Lake):
    lake = replace(lake, config=replace(lake.config, writer="delta-spark"))  # the writer for a cluster's file system
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
