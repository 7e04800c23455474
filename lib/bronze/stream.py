"""The ingestion: read the topic, split it, write both tables, batch by batch.

``run`` is the whole of it; the CLI, spark-submit's entrypoint and the notebooks call nothing else.
"""

import logging
from dataclasses import replace

from py4j.protocol import Py4JJavaError
from pyspark.errors import IllegalArgumentException, StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from bronze.batch import BatchProcessor, IngestSummary
from bronze.config import DEFAULT_STARTING_OFFSETS, IngestConfig
from bronze.errors import DataLoss, InvalidKafkaConfig, TopicTruncated, TopicVanished, UnknownTopic
from bronze.kafka.client import build_source_options
from bronze.kafka.watch import TopicWatch, watch_topic
from bronze.observe.progress import Backlog
from bronze.pipeline import Checked, check_all, check_source, create_tables, make_processor, open_session
from bronze.runtime.paths import check_writable
from bronze.runtime.spark_errors import explain_failure, explain_failures
from bronze.stop import StopSwitch, check_stop_file, listen_for_stop, stop_query

log = logging.getLogger(__name__)


def run(config: IngestConfig, spark: SparkSession | None = None) -> IngestSummary:
    """Ingest the topic into bronze and the DLQ until all is done (``available_now``) or the process is stopped.

    Nothing is written before everything was checked. After any end, run it again with the same checkpoint to go on;
    no record is lost or doubled by that.

    Args:
        config: What to read, where to write and how.
        spark: Session to use; the running one, spark-submit's or a new local one when not given.

    Returns:
        The counts of this run, also of one that was stopped as asked.

    Raises:
        BronzeError: One of its subclasses, with an exit code and the cure.
    """
    with explain_failures():
        return _run(config, spark)


def _run(config: IngestConfig, spark: SparkSession | None) -> IngestSummary:
    spark = open_session(config, spark, show_ui=not config.available_now)
    check_writable(spark, config, "output_path", "dlq_path", "checkpoint_path")
    checked = check_all(spark, config)
    records = read_topic(spark, config, checked)
    switch = StopSwitch()
    path = checked.opened.bronze.path
    with listen_for_stop(switch, spark, config), watch_topic(spark, config, checked.topic, path) as watch:
        checked, writer = create_tables(spark, config, checked)
        processor = make_processor(spark, config, checked, writer, switch, watch)
        query = start_query(records, processor, config, checked.checkpoint_path)
        try:
            await_query(query, processor, switch, config, watch)
        except (DataLoss, TopicTruncated, TopicVanished, UnknownTopic) as error:
            # Spark names what it stumbled over, and another topic looks like lost records; the next start knows better.
            check_source(spark, replace(config, starting_offsets="", change_dlq=False))
            if isinstance(error, UnknownTopic):
                raise TopicVanished(str(error)) from error
            raise
    return processor.summary


def main(config: IngestConfig) -> int:
    """The command ``bronze ingest``: run, and print what was ingested."""
    summary = run(config)
    present = f", {summary.present:,} in the tables already" if summary.present else ""
    print(
        f"{summary.total:,} records in {summary.batch_count:,} batches: "
        f"{summary.valid:,} valid, {summary.invalid:,} invalid{present}"
    )
    return 0


def read_topic(spark: SparkSession, config: IngestConfig, checked: Checked) -> DataFrame:
    """The topic as a stream of Kafka records; those of aborted transactions are left out.

    Raises:
        InvalidKafkaConfig: Spark does not take one of the client properties.
    """
    options = build_source_options(checked.client_properties, "read_committed") | {
        "subscribe": config.kafka_topic,
        "startingOffsets": config.starting_offsets or DEFAULT_STARTING_OFFSETS,
        "failOnDataLoss": str(config.fail_on_data_loss).lower(),
    }
    if config.max_offsets_per_trigger:
        options["maxOffsetsPerTrigger"] = config.max_offsets_per_trigger
    try:
        return spark.readStream.format("kafka").options(**options).load()
    except IllegalArgumentException as error:
        raise InvalidKafkaConfig(config.kafka_brokers, " ".join(str(error).split())) from None


def start_query(
    records: DataFrame, processor: BatchProcessor, config: IngestConfig, checkpoint_path: str
) -> StreamingQuery:
    """Start the query: a batch per interval, or all that is there now and then stop."""
    writer = (
        records.writeStream.queryName(f"bronze-{config.kafka_topic}")
        .option("checkpointLocation", checkpoint_path)
        .foreachBatch(processor)
    )
    if config.available_now:
        return writer.trigger(availableNow=True).start()
    return writer.trigger(processingTime=config.trigger_interval).start()


def await_query(
    query: StreamingQuery, processor: BatchProcessor, switch: StopSwitch, config: IngestConfig, watch: TopicWatch
) -> None:
    """Wait until the query ends or is asked to; a stop at any moment loses and doubles nothing.

    Raises:
        BronzeError: Why the query failed or was stopped.
        KeyboardInterrupt: A second signal came; the query was stopped at once.
    """
    backlog = Backlog(query) if config.available_now else None
    try:
        while not switch.reason and not query.awaitTermination(1):
            check_stop_file(switch, config.stop_file)
            watch.look()
            if backlog:
                backlog.look()
        if switch.reason:
            stop_query(query, switch, config.stop_timeout)
            log.info("Stopped %s", describe_progress(processor.summary))
        if switch.error:
            raise switch.error
    except KeyboardInterrupt:
        log.warning("Stopping at once; a batch that was not committed is run again at the next start")
        query.stop()
        raise
    except (StreamingQueryException, Py4JJavaError) as error:
        # Without an error of the batch, what Spark itself writes to has failed: the checkpoint.
        raise explain_failure(processor.error or error, "" if processor.error else config.checkpoint_path) from error


def describe_progress(summary: IngestSummary) -> str:
    """How far a run came."""
    return f"after batch {summary.batches[-1].batch_id}" if summary.batches else "before a batch was run"
