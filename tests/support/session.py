"""The Spark session that all tests of a process share, and the options of every Spark that tests start."""

import os

import pytest
from pyspark.sql import SparkSession

from bronze.config import Config
from bronze.runtime.logs import configure_logging
from bronze.runtime.session import get_session
from sandbox.jvm import LIGHT

# For queries of a few rows, generated code costs a fifth more than it saves.
INTERPRETED = "-Dspark.sql.codegen.wholeStage=false -Dspark.sql.codegen.factoryMode=NO_CODEGEN"


def compile_lightly() -> None:
    """Full compilation would be half of the work of a test's JVM, and pays only in a long run."""
    os.environ["SPARK_SUBMIT_OPTS"] = f"{os.environ.get('SPARK_SUBMIT_OPTS', '')} {LIGHT}"


def start_spark(config: Config | None = None) -> SparkSession:
    """A session that interprets its queries; the processes that tests start generate code, as a user's do."""
    configure_logging()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_SUBMIT_OPTS", f"{os.environ['SPARK_SUBMIT_OPTS']} {INTERPRETED}")
        return get_session(config, app_name="tests")
