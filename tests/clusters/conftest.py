"""A standalone cluster of two workers, and lakes on a local disk and in S3.

The executors have a bare Python, and the packages of ``make env-archive``.
"""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from bronze.config import MaintainConfig
from sandbox.s3 import S3Sandbox
from tests.support.cluster import run_cluster
from tests.support.commands import run_command
from tests.support.lake import Lake
from tests.support.paths import ROOT
from tests.support.session import start_spark


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the cluster's processes; each application has one below ``work``."""
    return tmp_path_factory.mktemp("nodes")


@pytest.fixture(scope="session")
def cluster(nodes: Path) -> Iterator[str]:
    """The URL of the master of a cluster with two workers of one core each."""
    with run_cluster(nodes, workers=2, cores=1) as url:
        yield url


@pytest.fixture(scope="session")
def archive() -> str:
    """The value of ``--archives``."""
    done = run_command("make", "env-archive", timeout=300)
    assert done.returncode == 0, done.stderr
    return f"{ROOT}/dist/bronze-env.tar.gz#env"


@pytest.fixture(scope="session")
def spark(s3: S3Sandbox) -> Iterator[SparkSession]:
    """The session with which the tests audit, which can use S3."""
    session = start_spark(MaintainConfig(output_path="s3://bronze/any"))
    yield session
    session.stop()


@pytest.fixture(params=["disk", "s3"])
def any_place(lake: Lake, request: pytest.FixtureRequest) -> Lake:
    """The lake, once on a local disk and once in S3."""
    if request.param == "disk":
        return lake
    root = f"s3://bronze/{uuid.uuid4().hex[:8]}"
    paths = {name: f"{root}/{name.removesuffix('_path')}" for name in ("output_path", "dlq_path", "checkpoint_path")}
    return replace(lake, config=replace(lake.config, **paths))
