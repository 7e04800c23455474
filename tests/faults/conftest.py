"""What the fault tests share: the ingestion as a process of its own, and the verdict that ends each of them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bronze.config import IngestConfig
from tests.support.commands import SHORT_LIVED, list_flags
from tests.support.ingestion import BRONZE, Ingestion
from tests.support.paths import ROOT


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
