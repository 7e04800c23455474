"""A standalone Spark cluster on this machine."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyspark

from sandbox.system import find_free_port
from tests.support.ingestion import Ingestion

SPARK_HOME = Path(pyspark.__file__).parent
CLUSTER = ("--conf", "spark.executor.memory=700m", "--conf", "spark.driver.host=127.0.0.1", "--master")

# An interpreter of the same version without our packages, as on the nodes of a cluster.
BARE_PYTHON = str(Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}"))
BARE_EXECUTORS = {"PYSPARK_PYTHON": BARE_PYTHON, "PYSPARK_DRIVER_PYTHON": sys.executable}
_PAUSED = re.compile(r"Paused .*, process (\d+)")
_EXECUTOR, _WORKER = "org.apache.spark.executor.CoarseGrainedExecutorBackend", "org.apache.spark.deploy.worker.Worker"


@contextmanager
def run_cluster(folder: Path, workers: int = 1, cores: int = 2) -> Iterator[str]:
    """Run a standalone cluster during the block; yield the URL of its master. Executors write to ``folder/work``."""
    port = find_free_port()
    url = f"spark://127.0.0.1:{port}"
    master = ["master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
    worker = ["worker.Worker", "--host", "127.0.0.1", "--webui-port", "0", "--cores", str(cores), "--memory", "2g"]
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


def find_paused_executor(folder: Path, ingestion: Ingestion, seconds: float = 400) -> list[psutil.Process]:
    """The executor that runs the task in which pause.py waits, and the worker that started it.

    Args:
        folder: The workers' folder.
        ingestion: The driver.
        seconds: How long to wait for the task.
    """
    end = time.monotonic() + seconds
    while not (found := [pid for pid in _list_paused(folder) if psutil.pid_exists(pid)]):
        assert ingestion.process.poll() is None, ingestion.log[-3000:]
        assert time.monotonic() < end, ingestion.log[-3000:]
        time.sleep(0.1)
    parents = psutil.Process(found[0]).parents()
    return [p for p in parents if {_EXECUTOR, _WORKER} & set(p.cmdline())]


def _list_paused(folder: Path) -> list[int]:
    """The processes of paused tasks, those of earlier applications included."""
    return [int(pid) for log in folder.rglob("stderr") for pid in _PAUSED.findall(log.read_text())]
