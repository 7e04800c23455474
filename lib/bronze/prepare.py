"""All that is checked before anything is written; then what the first batch needs."""

import logging
from dataclasses import dataclass, field

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.batch import BatchProcessor
from bronze.checkpoint import PlannedOffsets, has_checkpoint, read_planned_offsets
from bronze.commit import DirectWriter
from bronze.config import IngestConfig
from bronze.errors import CheckpointOfOtherTables, InvalidOption, JarsMissing, WriterUnsuitable
from bronze.jars import get_spark_packages
from bronze.kafka import Topic, check_starting_offsets, describe_topic, read_client_properties
from bronze.positions import find_highest, find_present
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
class CheckedTable:
    """A table that fits or does not exist yet (``state`` is None), with its path as Hadoop qualifies it."""

    path: str
    spec: TableSpec
    state: TableState | None


@dataclass(frozen=True)
class Checked:
    """What is known after all was checked and nothing was written; ``dlq`` is None where none is configured."""

    topic: Topic
    client_properties: dict[str, str] = field(repr=False)  # may hold secrets
    checkpoint_path: str
    bronze: CheckedTable
    dlq: CheckedTable | None
    make_writer: type[DirectWriter] | type[SparkWriter]

    @property
    def tables(self) -> list[CheckedTable]:
        """The tables that are configured."""
        return [self.bronze, self.dlq] if self.dlq else [self.bronze]


def check_local_tables(config: IngestConfig) -> None:
    """Check the tables without Spark, where they are on the local file system.

    Raises:
        NotADeltaTable: A path holds something else.
        TableMismatch: A table has other columns or another partitioning.
    """
    for option, (path, spec) in _list_tables(config).items():
        if state := read_table_state(path, option):
            check_table(state, spec, path, option)


def check_all(spark: SparkSession, config: IngestConfig) -> Checked:
    """Check session, arguments, Kafka and tables, and choose the writer.

    Raises:
        BronzeError: What does not fit.
    """
    check_session(spark)
    check_trigger_interval(spark, config)
    options = _list_tables(config)
    paths = {option: qualify_path(spark, path) for option, (path, _) in options.items()}
    states = {option: read_table_state(path, option, spark) for option, path in paths.items()}
    topic = describe_topic(spark, config)
    check_starting_offsets(config, topic)
    for option, state in states.items():
        if state:
            check_table(state, options[option][1], paths[option], option)
            check_topic_id(state, topic, paths[option])
    tables = [CheckedTable(paths[option], spec, states[option]) for option, (_, spec) in options.items()]
    checkpoint_path = qualify_path(spark, config.checkpoint_path)
    _check_checkpoint(spark, config, checkpoint_path, tables[0])
    return Checked(
        topic,
        read_client_properties(spark, config),
        checkpoint_path,
        bronze=tables[0],
        dlq=tables[1] if config.dlq_path else None,
        make_writer=choose_writer(config, tables),
    )


def create_tables(spark: SparkSession, checked: Checked) -> None:
    """Create the tables that are missing."""
    for table in checked.tables:
        create_table(spark, table.path, table.spec, checked.topic, table.state)


@dataclass(frozen=True)
class TableGuard:
    """The overlap guard of one query: what the checkpoint plans, what the tables hold."""

    spark: SparkSession
    tables: list[str]
    topic: str
    checkpoint_path: str

    def read_planned(self, batch_id: int) -> PlannedOffsets:
        """First and end offset of a batch, per partition."""
        return read_planned_offsets(self.spark, self.checkpoint_path, batch_id, self.topic)

    def find_highest(self) -> dict[int, int]:
        """The highest offset in the tables, per partition."""
        return find_highest(self.spark, self.tables, self.topic)

    def find_present(self, planned: PlannedOffsets) -> OffsetRanges:
        """Which of the planned offsets are in the tables."""
        return find_present(self.spark, self.tables, self.topic, planned)


def make_processor(spark: SparkSession, config: IngestConfig, checked: Checked) -> BatchProcessor:
    """What Spark calls with each batch, on existing tables."""
    paths = [table.path for table in checked.tables]
    bronze_path, dlq_path = paths[0], paths[1] if checked.dlq else ""

    return BatchProcessor(
        checked.make_writer(bronze_path, dlq_path),
        TableGuard(spark, paths, checked.topic.name, checked.checkpoint_path),
        bronze_path=to_local_path(bronze_path) or "",
        dlq_path=dlq_path and (to_local_path(dlq_path) or dlq_path),
        with_metrics=config.with_metrics,
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


def choose_writer(config: IngestConfig, tables: list[CheckedTable]) -> type[DirectWriter] | type[SparkWriter]:
    """The direct writer wherever it can append correctly, unless delta-spark is asked for; says so in the log.

    Raises:
        WriterUnsuitable: The direct writer is asked for where it cannot.
    """
    obstacle = next(filter(None, (find_obstacle(table.path, table.state) for table in tables)), "")
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


def _check_checkpoint(spark: SparkSession, config: IngestConfig, checkpoint_path: str, bronze: CheckedTable) -> None:
    """Refuse a checkpoint without its table: all that was read before would be missing from a new one."""
    if not has_checkpoint(spark, checkpoint_path):
        return
    if bronze.state is None:
        raise CheckpointOfOtherTables(config.checkpoint_path, config.output_path)
    if config.starting_offsets:
        log.warning(
            "Warning: --starting-offsets %s is ignored, because the checkpoint %s exists and says where to go on",
            config.starting_offsets,
            config.checkpoint_path,
        )
