"""Opens and checks the parts of a run once: session, Kafka client, topic and tables."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Thread

import msgspec
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.checkpoint import CheckpointFolder
from bronze.config import BackfillConfig, IngestConfig, KafkaConfig, TablesConfig
from bronze.delta.binding import DlqBinding, changed_dlq_error, check_not_gone, find_dlqs
from bronze.delta.commit import TableWriter
from bronze.delta.create import create_table
from bronze.delta.ledger import Place, TopicLedger
from bronze.delta.lookup import Lookup
from bronze.delta.tables import (
    OWN_PROPERTIES,
    CheckedTable,
    check_table,
    list_tables,
    locate_tables,
    no_table_error,
    read_table_state,
)
from bronze.errors import InvalidOptionError
from bronze.kafka.client import KafkaClient
from bronze.kafka.topic import Topic, fetch_offsets, fetch_topic, recreated_topic_error
from bronze.offsets import EMPTY, Bounds, OffsetSet
from bronze.runtime.jars import missing_jars_error
from bronze.runtime.object_store import check_object_stores
from bronze.runtime.paths import check_file_systems, check_folders, check_writable, find_class
from bronze.runtime.session import apply_settings, check_running, get_session
from bronze.runtime.spark_errors import drop_connection, is_interrupt
from bronze.schema import get_dlq_spec
from bronze.tasks import return_rows
from bronze.writers import choose_writer

log = logging.getLogger(__name__)

_MAX_WORKERS = 8  # Python processes that a start begins; a batch of many tasks starts the others


@dataclass(frozen=True)
class Pipeline:
    """A topic and its tables, on which every operation works. Opening it writes nothing.

    Attributes:
        spark: Session.
        client: Kafka client; None for an operation on tables alone.
        topic: The topic.
        bronze: The bronze table.
        dlq: The DLQ; None if none is configured.
    """

    spark: SparkSession
    client: KafkaClient | None
    topic: Topic
    bronze: CheckedTable
    dlq: CheckedTable | None

    @classmethod
    @contextmanager
    def open(cls, config: TablesConfig, spark: SparkSession | None = None) -> Iterator["Pipeline"]:
        """Open the topic and tables of a configuration for the duration of the block; the session stays open.

        Args:
            config: If it has Kafka's address, the topic is looked up, and the tables must belong to it.
            spark: Session to use; by default spark-submit's, the running one or a new local one.

        Raises:
            BronzeError: A part cannot be used, or the parts do not belong together.
        """
        spark = open_session(config, spark)
        if not isinstance(config, KafkaConfig):
            topic = Topic(getattr(config, "kafka_topic", ""), "", ())
            yield cls(spark, None, topic, *locate_tables(spark, config))
            return
        kafka = KafkaClient(spark, config)
        try:
            yield cls(spark, kafka, *_find_topic_and_tables(kafka, config))
        except BaseException as error:
            if is_interrupt(error):
                drop_connection()
            raise
        finally:
            kafka.close()

    def reopen(self, config: TablesConfig, topic: Topic | None = None) -> "Pipeline":
        """Return a pipeline with the current state of the tables, the given topic, and the same look-up."""
        topic = topic or self.topic
        bronze, dlq = _locate_tables(self.spark, config, topic)
        opened = replace(self, topic=topic, bronze=bronze, dlq=dlq)
        known = self.__dict__.get("lookup")
        if known and list(known.tables) == [bronze.path, *opened.known.dlq_paths]:
            opened.__dict__["lookup"] = known
        return opened

    @property
    def kafka(self) -> KafkaClient:
        """The Kafka client."""
        assert self.client is not None
        return self.client

    @property
    def tables(self) -> list[CheckedTable]:
        """The configured tables."""
        return [self.bronze, self.dlq] if self.dlq else [self.bronze]

    @property
    def paths(self) -> list[str]:
        """Paths of the configured tables."""
        return [table.path for table in self.tables]

    @cached_property
    def known(self) -> DlqBinding:
        """The binding of bronze to its DLQs of the topic."""
        return find_dlqs(self.spark, self.bronze, self.dlq, self.topic.name)

    @cached_property
    def lookup(self) -> Lookup:
        """The look-up of the topic's positions in bronze and all its DLQs."""
        bronze = [self.bronze.path] if self.bronze.state else []
        return Lookup(self.spark, [*bronze, *self.known.dlq_paths], self.topic.name)

    @property
    def has_ledger(self) -> bool:
        """Whether bronze has a ledger of the topic; a new table or one of an older version has none."""
        return self.bronze.state is not None and self.topic.name in self.bronze.state.note.ledger

    def fetch_available(self) -> Bounds:
        """Ask Kafka which offsets it holds now.

        Raises:
            BronzeError: Kafka does not answer.
        """
        return fetch_offsets(self.kafka, self.topic.partitions)

    def find_ingested(self, bounds: Bounds) -> OffsetSet:
        """Look up which offsets within the bounds are in any of the tables, of which there may be none yet."""
        return self.lookup.find_ingested(bounds) if self.bronze.state or self.known.dlq_paths else EMPTY

    def get_checkpoint(self, path: str) -> CheckpointFolder:
        """Return the folder of a checkpoint of the topic."""
        return CheckpointFolder(self.spark, path, self.topic.name)

    def check_exists(self, *options: str) -> None:
        """Refuse tables that do not exist yet: ``output-path``, ``dlq-path``.

        Raises:
            ConfigError: A table does not exist. The message has the path.
        """
        for option in options:
            table = self.bronze if option == "output-path" else self.dlq
            if table is None or table.state is None:
                raise no_table_error(option, table.path if table else "")


