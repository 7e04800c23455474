"""Shared fixtures: one real Kafka, one Spark session, and a lake of two tables for each test."""

import logging
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from bronze.cli import main
from bronze.config import IngestConfig
from sandbox.kafka import KafkaSandbox
from sandbox.s3 import S3Sandbox
from sandbox.topics import create_topic
from tests.support.commands import list_flags
from tests.support.ingestion import BRONZE, Ingestion
from tests.support.lake import EITHER_WRITER, Lake
from tests.support.paths import ROOT
from tests.support.session import compile_lightly, start_spark
from tests.support.topic import Topic

compile_lightly()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSandbox]:
    """The broker that all tests share."""
    with KafkaSandbox(tmp_path_factory.mktemp("kafka"), port=0) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Sandbox]:
    """The S3 server that all tests share; the environment has its address and keys."""
    with S3Sandbox(tmp_path_factory.mktemp("s3"), port=0) as sandbox, pytest.MonkeyPatch.context() as patch:
        for name, value in sandbox.environment.items():
            patch.setenv(name, value)
        yield sandbox
        sandbox.kill()  # its own end takes half a minute


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """The session that all tests share."""
    session = start_spark()
    yield session
    session.stop()


@pytest.fixture
def make_topic(kafka: KafkaSandbox) -> Callable[..., Topic]:
    """A function that creates a topic with a unique name."""

    def make(partitions: int = 3, **config: str) -> Topic:
        name = f"test-{uuid.uuid4().hex[:8]}"
        create_topic(kafka.brokers, name, partitions, config)
        return Topic(kafka.brokers, name)

    return make


@pytest.fixture
def topic(make_topic: Callable[..., Topic]) -> Topic:
    """A new topic of three partitions."""
    return make_topic()


@pytest.fixture
def lake(topic: Topic, tmp_path: Path, spark: SparkSession) -> Lake:
    """An empty lake for the test's topic."""
    config = IngestConfig(
        kafka_brokers=topic.brokers,
        kafka_topic=topic.name,
        checkpoint_path=str(tmp_path / "checkpoint"),
        output_path=str(tmp_path / "bronze"),
        dlq_path=str(tmp_path / "dlq"),
        available_now=True,
        with_metrics=True,
    )
    return Lake(config, spark)


@pytest.fixture(params=EITHER_WRITER)
def any_lake(lake: Lake, request: pytest.FixtureRequest) -> Lake:
    """The lake, once with each of the two writers: delta-spark's in ``make test-soak``, or for tests ``with_both``."""
    return replace(lake, config=replace(lake.config, writer=request.param))


@pytest.fixture
def bronze_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The product's log during one test; ``messages`` has the lines that a user reads."""
    logger = logging.getLogger("bronze")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, "bronze")
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def bronze(lake: Lake, capsys: pytest.CaptureFixture[str]):
    """Run ``bronze ingest`` with the lake's flags, some replaced; return its exit code and its standard error."""

    def ingest(*extra: str, **changes: str) -> tuple[int, str]:
        names = ("kafka_brokers", "kafka_topic", "checkpoint_path", "output_path", "dlq_path")
        values = {name: changes.get(name, getattr(lake.config, name)) for name in names}
        flags = [word for name, value in values.items() for word in ("--" + name.replace("_", "-"), value)]
        code = main(["ingest", *flags, "--available-now", *extra])
        return code, capsys.readouterr().err.strip().rpartition("bronze: ")[2]

    return ingest


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Ingestion]]:
    """A function that starts ``bronze ingest``, or another command, as a process; none outlives the test.

    For a command that does not take the ingestion's flags, pass no configuration.
    """
    started: list[Ingestion] = []

    def run(config: IngestConfig | None, *command: str, cwd: Path = ROOT, **environment: str) -> Ingestion:
        log_file = tmp_path / f"log-{len(started)}"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [*(command or BRONZE), *(list_flags(config) if config else [])],
                cwd=cwd,
                env={**os.environ, "PATH": path, **environment},
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
