"""How a run begins: a session, Kafka, the topic and both tables, opened and checked once."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import msgspec
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.checkpoint import CheckpointFolder
from bronze.config import BackfillConfig, IngestConfig, KafkaConfig, TablesConfig
from bronze.delta.binding import DlqBinding, changed_dlq_error, check_not_gone, find_dlqs
from bronze.delta.commit import TableWriter
from bronze.delta.ledger import Place, TopicLedger
from bronze.delta.lookup import Lookup
from bronze.delta.tables import (
    OWN_PROPERTIES,
    CheckedTable,
    check_table,
    create_table,
    list_tables,
    locate_tables,
    no_table_error,
    read_table_state,
)
from bronze.errors import InvalidOptionError
from bronze.kafka.client import KafkaClient
from bronze.kafka.topic import Topic, fetch_offsets, fetch_topic, recreated_topic_error
from bronze.offsets import Bounds, OffsetSet
from bronze.runtime.jars import missing_jars_error
from bronze.runtime.paths import check_file_systems, check_folders, check_writable, find_class
from bronze.runtime.session import apply_settings, get_session
from bronze.writers import SparkWriter, choose_writer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pipeline:
    """A topic and its tables: what every operation works on. Nothing is written by opening it.

    Attributes:
        spark: Session.
        client: Asks Kafka about the topic; None for an operation on tables alone.
        topic: The topic.
        bronze: The bronze table.
        dlq: The DLQ; None where none is configured.
    """

    spark: SparkSession
    client: KafkaClient | None
    topic: Topic
    bronze: CheckedTable
    dlq: CheckedTable | None

    @classmethod
    @contextmanager
    def open(cls, config: TablesConfig, spark: SparkSession | None = None) -> Iterator["Pipeline"]:
        """Open what a configuration names, until the block ends; the session stays open.

        Args:
            config: With Kafka's address, the topic is looked up, and the tables must be of it.
            spark: Session to use; spark-submit's, the running or a new local one when not given.

        Raises:
            BronzeError: What cannot be used, or does not fit.
        """
        spark = open_session(config, spark)
        if not isinstance(config, KafkaConfig):
            topic = Topic(getattr(config, "kafka_topic", ""), "", ())
            yield cls(spark, None, topic, *locate_tables(spark, config))
            return
        kafka = KafkaClient(spark, config)
        try:
            yield cls(spark, kafka, *_find_topic_and_tables(kafka, config))
        finally:
            kafka.close()

    def reopen(self, config: TablesConfig, topic: Topic | None = None) -> "Pipeline":
        """The same with the tables, and the topic where it is given, as they are now; the look-up goes on."""
        topic = topic or self.topic
        bronze, dlq = _locate_tables(self.spark, config, topic)
        opened = replace(self, topic=topic, bronze=bronze, dlq=dlq)
        known = self.__dict__.get("lookup")
        if known and list(known.tables) == [bronze.path, *opened.known.dlq_paths]:
            opened.__dict__["lookup"] = known
        return opened

    @property
    def kafka(self) -> KafkaClient:
        """Asks Kafka about the topic."""
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
        """The DLQs that bronze names for the topic."""
        return find_dlqs(self.spark, self.bronze, self.dlq, self.topic.name)

    @cached_property
    def lookup(self) -> Lookup:
        """Looks up positions of the topic in all tables that may hold some."""
        bronze = [self.bronze.path] if self.bronze.state else []
        return Lookup(self.spark, [*bronze, *self.known.dlq_paths], self.topic.name)

    @property
    def has_ledger(self) -> bool:
        """Whether bronze has a ledger of the topic; else it is new, or of an older version of this product."""
        return self.bronze.state is not None and self.topic.name in self.bronze.state.note.ledger

    def fetch_available(self) -> Bounds:
        """The offsets that Kafka holds now.

        Raises:
            BronzeError: Kafka does not answer.
        """
        return fetch_offsets(self.kafka, self.topic.partitions)

    def find_ingested(self, bounds: Bounds) -> OffsetSet:
        """Which offsets within the bounds are in any of the tables."""
        return self.lookup.find(bounds)

    def get_checkpoint(self, path: str) -> CheckpointFolder:
        """The folder of a checkpoint of the topic."""
        return CheckpointFolder(self.spark, path, self.topic.name)

    def check_exists(self, *options: str) -> None:
        """Refuse tables that do not exist yet: ``output-path``, ``dlq-path``.

        Raises:
            ConfigError: With the path.
        """
        for option in options:
            table = self.bronze if option == "output-path" else self.dlq
            if table is None or table.state is None:
                raise no_table_error(option, table.path if table else "")


def _find_topic_and_tables(kafka: KafkaClient, config: TablesConfig) -> tuple[Topic, CheckedTable, CheckedTable | None]:
    topic = fetch_topic(kafka)
    return topic, *_locate_tables(kafka.spark, config, topic)


def _locate_tables(spark: SparkSession, config: TablesConfig, topic: Topic) -> tuple[CheckedTable, CheckedTable | None]:
    """Both tables as they are now.

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
        ConfigError: The topic's id is not the one that the table was made for.
    """
    if table.state is None:
        return
    ledger, place = table.state.note.ledger.get(topic.name), table.state.note.bronze.get(topic.name)
    noted = (ledger.topic_id if ledger else "") or (place.topic_id if place else "")
    # Tables of an older version of this product have the property only, and RESTORE takes it back.
    known = noted or table.state.properties.get(f"{OWN_PROPERTIES}topicId.{topic.name}")
    if known and topic.topic_id and known != topic.topic_id:
        raise recreated_topic_error(topic.name, table.path, known, topic.topic_id)


def reopen_for_append(pipeline: Pipeline, config: IngestConfig | BackfillConfig) -> Pipeline:
    """Check that the tables fit one another, for a command that appends.

    Raises:
        ConfigError: A DLQ that bronze names is gone. Bronze names another DLQ for the topic. The DLQ belongs to another
            bronze table.
    """
    if pipeline.bronze.state is None:  # another process may have created and bound both since
        pipeline = pipeline.reopen(config)
    pipeline.known.check(config.change_dlq)
    check_not_gone(pipeline.bronze, pipeline.dlq, pipeline.topic.name)
    return pipeline


def bind_tables(
    pipeline: Pipeline, config: IngestConfig | BackfillConfig, ledger: TopicLedger, lost: OffsetSet
) -> tuple[Pipeline, TableWriter]:
    """Create the tables that are missing, choose the writer, and commit to both tables that they belong together.

    Args:
        pipeline: As it was checked.
        config: The command's.
        ledger: What bronze is to know of the topic from now on.
        lost: Offsets whose loss is accepted.

    Returns:
        The pipeline with the tables as they are now (another process may have created them meanwhile), and their
        writer.

    Raises:
        ConfigError: Another run has changed the DLQ since the tables were checked. The direct writer is asked for where
            it cannot append.
    """
    known, topic = pipeline.known, pipeline.topic
    for table in pipeline.tables:
        if table.state is None:
            create_table(pipeline.spark, table.path, table.spec)
    opened = pipeline.reopen(config)
    place, dlq = opened.bronze.place, opened.dlq.place if opened.dlq else None
    assert place is not None
    # Only now: the session may give new tables properties that are an obstacle.
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
    """Make a writer that is about to append to the DLQ before look again."""
    before = known.paths.get(known.ledger.dlq.id) if known.ledger.dlq else None
    if before and (not dlq or before != dlq.path):
        SparkWriter(before).renew()


def bind_checkpoint(pipeline: Pipeline, checkpoint: CheckpointFolder) -> None:
    """Note in a checkpoint which tables it belongs to, where it does not say so yet."""
    binding = {"format": "2", "topic": pipeline.topic.name}
    binding |= {"output_path": pipeline.bronze.path, "output_id": pipeline.bronze.id}
    if pipeline.dlq and pipeline.dlq.state:
        binding |= {"dlq_path": pipeline.dlq.path, "dlq_id": pipeline.dlq.id}
    if checkpoint.read_binding() != binding:
        checkpoint.write_binding(binding)


def open_session(config: TablesConfig, spark: SparkSession | None = None) -> SparkSession:
    """Check what can be checked without Spark, and return a session that can be used, with its settings.

    Args:
        config: Where tables and checkpoint are.
        spark: Session to use; spark-submit's, the running or a new local one when not given.

    Raises:
        InvalidOptionError: A path cannot be used.
        NotADeltaTableError: A path holds something else.
        ConfigError: A table has other columns or another partitioning. The session lacks Delta Lake or the Kafka
            source.
    """
    check_folders(config)
    if spark is None:
        check_local_tables(config)  # before a JVM starts
        spark = get_session()
    apply_settings(spark)
    check_file_systems(spark, config)
    check_session(spark)
    check_writable(spark, config, *config.written_paths)
    if isinstance(config, IngestConfig):
        check_trigger_interval(spark, config)
    return spark


def check_trigger_interval(spark: SparkSession, config: IngestConfig) -> None:
    """Let Spark itself read the interval.

    Raises:
        InvalidOptionError: Spark cannot.
    """
    try:
        find_class(spark, "org.apache.spark.sql.streaming.Trigger").ProcessingTime(config.trigger_interval)
    except Exception:
        expected = "an interval such as '30 seconds' or '1 minute'"
        raise InvalidOptionError("trigger_interval", config.trigger_interval, expected) from None


def check_local_tables(config: TablesConfig) -> None:
    """Check the tables without Spark, where they are on the local file system.

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
        ConfigError: With the packages to submit with.
    """
    loader = find_class(spark, "java.lang.Thread").currentThread().getContextClassLoader()
    try:
        for name in ("io.delta.tables.DeltaTable", "org.apache.spark.sql.kafka010.KafkaSourceProvider"):
            loader.loadClass(name)
    except Py4JJavaError:
        raise missing_jars_error() from None
