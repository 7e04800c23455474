"""All that is checked before anything is written; then what the first batch needs."""

import logging
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.batch import BatchProcessor
from bronze.checkpoint import read_binding, write_binding
from bronze.config import BackfillConfig, IngestConfig, TablesConfig
from bronze.delta.binding import bind_dlq, check_dlq, check_not_gone, find_dlqs, make_place
from bronze.delta.ledger import Place, TopicLedger
from bronze.delta.tables import CheckedTable, check_table, check_topic_id, create_table, list_tables, read_table_state
from bronze.errors import DlqChanged, InvalidOption, JarsMissing
from bronze.guard import TableGuard
from bronze.kafka.client import read_client_properties
from bronze.kafka.topic import Topic, describe_topic, list_offsets
from bronze.kafka.watch import TopicWatch
from bronze.resume import Opened, Start, check_start, describe_lost, make_opened
from bronze.runtime.jars import get_spark_packages
from bronze.runtime.paths import check_file_systems, check_folders, qualify_path, to_local_path
from bronze.runtime.session import apply_settings, get_session
from bronze.runtime.spark_errors import explain_failures
from bronze.stop import StopSwitch, limit_invalid
from bronze.writers import SparkWriter, TableWriter, check_writer, choose_writer

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


def open_session(config: TablesConfig, spark: SparkSession | None = None, show_ui: bool = False) -> SparkSession:
    """Check what can be checked without Spark, and return a session that can be used, with its settings.

    Args:
        config: Where tables and checkpoint are.
        spark: Session to use; spark-submit's, the running or a new local one when not given.
        show_ui: Whether a new local one has Spark's UI.

    Raises:
        InvalidOption: A path cannot be used.
        NotADeltaTable: A path holds something else.
        TableMismatch: A table has other columns or another partitioning.
        JarsMissing: The session lacks Delta Lake or the Kafka source.
    """
    check_folders(config)
    if spark is None:
        check_local_tables(config)  # before a JVM starts
        spark = get_session(show_ui=show_ui)
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
