"""Long runs: a steady load from the sandbox's producer, and an ingestion that is started again after each fault."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bronze.config import IngestConfig
from tests.support.ingestion import Ingestion
from tests.support.kills import LONG
from tests.support.paths import ROOT
from tests.support.topic import Topic

SECONDS = 60 * float(os.environ.get("SOAK_MINUTES") or 15)
RATE = int(os.environ.get("SOAK_RATE") or 500)  # records per second


@contextmanager
def produce(topic: Topic, records: int) -> Iterator[subprocess.Popen[bytes]]:
    """Produce at the rate, 1 % of the events invalid."""
    command = [sys.executable, "-m", "sandbox", "produce", "--brokers", topic.brokers, "--topic", topic.name]
    with subprocess.Popen([*command, "--count", str(records), "--rate", str(RATE)], cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def run_until(is_done: Callable[[], bool], config: IngestConfig, start: Callable[..., Ingestion], **env: str) -> int:
    """Run the ingestion, again whenever a fault ends it, until everything is done; return how often it ended."""
    ingestion, ends, end = start(config, **env), 0, time.monotonic() + 4 * SECONDS
    while not is_done():
        assert time.monotonic() < end, ingestion.log[-3000:]
        if (code := ingestion.process.poll()) is not None:
            assert code == 1, ingestion.log[-3000:]
            ingestion, ends = start(config, **env), ends + 1
        time.sleep(0.2)
    assert ingestion.send(signal.SIGTERM).wait(LONG) in (0, 1)
    return ends
