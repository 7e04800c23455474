"""spark-submit of the entrypoint from a plain checkout, with --packages, on local[2].

spark-submit prints the output of the driver's Python, from both streams, on standard output.
"""

import subprocess
import sys

from pyspark.sql import SparkSession

from bronze.config import CreateTablesConfig
from bronze.runtime.jars import get_spark_packages
from bronze.runtime.session import ship_package
from tests.support.commands import list_flags, run_command
from tests.support.events import BAD, make_events
from tests.support.lake import Lake
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
