"""The shared fixtures with tables and checkpoint in a bucket of a real S3 server."""

import uuid
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from bronze.config import IngestConfig, MaintainConfig
from sandbox.s3 import S3Sandbox
from tests.support.aws_credentials import Issuer, run_issuer
from tests.support.lake import Lake
from tests.support.session import start_spark
from tests.support.topic import Topic


@pytest.fixture(scope="session")
def issuer() -> Iterator[Issuer]:
    """The endpoint of expiring credentials that the session knows."""
    with run_issuer() as running:
        yield running


@pytest.fixture(scope="session")
def spark(s3: S3Sandbox, issuer: Issuer) -> Iterator[SparkSession]:
    """The session that all tests share, which can use S3."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", issuer.url)
        session = start_spark(MaintainConfig(output_path="s3://bronze/any"))
    yield session
    session.stop()


@pytest.fixture
def lake(topic: Topic, spark: SparkSession) -> Lake:
    """An empty lake in S3 for the test's topic."""
    root = f"s3://bronze/{uuid.uuid4().hex[:8]}"
    config = IngestConfig(
        kafka_brokers=topic.brokers,
        kafka_topic=topic.name,
        checkpoint_path=f"{root}/checkpoint",
        output_path=f"{root}/bronze",
        dlq_path=f"{root}/dlq",
        available_now=True,
        with_metrics=True,
    )
    return Lake(config, spark)
