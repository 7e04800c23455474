"""What every command does first: check the paths, then a session that has what is needed."""

from dataclasses import dataclass

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.config import TablesConfig
from bronze.errors import JarsMissing
from bronze.jars import get_spark_packages
from bronze.paths import check_file_systems, check_folders
from bronze.schema import TableSpec, get_bronze_spec, get_dlq_spec
from bronze.session import apply_settings, get_session
from bronze.tables import TableState, check_table, qualify_path, read_table_state


def open_session(config: TablesConfig, spark: SparkSession | None = None) -> SparkSession:
    """Check what can be checked without Spark, and return a session that can be used, with its settings.

    Args:
        config: Where tables and checkpoint are.
        spark: Session to use; spark-submit's, the running or a new local one when not given.

    Raises:
        InvalidOption: A path cannot be used.
        NotADeltaTable: A path holds something else.
        TableMismatch: A table has other columns or another partitioning.
        JarsMissing: The session lacks Delta Lake or the Kafka source.
    """
    check_folders(config)
    if spark is None:
        check_local_tables(config)  # before a JVM starts
        spark = get_session()
    apply_settings(spark)
    check_file_systems(spark, config)
    check_session(spark)
    return spark


def check_local_tables(config: TablesConfig) -> None:
    """Check the tables without Spark, where they are on the local file system.

    Raises:
        NotADeltaTable: A path holds something else.
        TableMismatch: A table has other columns or another partitioning.
    """
    for option, (path, spec) in list_tables(config).items():
        if state := read_table_state(path, option):
            check_table(state, spec, path, option)


def check_session(spark: SparkSession) -> None:
    """Refuse a session without Delta Lake or the Kafka source.

    Raises:
        JarsMissing: With the packages to submit with.
    """
    loader = spark._jvm.java.lang.Thread.currentThread().getContextClassLoader()  # type: ignore[union-attr]
    try:
        for name in ("io.delta.tables.DeltaTable", "org.apache.spark.sql.kafka010.KafkaSourceProvider"):
            loader.loadClass(name)
    except Py4JJavaError:
        raise JarsMissing(get_spark_packages()) from None


def list_tables(config: TablesConfig) -> dict[str, tuple[str, TableSpec]]:
    """Path and specification of the configured tables, by the name of their option."""
    tables = {"output-path": (config.output_path, get_bronze_spec())}
    if config.dlq_path:
        tables["dlq-path"] = (config.dlq_path, get_dlq_spec())
    return tables


@dataclass(frozen=True)
class CheckedTable:
    """A table that fits or does not exist yet (``state`` is None), with its path as Hadoop qualifies it."""

    path: str
    spec: TableSpec
    state: TableState | None


def locate_tables(spark: SparkSession, config: TablesConfig) -> tuple[CheckedTable, CheckedTable | None]:
    """The tables, where there are any with the right columns; Kafka is not asked.

    Raises:
        NotADeltaTable: A path holds something else.
        TableMismatch: A table has other columns or another partitioning.
    """
    tables = []
    for name, (path, spec) in list_tables(config).items():
        qualified = qualify_path(spark, path)
        if state := read_table_state(qualified, name, spark):
            check_table(state, spec, qualified, name)
        tables.append(CheckedTable(qualified, spec, state))
    return tables[0], tables[1] if config.dlq_path else None