def _find_topic_and_tables(kafka: KafkaClient, config: TablesConfig) -> tuple[Topic, CheckedTable, CheckedTable | None]:
    topic = fetch_topic(kafka)
    return topic, *_locate_tables(kafka.spark, config, topic)


def _locate_tables(spark: SparkSession, config: TablesConfig, topic: Topic) -> tuple[CheckedTable, CheckedTable | None]:
    """Read the current state of both tables.

    Raises:
        NotADeltaTableError: A path holds something else.
        ConfigError: A table has other columns or another partitioning. A table's rows came from another topic of the
            same name.
    """
    bronze, dlq = locate_tables(spark, config)
    for table in filter(None, (bronze, dlq)):
        check_topic_id(table, topic)
    return bronze, dlq


def check_topic_id(table: CheckedTable, topic: Topic) -> None:
    """Refuse a table whose rows came from another topic of the same name.

    Raises:
        ConfigError: The topic's id is not the one that the table was created for.
    """
    if table.state is None:
        return
    ledger, place = table.state.note.ledger.get(topic.name), table.state.note.bronze.get(topic.name)
    noted = (ledger.topic_id if ledger else "") or (place.topic_id if place else "")
    # Tables of an older version have only the property, which RESTORE reverts.
    known = noted or table.state.properties.get(f"{OWN_PROPERTIES}topicId.{topic.name}")
    if known and topic.topic_id and known != topic.topic_id:
        raise recreated_topic_error(topic.name, table.path, known, topic.topic_id)


def reopen_for_append(pipeline: Pipeline, config: IngestConfig | BackfillConfig) -> Pipeline:
    """Check that the tables belong together, for a command that appends.

    Raises:
        ConfigError: A DLQ that bronze names is missing. Bronze names another DLQ for the topic. The DLQ belongs to
            another bronze table.
    """
    if pipeline.bronze.state is None:  # another process may have created and bound both tables meanwhile
        pipeline = pipeline.reopen(config)
    pipeline.known.check(config.change_dlq)
    check_not_gone(pipeline.bronze, pipeline.dlq, pipeline.topic.name)
    return pipeline


def bind_tables(
    pipeline: Pipeline, config: IngestConfig | BackfillConfig, ledger: TopicLedger, lost: OffsetSet
) -> tuple[Pipeline, TableWriter]:
    """Create missing tables, choose the writer, and commit to both tables that they belong together.

    Args:
        pipeline: The checked pipeline.
        config: Configuration of the command.
        ledger: The topic's new ledger in bronze.
        lost: Offsets whose loss is accepted.

    Returns:
        The pipeline with the current state of the tables (another process may have created them meanwhile), and their
        writer.

    Raises:
        ConfigError: Another run has changed the DLQ since the tables were checked. ``--writer direct`` is given, but
            the direct writer cannot append to a table.
    """
    known, topic = pipeline.known, pipeline.topic
    for table in pipeline.tables:
        if table.state is None:
            create_table(pipeline.spark, table.path, table.spec)
    opened = pipeline.reopen(config)
    place, dlq = opened.bronze.place, opened.dlq.place if opened.dlq else None
    assert place is not None
    # Choose once the tables exist: the session may give them properties that the direct writer cannot handle.
    writer = choose_writer(config.writer, opened.tables)
    expected = {each.id if each else "" for each in (known.ledger.dlq, dlq)}

    def bind(current: TopicLedger) -> TopicLedger:
        if current in (known.ledger, TopicLedger()):
            current = ledger
        elif known.missing or (current.dlq.id if current.dlq else "") not in expected:
            raise changed_dlq_error(place.path, topic.name, current.dlq.path if current.dlq else "")
        bound = known.bind(current, opened.dlq).add_lost(lost)
        return msgspec.structs.replace(bound, topic_id=topic.topic_id)

    owner = pipeline.dlq.state.note.bronze.get(topic.name) if pipeline.dlq and pipeline.dlq.state else None
    if lost:
        log.warning("data loss is accepted, Kafka no longer has %s", lost)
    writer.bind(topic.name, bind, Place(place.id, place.path, topic.topic_id), owner)
    _fence_earlier_dlq(known, dlq)
    return opened.reopen(config), writer


