"""All that is checked before anything is written; then what the first batch needs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from pyspark.sql import SparkSession

from bronze.batch import BatchProcessor
from bronze.checkpoint import read_binding, read_planned_offsets, write_binding
from bronze.commit import DirectWriter
from bronze.config import IngestConfig, TablesConfig
from bronze.errors import InvalidOption
from bronze.failures import explain_failures
from bronze.kafka import Topic, describe_topic, list_offsets
from bronze.kafka_options import read_client_properties
from bronze.lookup import Lookup
from bronze.loss import find_lost, note_accepted
from bronze.obstacles import find_obstacle
from bronze.offsets import OffsetRanges, PlannedOffsets
from bronze.opening import CheckedTable, list_tables_with_positions, locate_tables
from bronze.resume import check_start
from bronze.spark_writer import SparkWriter
from bronze.stop import StopSwitch, limit_invalid
from bronze.storage_errors import WriterUnsuitable
from bronze.tables import (
    check_topic_id,
    create_table,
    qualify_path,
    to_local_path,
)
from bronze.watch import TopicWatch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checked:
    """What is known after all was checked and nothing was written; ``dlq`` is None where none is configured."""

    topic: Topic
    client_properties: dict[str, str] = field(repr=False)  # may hold secrets
    checkpoint_path: str
    bronze: CheckedTable
    dlq: CheckedTable | None
    lost: OffsetRanges  # what Kafka deleted before it was read, where that is accepted

    @property
    def tables(self) -> list[CheckedTable]:
        """The tables that are configured."""
        return [self.bronze, self.dlq] if self.dlq else [self.bronze]


def check_all(spark: SparkSession, config: IngestConfig) -> Checked:
    """Check session, arguments, Kafka, tables and writer.

    Raises:
        BronzeError: What does not fit.
    """
    check_trigger_interval(spark, config)
    checked = check_source(spark, config)
    check_writer(config.writer, checked.tables)
    return checked


def check_source(spark: SparkSession, config: IngestConfig) -> Checked:
    """Check Kafka, tables and checkpoint against one another, as every start does.

    Raises:
        BronzeError: What does not fit.
    """
    topic = describe_topic(spark, config)
    bronze, dlq = check_tables(spark, config, topic)
    checkpoint_path = qualify_path(spark, config.checkpoint_path)
    lost = check_start(spark, config, checkpoint_path, bronze, dlq, topic, list_offsets(spark, config, topic))
    return Checked(topic, read_client_properties(spark, config), checkpoint_path, bronze, dlq, lost)


def check_tables(spark: SparkSession, config: TablesConfig, topic: Topic) -> tuple[CheckedTable, CheckedTable | None]:
    """Check that bronze, and the DLQ where one is configured, fit or do not exist yet.

    Raises:
        NotADeltaTable: A path holds something else.
        TableMismatch: A table has other columns or another partitioning.
        TopicRecreated: A table's rows came from another topic of the same name.
    """
    bronze, dlq = locate_tables(spark, config)
    for table in filter(None, (bronze, dlq)):
        if table.state:
            check_topic_id(table.state, topic, table.path)
    return bronze, dlq


def create_tables(spark: SparkSession, config: IngestConfig, checked: Checked) -> Checked:
    """Create the tables that are missing, and bind the checkpoint to them.

    Returns:
        The same with the tables as they are now: another process may have made them meanwhile.
    """
    bronze, dlq = ensure_tables(spark, config, checked.topic, checked.bronze, checked.dlq)
    assert bronze.state is not None
    binding = {"topic": checked.topic.name, "output_path": bronze.path, "output_id": bronze.state.table_id}
    if read_binding(spark, checked.checkpoint_path) != binding:
        with explain_failures(checked.checkpoint_path):
            write_binding(spark, checked.checkpoint_path, binding)
    if checked.lost:
        note_accepted(spark, bronze.path, checked.topic.name, checked.lost)
    return replace(checked, bronze=bronze, dlq=dlq)


def ensure_tables(
    spark: SparkSession, config: TablesConfig, topic: Topic, bronze: CheckedTable, dlq: CheckedTable | None
) -> tuple[CheckedTable, CheckedTable | None]:
    """Create the tables that are missing; both as they are then, because another process may have made them."""
    for _ in range(2):  # a table that another process made meanwhile lacks the properties of ours
        for table in filter(None, (bronze, dlq)):
            known_dlq = dlq.path if dlq and table.spec is bronze.spec else ""
            create_table(spark, table.path, table.spec, topic, table.state, known_dlq)
        bronze, dlq = check_tables(spark, config, topic)
    return bronze, dlq


@dataclass(frozen=True)
class TableGuard:
    """The overlap guard of one query: what the checkpoint plans, what the tables hold."""

    spark: SparkSession
    config: IngestConfig
    tables: list[str]  # bronze first
    kafka_topic: Topic
    checkpoint_path: str
    patience: float | None = None  # seconds to wait for Kafka; startup_timeout where not given

    @property
    def topic(self) -> str:
        """Name of the Kafka topic."""
        return self.kafka_topic.name

    def read_planned(self, batch_id: int) -> PlannedOffsets:
        """First and end offset of a batch, per partition."""
        return read_planned_offsets(self.spark, self.checkpoint_path, batch_id, self.topic)

    def find_present(self, planned: PlannedOffsets) -> OffsetRanges:
        """Which of the planned offsets are in the tables."""
        return self._lookup.find_present(planned)

    def note_lost(self, planned: PlannedOffsets) -> None:
        """After a batch: note what Kafka deleted of it before it was read; else Spark itself has ended the query."""
        if not self.config.fail_on_data_loss:
            held = list_offsets(self.spark, self.config, self.kafka_topic, self.patience)
            if lost := find_lost(planned, held, self.find_present):
                note_accepted(self.spark, self.tables[0], self.topic, lost)

    @cached_property
    def _lookup(self) -> Lookup:
        return Lookup(self.spark, self.tables, self.topic)


def make_processor(
    spark: SparkSession,
    config: IngestConfig,
    checked: Checked,
    switch: StopSwitch,
    watch: TopicWatch,
) -> BatchProcessor:
    """What Spark calls with each batch, on existing tables."""
    bronze_path, dlq_path = checked.bronze.path, checked.dlq.path if checked.dlq else ""
    tables = list_tables_with_positions(spark, checked.bronze, dlq_path)
    for path in tables[2:] if dlq_path else tables[1:]:
        log.warning("Warning: invalid records went to the DLQ %s before; what it holds is left out", path)
    # Only now: the session may give new tables properties that are an obstacle.
    make_writer = choose_writer(config.writer, checked.tables)
    return BatchProcessor(
        make_writer(bronze_path, dlq_path),
        TableGuard(spark, config, tables, checked.topic, checked.checkpoint_path, watch.patience),
        bronze_path=to_local_path(bronze_path) or "",
        dlq_path=dlq_path and (to_local_path(dlq_path) or dlq_path),
        with_metrics=config.with_metrics,
        hold_batch=switch.hold_batch,
        check_topic=watch.check_topic,
        end_batch=partial(limit_invalid, switch, config.max_invalid_ratio),
    )


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


def check_writer(writer: str, tables: Sequence[CheckedTable]) -> str:
    """Why the direct writer cannot append to the tables correctly; empty where it can.

    Raises:
        WriterUnsuitable: It is asked for all the same.
    """
    obstacle = next(filter(None, (find_obstacle(table.path, table.state) for table in tables)), "")
    if writer == "direct" and obstacle:
        raise WriterUnsuitable(obstacle)
    return obstacle


def choose_writer(writer: str, tables: Sequence[CheckedTable]) -> type[DirectWriter] | type[SparkWriter]:
    """The direct writer wherever it can append correctly, unless delta-spark is asked for; says so in the log.

    Args:
        writer: The option.
        tables: The tables as they are, not before they are created.

    Raises:
        WriterUnsuitable: The direct writer is asked for where it cannot.
    """
    obstacle = check_writer(writer, tables)
    if writer == "delta-spark" or obstacle:
        log.info("Writer: delta-spark, because %s", obstacle or "--writer asks for it")
        return SparkWriter
    log.info("Writer: direct, because %s", "--writer asks for it" if writer == "direct" else "nothing is in its way")
    return DirectWriter
