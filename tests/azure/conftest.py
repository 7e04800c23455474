"""The shared fixtures with tables and checkpoint in a container of Azure's emulator."""

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from bronze.config import MaintainConfig
from sandbox.system import HOST
from tests.support.azurite import ACCOUNT_HOST, Azurite, write_settings
from tests.support.lake import Lake
from tests.support.object_store import make_lake
from tests.support.session import start_spark
from tests.support.topic import Topic

CONTAINER = f"abfs://bronze@{ACCOUNT_HOST}"


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """The emulator; the environment has its address and the folder of Spark's settings."""
    folder = tmp_path_factory.mktemp("conf")
    with Azurite(tmp_path_factory.mktemp("azurite"), port=0) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURITE_BLOB_STORAGE_URL", f"http://{HOST}:{running.port}")
        patch.setenv("SPARK_CONF_DIR", str(write_settings(running, folder)))
        yield running


@pytest.fixture(scope="session")
def spark(azurite: Azurite) -> Iterator[SparkSession]:
    """The session that all tests share, which can use Azure."""
    session = start_spark(MaintainConfig(output_path=f"{CONTAINER}/any"))
    yield session
    session.stop()


@pytest.fixture
def lake(topic: Topic, spark: SparkSession) -> Lake:
    """An empty lake in Azure for the test's topic."""
    return make_lake(topic, spark, CONTAINER)
