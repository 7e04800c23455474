"""The shared fixtures with tables and checkpoint in a bucket of a real S3 server."""

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from bronze.config import MaintainConfig
from sandbox.s3 import S3Sandbox
from tests.support.aws_credentials import Issuer, run_issuer
from tests.support.lake import Lake
from tests.support.object_store import make_lake
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
    return make_lake(topic, spark, "s3://bronze")