def _fence_earlier_dlq(known: DlqBinding, dlq: Place | None) -> None:
    """Commit to the previous DLQ, so that a writer that is about to append to it has a conflict and checks again."""
    before = known.paths.get(known.ledger.dlq.id) if known.ledger.dlq else None
    if before and (not dlq or before != dlq.path):
        table = CheckedTable(before, get_dlq_spec(), read_table_state(before, "dlq-path", SparkSession.active()))
        choose_writer("auto", [table]).renew()


def bind_checkpoint(pipeline: Pipeline, checkpoint: CheckpointFolder) -> None:
    """Note in a checkpoint which tables it belongs to, unless it already says so."""
    binding = {"format": "2", "topic": pipeline.topic.name}
    binding |= {"output_path": pipeline.bronze.path, "output_id": pipeline.bronze.id}
    if pipeline.dlq and pipeline.dlq.state:
        binding |= {"dlq_path": pipeline.dlq.path, "dlq_id": pipeline.dlq.id}
    checkpoint.bind(binding)


def open_session(config: TablesConfig, spark: SparkSession | None = None) -> SparkSession:
    """Return a checked session with the settings applied; first checks the configuration without Spark, where possible.

    Args:
        config: Paths of the tables and the checkpoint.
        spark: Session to use; by default spark-submit's, the running one or a new local one.

    Raises:
        InvalidOptionError: A path cannot be used.
        NotADeltaTableError: A path holds something else.
        ConfigError: A table has other columns or another partitioning. The session lacks Delta Lake or the Kafka
            source.
    """
    check_folders(config)
    if spark is None:
        check_local_tables(config)  # before a JVM starts
        spark = get_session(config)
    else:
        check_running(spark)
        apply_settings(spark)
    if isinstance(config, IngestConfig) and str(spark.sparkContext.master).startswith("local"):
        Thread(target=_start_workers, args=(spark,), daemon=True).start()
    check_file_systems(spark, config)
    check_object_stores(spark, config)
    check_session(spark)
    check_writable(spark, config, *config.written_paths)
    if isinstance(config, IngestConfig):
        check_trigger_interval(spark, config)
    return spark


def check_trigger_interval(spark: SparkSession, config: IngestConfig) -> None:
    """Check the trigger interval with Spark's own parser.

    Raises:
        InvalidOptionError: Spark cannot parse it.
    """
    try:
        find_class(spark, "org.apache.spark.sql.streaming.Trigger").ProcessingTime(config.trigger_interval)
    except Exception:
        expected = "an interval such as '30 seconds' or '1 minute'"
        raise InvalidOptionError("trigger_interval", config.trigger_interval, expected) from None


def check_local_tables(config: TablesConfig) -> None:
    """Check the tables on the local file system, without Spark.

    Raises:
        NotADeltaTableError: A path holds something else.
        ConfigError: A table has other columns or another partitioning.
    """
    for option, (path, spec) in list_tables(config).items():
        if state := read_table_state(path, option):
            check_table(state, spec, path, option)


def check_session(spark: SparkSession) -> None:
    """Refuse a session without Delta Lake or the Kafka source.

    Raises:
        ConfigError: The session lacks one. The message names the packages to submit with.
    """
    loader = find_class(spark, "java.lang.Thread").currentThread().getContextClassLoader()
    try:
        for name in ("io.delta.tables.DeltaTable", "org.apache.spark.sql.kafka010.KafkaSourceProvider"):
            loader.loadClass(name)
    except Py4JJavaError:
        raise missing_jars_error() from None


def _start_workers(spark: SparkSession) -> None:
    """Start the Python processes that decode the first batch, while the checks run: each takes about a second."""
    with suppress(Exception):  # the batch itself reports what is wrong
        count = min(spark.sparkContext.defaultParallelism, _MAX_WORKERS)
        spark.range(0, count, 1, count).mapInArrow(return_rows, "id long").collect()
