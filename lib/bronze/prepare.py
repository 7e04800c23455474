"""All that is checked before anything is written; then what the first batch needs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import msgspec
from pyspark.sql import SparkSession

from bronze.batch import BatchProcessor
from bronze.checkpoint import read_begins, read_binding, read_planned_offsets, write_binding
from bronze.commit import TableWriter
from bronze.config import IngestConfig, TablesConfig
from bronze.direct_writer import DirectWriter
from bronze.dlq_binding import bind_dlq, check_dlq, check_not_gone, find_dlqs, make_place
from bronze.errors import InvalidOption
from bronze.failures import explain_failures
from bronze.kafka import Topic, describe_topic, list_offsets
from bronze.kafka_options import read_client_properties
from bronze.ledger import Place, TopicLedger
from bronze.lookup import Lookup
from bronze.loss import describe_lost, subtract_all
from bronze.obstacles import find_obstacle
from bronze.offsets import OffsetRanges, PlannedOffsets
from bronze.opening import CheckedTable, locate_tables
from bronze.resume import Opened, Start, check_start, make_opened
from bronze.spark_writer import SparkWriter
from bronze.stop import StopSwitch, limit_invalid
from bronze.storage_errors import DlqChanged, WriterUnsuitable
from bronze.tables import (
    check_topic_id,
    create_table,
    qualify_path,
    to_local_path,
)
from bronze.watch import TopicWatch

if TYPE_CHECKING:
    from bronze.operations import BackfillConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checked:
    """What is known after all was checked and nothing was written."""

    opened: Opened
    client_properties: dict[str, str] = field(repr=False)  # may hold secrets
    checkpoint_path: str
    start: Start

    @property
    def topic(self) -> Topic:
        """The topic."""
        return self.opened.topic


def check_all(spark: SparkSession, config: IngestConfig) -> Checked:
    """Check session, arguments, Kafka, tables and writer.

    Raises:
        BronzeError: What does not fit.
    """
    check_trigger_interval(spark, config)
    checked = check_source(spark, config)
    check_writer(config.writer, list_configured(checked.opened))
    return checked


def check_source(spark: SparkSession, config: IngestConfig) -> Checked:
    """Check Kafka, tables and checkpoint against one another, as every start does.

    Raises:
        BronzeError: What does not fit.
    """
    opened = open_tables(spark, config, describe_topic(spark, config), config.change_dlq)
    checkpoint_path = qualify_path(spark, config.checkpoint_path)
    start = check_start(spark, config, checkpoint_path, opened, list_offsets(spark, config, opened.topic))
    return Checked(opened, read_client_properties(spark, config), checkpoint_path, start)


def open_tables(spark: SparkSession, config: TablesConfig, topic: Topic, change_dlq: bool) -> Opened:
    """Check that the tables fit the topic and one another, for a command that appends.

    Raises:
        NotADeltaTable: A path holds something else.
        TableMismatch: A table has other columns or another partitioning.
        TopicRecreated: A table's rows came from another topic of the same name.
        DlqMissing: A DLQ that bronze names is gone.
        DlqMismatch: Bronze names another DLQ for the topic.
        DlqTaken: The DLQ belongs to another bronze table.
    """
    bronze, dlq = check_tables(spark, config, topic)
    if bronze.state is None:  # another process may have created and bound both since
        bronze, dlq = check_tables(spark, config, topic)
    known = find_dlqs(spark, bronze, dlq, topic.name)
    check_dlq(known, bronze, dlq, topic.name, change_dlq)
    check_not_gone(bronze, dlq, topic.name)
    return make_opened(spark, topic, bronze, dlq, known)


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


def list_configured(opened: Opened) -> list[CheckedTable]:
    """The tables that are configured."""
    return [opened.bronze, opened.dlq] if opened.dlq else [opened.bronze]


def create_tables(spark: SparkSession, config: IngestConfig, checked: Checked) -> tuple[Checked, TableWriter]:
    """Create the tables that are missing, and bind tables and checkpoint to one another.

    Returns:
        The same with the tables as they are now (another process may have created them meanwhile), and their writer.
    """
    opened, writer = bind_tables(spark, config, checked.opened, checked.start)
    bronze, dlq = opened.bronze, opened.dlq
    assert bronze.state is not None
    binding = {"format": "2", "topic": checked.topic.name}
    binding |= {"output_path": bronze.path, "output_id": bronze.state.table_id}
    if dlq and dlq.state:
        binding |= {"dlq_path": dlq.path, "dlq_id": dlq.state.table_id}
    if read_binding(spark, checked.checkpoint_path) != binding:
        with explain_failures(checked.checkpoint_path):
            write_binding(spark, checked.checkpoint_path, binding)
    return replace(checked, opened=opened), writer


def bind_tables(
    spark: SparkSession, config: "IngestConfig | BackfillConfig", opened: Opened, start: Start
) -> tuple[Opened, TableWriter]:
    """Create the tables that are missing, choose the writer, and commit to both tables that they belong together.

    Raises:
        DlqChanged: Another run has changed the DLQ since the tables were checked.
        WriterUnsuitable: The direct writer is asked for where it cannot append.
    """
    topic = opened.topic
    for table in list_configured(opened):
        if table.state is None:
            create_table(spark, table.path, table.spec)
    bronze, dlq = check_tables(spark, config, topic)
    assert bronze.state is not None
    # Only now: the session may give new tables properties that are an obstacle.
    make_writer = choose_writer(config.writer, [bronze, dlq] if dlq else [bronze])
    writer = make_writer(bronze.path, dlq.path if dlq else "")
    gone, named = opened.known.missing, opened.known.ledger.dlq
    expected = {place.id if place else "" for place in (named, make_place(dlq))}

    def bind(current: TopicLedger) -> TopicLedger:
        if current in (opened.known.ledger, TopicLedger()):
            current = start.ledger
        elif gone or (current.dlq.id if current.dlq else "") not in expected:
            raise DlqChanged(bronze.path, topic.name, current.dlq.path if current.dlq else "")
        bound = bind_dlq(current, bronze, dlq, opened.known).add_lost(start.lost)
        return msgspec.structs.replace(bound, topic_id=topic.topic_id)

    owner = opened.dlq.state.note.bronze.get(topic.name) if opened.dlq and opened.dlq.state else None
    if start.lost:
        log.warning("Warning: data loss is accepted, Kafka no longer has %s", describe_lost(start.lost))
    writer.bind(topic.name, bind, Place(bronze.state.table_id, bronze.path, topic.topic_id), owner)
    replaced = opened.known.paths.get(named.id) if named else None
    if replaced and (not dlq or replaced != dlq.path):
        SparkWriter(replaced).renew()  # a writer that is about to append to the DLQ before must look again
    bronze, dlq = check_tables(spark, config, topic)
    return make_opened(spark, topic, bronze, dlq, find_dlqs(spark, bronze, dlq, topic.name)), writer


@dataclass(frozen=True)
class TableGuard:
    """The overlap guard of one query: what the checkpoint plans, what the tables hold."""

    spark: SparkSession
    config: IngestConfig
    lookup: Lookup
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

    @cached_property
    def begins(self) -> dict[int, int]:
        """Where the query began, per partition."""
        return read_begins(self.spark, self.checkpoint_path, self.topic)

    def find_present(self, planned: PlannedOffsets) -> OffsetRanges:
        """Which of the planned offsets are in the tables."""
        return self.lookup.find_present(planned)

    def find_covered(self, planned: PlannedOffsets) -> OffsetRanges:
        """Which of the planned offsets the batch has read for certain.

        Where a loss is accepted, Kafka may have deleted some below its earliest before they were read.
        """
        covered = {p: [(first, end - 1)] for p, (first, end) in planned.items() if first < end}
        if self.config.fail_on_data_loss:  # Spark itself ends the query
            return covered
        topic = replace(self.kafka_topic, partitions=tuple(planned))  # some may be new
        held = list_offsets(self.spark, self.config, topic, self.patience)
        certain = {p: subtract_all(r, [(0, held[p][0] - 1)] if held[p][0] else []) for p, r in covered.items()}
        return {p: ranges for p, ranges in certain.items() if ranges}


def make_processor(
    spark: SparkSession,
    config: IngestConfig,
    checked: Checked,
    writer: TableWriter,
    switch: StopSwitch,
    watch: TopicWatch,
) -> BatchProcessor:
    """What Spark calls with each batch, on existing tables."""
    opened = checked.opened
    bronze_path, dlq_path = opened.bronze.path, opened.dlq.path if opened.dlq else ""
    for place in opened.known.ledger.earlier:
        log.warning("Warning: invalid records went to the DLQ %s before; what it holds is left out", place.path)
    return BatchProcessor(
        writer,
        TableGuard(spark, config, opened.lookup, opened.topic, checked.checkpoint_path, watch.patience),
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
