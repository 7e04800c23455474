"""What the tests share: one real Kafka, one Spark session, and a lake of two tables for each test."""

import json
import logging
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Producer
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from bronze.batch import IngestSummary
from bronze.config import Config, IngestConfig
from bronze.notebook.cells import AnyConfig
from bronze.runtime.logs import configure_logging
from bronze.runtime.session import get_session
from bronze.stream import run
from sandbox.kafka import KafkaSandbox
from sandbox.topics import create_topic

ROOT = Path(__file__).parents[1]
# Two Sparks share two cores: the collector of one thread takes less of both than the default one's background threads.
os.environ["SPARK_SUBMIT_OPTS"] = f"{os.environ.get('SPARK_SUBMIT_OPTS', '')} -XX:+UseSerialGC"
# A command's Spark lives for seconds, in which to compile well costs more than it saves: a start and a few queries take
# 22 s instead of 40 on a busy machine. Not for the session that all tests share.
SHORT_LIVED = {"SPARK_SUBMIT_OPTS": f"{os.environ['SPARK_SUBMIT_OPTS']} -XX:TieredStopAtLevel=1"}


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSandbox]:
    """The broker that all tests share."""
    with KafkaSandbox(tmp_path_factory.mktemp("kafka"), port=0) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """The session that all tests share."""
    configure_logging()
    session = get_session("tests")
    yield session
    session.stop()


@dataclass(frozen=True)
class Topic:
    """A topic of one test."""

    brokers: str
    name: str

    def produce(self, values: Sequence[bytes | None], partition: int = -1, **config: Any) -> None:
        """Produce values to one partition, or spread over all of them."""
        producer = Producer({"bootstrap.servers": self.brokers, "message.max.bytes": 16_000_000, **config})
        for number, value in enumerate(values):
            producer.produce(self.name, value, key=b"tenant-%d" % (number % 7), partition=partition)
            producer.poll(0)
        assert producer.flush(30) == 0


@pytest.fixture
def make_topic(kafka: KafkaSandbox) -> Callable[..., Topic]:
    """A function that makes a topic of a name that nobody else has."""

    def make(partitions: int = 3, **config: str) -> Topic:
        name = f"test-{uuid.uuid4().hex[:8]}"
        create_topic(kafka.brokers, name, partitions, config)
        return Topic(kafka.brokers, name)

    return make


@pytest.fixture
def topic(make_topic: Callable[..., Topic]) -> Topic:
    """A new topic of three partitions."""
    return make_topic()


def make_event(number: int = 0, **fields: Any) -> bytes:
    """A small valid event; the given fields replace its own."""
    event = {
        "event_id": f"event-{number}",
        "event_timestamp": "2026-01-31T23:30:00+01:00",
        "tenant_id": f"tenant-{number % 7}",
        "request": {"method": "GET", "path": f"/v1/things/{number}", "content_length": number},
        "response": {"status_code": 200, "latency_ms": 12.5},
        "identity": {"scopes": ["read", "write"]},
        "client": {"user_agent_parsed": {"browser": "curl", "major": 8}},
    }
    return json.dumps({**event, **fields}).encode()


def make_events(count: int, first: int = 0) -> list[bytes]:
    """Small valid events."""
    return [make_event(number) for number in range(first, first + count)]


@dataclass(frozen=True)
class Lake:
    """Two tables and a checkpoint, and how to fill and read them."""

    config: IngestConfig
    spark: SparkSession

    def ingest(self, **changes: Any) -> IngestSummary:
        """Ingest what the topic holds."""
        return run(replace(self.config, **changes), self.spark)

    def configure(self, kind: type[AnyConfig], **changes: Any) -> AnyConfig:
        """Another command's configuration, with what it shares with the ingestion's."""
        shared = {field.name for field in fields(kind)} & {field.name for field in fields(self.config)}
        return kind(**{name: getattr(self.config, name) for name in shared} | changes)

    def read(self, path: str) -> DataFrame:
        return self.spark.read.format("delta").load(path)

    @property
    def bronze(self) -> DataFrame:
        return self.read(self.config.output_path)

    @property
    def dlq(self) -> DataFrame:
        return self.read(self.config.dlq_path)

    def list_checkpoint(self, folder: str) -> list[Path]:
        """Files of a folder of the checkpoint."""
        return sorted(Path(self.config.checkpoint_path, folder).iterdir())

    def has_rows(self, count: int) -> bool:
        """Whether bronze has that many rows; not as long as it, or a file of its newest version, is not there."""
        try:
            return DeltaTable(self.config.output_path).count() >= count
        except Exception:
            return False

    def positions(self) -> list[tuple[int, int]]:
        """(partition, offset) of every row of both tables, sorted; a doubled one is there twice."""
        columns = ["_kafka_partition", "_kafka_offset"]
        paths = filter(None, (self.config.output_path, self.config.dlq_path))
        tables = [DeltaTable(path).to_pyarrow_table(columns=columns) for path in paths]
        return sorted(zip(*(pa.concat_tables(tables)[name].to_pylist() for name in columns), strict=True))


def wait_until(is_reached: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + seconds
    while not is_reached():
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.2)


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


@pytest.fixture(params=["direct", "delta-spark"])
def any_lake(lake: Lake, request: pytest.FixtureRequest) -> Lake:
    """The lake, once with each of the two writers."""
    return replace(lake, config=replace(lake.config, writer=request.param))


def list_flags(config: Config) -> list[str]:
    """The flags of a configuration, where they are not the defaults."""
    flags: list[str] = []
    for field in fields(config):
        value, flag = getattr(config, field.name), "--" + field.name.replace("_", "-")
        if field.name == "fail_on_data_loss":
            flags += [] if value else ["--accept-data-loss"]
        elif value is True:
            flags.append(flag)
        elif value != field.default:
            flags += [flag, str(value)]
    return flags


def run_command(*command: str, timeout: float = 180, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the product's environment in the checkout, and keep what it prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **SHORT_LIVED, "PATH": path, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def bronze_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The product's log of one test: its ``messages`` are what a user reads."""
    logger = logging.getLogger("bronze")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, "bronze")
    yield caplog
    logger.removeHandler(caplog.handler)
