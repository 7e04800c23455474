"""What the fault tests share: the ingestion as a process of its own, and the verdict that ends each of them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bronze.checkpoint import read_checkpoint
from bronze.config import IngestConfig
from tests.conftest import ROOT, SHORT_LIVED, Lake, list_flags, wait_until
from tests.integration.test_audit import audit

BRONZE = (sys.executable, "-m", "bronze.cli", "ingest")


@dataclass
class Ingestion:
    """An ingestion that runs, and what it has logged."""

    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 120) -> "Ingestion":
        """Wait until it has logged something."""
        end = time.monotonic() + seconds
        while text not in self.log:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.log[-3000:]}"
            assert time.monotonic() < end, f"no {text!r} in:\n{self.log[-3000:]}"
            time.sleep(0.05)
        return self

    def send(self, number: signal.Signals) -> "Ingestion":
        self.process.send_signal(number)
        return self

    def kill(self) -> None:
        """kill -9 of the driver and of its JVM, as when a machine is lost."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self, seconds: float = 120) -> int:
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it does not end:\n{self.log[-3000:]}")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Ingestion]]:
    """A function that starts ``bronze ingest``, or another command, as a process; none outlives the test.

    A command that takes no flags of the ingestion gets no configuration.
    """
    started: list[Ingestion] = []

    def run(config: IngestConfig | None, *command: str, cwd: Path = ROOT, **environment: str) -> Ingestion:
        log_file = tmp_path / f"log-{len(started)}"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [*(command or BRONZE), *(list_flags(config) if config else [])],
                cwd=cwd,
                env={**os.environ, **SHORT_LIVED, "PATH": path, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(Ingestion(process, log_file))
        return started[-1]

    yield run
    for ingestion in started:
        if ingestion.process.poll() is None:
            ingestion.kill()


def assert_complete(lake: Lake, records: int) -> None:
    """Nothing is lost and nothing twice: the audit says so, and as many records are there as were produced."""
    report = audit(lake)
    assert report.is_complete, report.to_text()
    assert sum(p.bronze_rows + p.dlq_rows for p in report.partitions) == records
    assert sum(p.lag for p in report.partitions) == 0


def change_path(lake: Lake, name: str, path: Path) -> Lake:
    """The lake, with one of its paths elsewhere."""
    return replace(lake, config=replace(lake.config, **{name: str(path)}))


def read_end(lake: Lake) -> int:
    """How many offsets the stream has done, by its checkpoint."""
    checkpoint = read_checkpoint(lake.spark, lake.config.checkpoint_path, lake.config.kafka_topic)
    return sum(checkpoint.starts.values()) if checkpoint else 0


def when(is_reached: Callable[[], bool], act: Callable[[], Any]) -> threading.Thread:
    """Do something as soon as a condition holds, beside what the test does."""

    def wait() -> None:
        wait_until(is_reached, 120)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread
