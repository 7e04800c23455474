"""All that is checked before the first batch, in the order of cost; only then are missing tables created."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.batch import TableWriter
from bronze.checkpoint import has_checkpoint, read_planned_offsets
from bronze.commit import DirectWriter
from bronze.config import IngestConfig
from bronze.errors import InvalidOption, JarsMissing, WriterUnsuitable
from bronze.jars import get_spark_packages
from bronze.kafka import check_starting_offsets, describe_topic, read_client_properties
from bronze.positions import find_present
from bronze.schema import TableSpec, get_bronze_spec, get_dlq_spec
from bronze.spark_writer import SparkWriter
from bronze.tables import (
    TableState,
    check_table,
    check_topic_id,
    create_table,
    find_obstacle,
    qualify_path,
    read_table_state,
    to_local_path,
)
from bronze.transforms import OffsetRanges

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What the stream needs after all was checked."""

    checkpoint_path: str
    bronze_path: str
    dlq_path: str
    client_properties: dict[str, str]
    writer: TableWriter
    find_present: Callable[[int], OffsetRanges]
    are_tables_new: bool

    @property
    def local_paths(self) -> tuple[str, str]:
        """Bronze and DLQ path as the tasks open them."""
        return to_local_path(self.bronze_path) or "", to_local_path(self.dlq_path) or "" if self.dlq_path else ""


def check_local_tables(config: IngestConfig) -> None:
    """Check the tables without Spark, where they are on the local file system.

    Raises:
        NotADeltaTable: A path holds something else.
        TableMismatch: A table has other columns or another partitioning.
    """
    for option, (path, spec) in _list_tables(config).items():
        if state := read_table_state(path, option):
            check_table(state, spec, path, option)


def prepare(spark: SparkSession, config: IngestConfig) -> Prepared:
    """Check arguments, Kafka and tables, choose the writer, then create the tables that are missing.

    Raises:
        BronzeError: What does not fit; nothing was written then.
    """
    check_session(spark)
    check_trigger_interval(spark, config)
    tables = {o: (qualify_path(spark, p), spec) for o, (p, spec) in _list_tables(config).items()}
    states = {option: read_table_state(path, option, spark) for option, (path, _) in tables.items()}
    topic = describe_topic(spark, config)
    check_starting_offsets(config, topic)
    for option, (path, spec) in tables.items():
        if state := states[option]:
            check_table(state, spec, path, option)
            check_topic_id(state, topic, path)
    make_writer = choose_writer(config, {path: states[option] for option, (path, _) in tables.items()})
    checkpoint_path = qualify_path(spark, config.checkpoint_path)
    _warn_of_ignored_offsets(spark, config, checkpoint_path)
    for option, (path, spec) in tables.items():
        create_table(spark, path, spec, topic, states[option])
    paths = [path for path, _ in tables.values()]

    def find_batch_present(batch_id: int) -> OffsetRanges:
        planned = read_planned_offsets(spark, checkpoint_path, batch_id, topic.name)
        return find_present(spark, paths, topic.name, planned)

    properties = read_client_properties(spark, config)
    dlq_path = paths[1] if config.dlq_path else ""
    return Prepared(
        checkpoint_path,
        paths[0],
        dlq_path,
        properties,
        make_writer(paths[0], dlq_path),
        find_batch_present,
        are_tables_new=not any(states.values()),
    )


def _list_tables(config: IngestConfig) -> dict[str, tuple[str, TableSpec]]:
    tables = {"output-path": (config.output_path, get_bronze_spec())}
    if config.dlq_path:
        tables["dlq-path"] = (config.dlq_path, get_dlq_spec())
    return tables


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


def check_trigger_interval(spark: SparkSession, config: IngestConfig) -> None:
    """Let Spark itself read the interval.

    Raises:
        InvalidOption: Spark cannot.
    """
    try:
        spark._jvm.org.apache.spark.sql.streaming.Trigger.ProcessingTime(config.trigger_interval)  # type: ignore[union-attr]
    except Exception:
        expected = "an interval such as '30 seconds' or '1 minute'"
        raise InvalidOption("trigger_interval", config.trigger_interval, expected) from None


def choose_writer(config: IngestConfig, tables: dict[str, TableState | None]) -> type[DirectWriter] | type[SparkWriter]:
    """The direct writer wherever it can append correctly, unless delta-spark is asked for; says so in the log.

    Raises:
        WriterUnsuitable: The direct writer is asked for where it cannot.
    """
    obstacle = next(filter(None, (find_obstacle(path, state) for path, state in tables.items())), "")
    if config.writer == "direct" and obstacle:
        raise WriterUnsuitable(obstacle)
    if config.writer == "delta-spark" or obstacle:
        log.info("Writer: delta-spark, because %s", obstacle or "--writer asks for it")
        return SparkWriter
    log.info(
        "Writer: direct, because %s",
        "--writer asks for it" if config.writer == "direct" else "nothing is in its way",
    )
    return DirectWriter


def _warn_of_ignored_offsets(spark: SparkSession, config: IngestConfig, checkpoint_path: str) -> None:
    if config.starting_offsets and has_checkpoint(spark, checkpoint_path):
        log.warning(
            "Warning: --starting-offsets %s is ignored, because the checkpoint %s exists and says where to go on",
            config.starting_offsets,
            config.checkpoint_path,
        )
