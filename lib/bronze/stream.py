"""The ingestion: read the topic, split it, write both tables, batch by batch.

``ingest`` is the whole of it; the CLI, spark-submit's entrypoint and the notebooks call nothing else.
"""

import logging
from dataclasses import replace
from functools import partial

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import IllegalArgumentException, StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from bronze.batch import Batch, BatchProcessor, Hooks, IngestSummary, log_batch
from bronze.checkpoint import CheckpointFolder
from bronze.config import DEFAULT_STARTING_OFFSETS, IngestConfig
from bronze.errors import DataLossError, ExitCode, TooManyInvalidError, TopicVanishedError, UnknownTopicError
from bronze.guard import OverlapGuard
from bronze.kafka.client import client_config_error
from bronze.kafka.topic import fetch_topic
from bronze.kafka.watch import TopicWatch
from bronze.pipeline import Pipeline, bind_checkpoint, bind_tables, reopen_for_append
from bronze.resume import Start, plan_start
from bronze.runtime.spark_errors import (
    drop_connection,
    explain_failure,
    explain_failures,
    is_interrupt,
    vanished_topic_error,
)
from bronze.stop import StopSwitch, check_stop_file, listen_for_stop, stop_query
from bronze.writers import check_writer

log = logging.getLogger(__name__)


def ingest(config: IngestConfig, spark: SparkSession | None = None) -> IngestSummary:
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
    with explain_failures(), Pipeline.open(config, spark) as pipeline:
        return _run(pipeline, config)


def _run(pipeline: Pipeline, config: IngestConfig) -> IngestSummary:
    folder = pipeline.get_checkpoint(config.checkpoint_path)
    pipeline, start = _check(pipeline, config, folder)
    check_writer(config.writer, pipeline.tables)
    records, switch = read_topic(pipeline, config), StopSwitch()
    with listen_for_stop(switch, pipeline.spark, config):
        watch = TopicWatch(pipeline.kafka, pipeline.topic, pipeline.bronze.path)
        pipeline, writer = bind_tables(pipeline, config, start.ledger, start.lost)
        with explain_failures(folder.path):
            bind_checkpoint(pipeline, folder)
        for place in pipeline.known.ledger.earlier:
            log.warning("invalid records went to the DLQ %s before; what it holds is left out", place.path)
        guard = OverlapGuard(config, folder, pipeline.lookup)
        hooks = Hooks(switch.block_if_stopping, partial(_end_batch, switch, config), watch)
        processor = BatchProcessor(pipeline.topic.name, pipeline.paths, writer, guard, hooks)
        query = start_query(records, processor, config, folder.path)
        try:
            await_query(query, processor, switch, config, watch)
        except (DataLossError, TopicVanishedError, UnknownTopicError) as error:
            # Spark names what it stumbled over, and another topic looks like lost records; the next start knows better.
            again = pipeline.reopen(config, fetch_topic(pipeline.kafka))
            _check(again, replace(config, starting_offsets="", change_dlq=False), folder)
            if isinstance(error, UnknownTopicError):
                raise vanished_topic_error(str(error)) from error
            raise
    return processor.summary


def _check(pipeline: Pipeline, config: IngestConfig, folder: CheckpointFolder) -> tuple[Pipeline, Start]:
    """Check Kafka, tables and checkpoint against one another, as every start does."""
    pipeline = reopen_for_append(pipeline, config)
    return pipeline, plan_start(pipeline, config, folder, pipeline.fetch_available())


def _end_batch(switch: StopSwitch, config: IngestConfig, batch: Batch) -> None:
    """Log a batch, and ask for a stop behind one of whose new records a too large share is invalid."""
    log_batch(batch, config.with_metrics)
    invalid, limit = batch.counts.invalid, config.max_invalid_ratio
    records = batch.counts.valid + invalid
    if limit and invalid > limit * records:
        error = TooManyInvalidError(
            f"{invalid:,} of the {records:,} records of batch {batch.batch_id} are invalid, {invalid / records:.1%}; "
            f"--max-invalid-ratio allows {limit:g}. The batch is committed, and nothing after it was read.",
            hint="See what came (notebooks/dlq_inspection.ipynb), then run the same command again to go on with the "
            "next batch",
        )
        switch.request(f"--max-invalid-ratio {limit:g}", error)


def main(config: IngestConfig) -> int:
    """The command ``bronze ingest``: run, and print what was ingested."""
    summary = ingest(config)
    present = f", {summary.present:,} in the tables already" if summary.present else ""
    print(
        f"{summary.total:,} records in {summary.batch_count:,} batches: "
        f"{summary.valid:,} valid, {summary.invalid:,} invalid{present}"
    )
    return ExitCode.DONE


def read_topic(pipeline: Pipeline, config: IngestConfig) -> DataFrame:
    """The topic as a stream of Kafka records; those of aborted transactions are left out.

    Raises:
        ConfigError: Spark does not take one of the client properties.
    """
    options = pipeline.kafka.build_source_options("read_committed") | {
        "subscribe": config.kafka_topic,
        "startingOffsets": config.starting_offsets or DEFAULT_STARTING_OFFSETS,
        "failOnDataLoss": str(config.fail_on_data_loss).lower(),
    }
    if config.max_offsets_per_trigger:
        options["maxOffsetsPerTrigger"] = config.max_offsets_per_trigger
    try:
        return pipeline.spark.readStream.format("kafka").options(**options).load()
    except IllegalArgumentException as error:
        raise client_config_error(config, " ".join(str(error).split())) from None


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
    try:
        while not switch.reason and not query.awaitTermination(1):
            check_stop_file(switch, config.stop_file)
            watch.heartbeat()
        if switch.reason:
            stop_query(query, switch, config.stop_timeout)
            log.info("Stopped %s", format_progress(processor.summary))
        if switch.error:
            raise switch.error
    except (StreamingQueryException, Py4JJavaError) as error:
        # Without an error of the batch, what Spark itself writes to has failed: the checkpoint.
        raise explain_failure(processor.error or error, "" if processor.error else config.checkpoint_path) from error
    except (KeyboardInterrupt, Py4JError) as error:
        if is_interrupt(error):
            log.warning("Stopping at once; a batch that was not committed is run again at the next start")
            drop_connection()
            query.stop()
        raise


def format_progress(summary: IngestSummary) -> str:
    """How far a run came."""
    return f"after batch {summary.batches[-1].batch_id}" if summary.batches else "before a batch was run"
