"""A standalone Spark cluster on this machine."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyspark

from sandbox.system import find_free_port

SPARK_HOME = Path(pyspark.__file__).parent
CLUSTER = ("--conf", "spark.executor.memory=700m", "--conf", "spark.driver.host=127.0.0.1", "--master")


@contextmanager
def run_cluster(folder: Path, workers: int = 1, cores: int = 2) -> Iterator[str]:
    """Run a standalone cluster during the block; yield the URL of its master. Executors write to ``folder/work``."""
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


def start_daemon(command: list[str], log) -> subprocess.Popen:
    environment = {**os.environ, "SPARK_HOME": str(SPARK_HOME), "SPARK_LOCAL_IP": "127.0.0.1"}
    spark_class = [str(SPARK_HOME / "bin" / "spark-class"), f"org.apache.spark.deploy.{command[0]}", *command[1:]]
    return subprocess.Popen(spark_class, stdout=log, stderr=subprocess.STDOUT, env=environment)


def wait_for_text(log: Path, text: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while text not in log.read_text():
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.2)
