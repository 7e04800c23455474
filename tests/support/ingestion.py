"""``bronze ingest`` as a process that a test watches, signals and kills."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

BRONZE = (sys.executable, "-m", "bronze.cli", "ingest")
# Scripts that run ``bronze`` and hold it at one point; each says which one.
_SCRIPTS = Path(__file__).parent / "scripts"
PAUSE_SCRIPT = str(_SCRIPTS / "pause.py")
PAUSE = (sys.executable, PAUSE_SCRIPT, "ingest")
# Where it can hold a batch, in their order.
MOMENTS = ("before the write", "during the write", "between the commits", "before the checkpoint's commit")
# Batches wait, planned but not read, for the file that GATE names.
GATED = (sys.executable, str(_SCRIPTS / "gated.py"), "ingest")
# Each batch takes a minute in Spark.
SLOW = (sys.executable, str(_SCRIPTS / "slow.py"), "ingest")


@dataclass
class Ingestion:
    """A running ingestion, and its log."""

    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 120) -> "Ingestion":
        """Wait until it has logged a text."""
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
