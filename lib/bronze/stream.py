"""The ingestion: reads the topic, splits its records and writes both tables, batch by batch.

The CLI, spark-submit's entrypoint and the notebooks call only ``ingest``.
"""

import logging
from contextlib import closing
from dataclasses import replace
from functools import partial

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from bronze.batch import BatchProcessor, Hooks
from bronze.checkpoint import CheckpointFolder
from bronze.config import IngestConfig
from bronze.errors import DataLossError, ExitCode, TooManyInvalidError, TopicVanishedError, UnknownTopicError
from bronze.guard import OverlapGuard
from bronze.kafka.read import read_topic
from bronze.kafka.topic import fetch_topic
from bronze.kafka.watch import TopicWatch
from bronze.observe.progress import Backlog
from bronze.observe.summary import Batch, IngestSummary, log_batch
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
    """Ingest the topic into bronze and the DLQ until it is done (``available_now``) or the process is stopped.

    All checks run before the first write. After any end, run it again with the same checkpoint to continue; no record
    is lost or duplicated.

    Args:
        config: What to read, where to write and how.
        spark: Session to use; by default the running one, spark-submit's or a new local one.

    Returns:
        The counts of this run, also if it was stopped on request.

    Raises:
        BronzeError: One of its subclasses, with an exit code and a hint.
    """
    with explain_failures(), Pipeline.open(config, spark) as pipeline:
        return _run(pipeline, config)


def _run(pipeline: Pipeline, config: IngestConfig) -> IngestSummary:
    folder = pipeline.get_checkpoint(config.checkpoint_path)
    pipeline, start = _check(pipeline, config, folder)
    check_writer(config.writer, pipeline.tables)
    records, switch = read_topic(pipeline.kafka, config), StopSwitch()
    # The client is closed before the JVM hears that the run has ended.
    with listen_for_stop(switch, pipeline.spark, config), closing(pipeline.kafka):
        watch = TopicWatch(pipeline.kafka, pipeline.topic, pipeline.bronze.path)
        pipeline, writer = bind_tables(pipeline, config, start.ledger, start.lost)
        with explain_failures(folder.path):
            bind_checkpoint(pipeline, folder)
        for place in pipeline.known.ledger.earlier:
            log.warning("invalid records previously went to the DLQ %s; records that it holds are skipped", place.path)
        guard = OverlapGuard(config, folder, pipeline.lookup)
        hooks = Hooks(switch.block_if_stopping, partial(_end_batch, switch, config), watch)
        processor = BatchProcessor(pipeline, writer, guard, hooks)
        query = start_query(records, processor, config, folder.path)
        try:
            await_query(query, processor, switch, config, watch)
        except (DataLossError, TopicVanishedError, UnknownTopicError) as error:
            # Spark reports a recreated topic as lost records; the checks of a start find the real cause.
            again = pipeline.reopen(config, fetch_topic(pipeline.kafka))
            _check(again, replace(config, starting_offsets="", change_dlq=False), folder)
            if isinstance(error, UnknownTopicError):
                raise vanished_topic_error(str(error)) from error
            raise
    return processor.summary


def _check(pipeline: Pipeline, config: IngestConfig, folder: CheckpointFolder) -> tuple[Pipeline, Start]:
    """Check that Kafka, tables and checkpoint belong together; every start does this."""
    pipeline = reopen_for_append(pipeline, config)
    return pipeline, plan_start(pipeline, config, folder, pipeline.fetch_available())


def _end_batch(switch: StopSwitch, config: IngestConfig, batch: Batch) -> None:
    """Log a batch; request a stop if too many of its new records are invalid."""
    log_batch(batch, config.with_metrics)
    invalid, limit = batch.counts.invalid, config.max_invalid_ratio
    records = batch.counts.valid + invalid
    if limit and invalid > limit * records:
        error = TooManyInvalidError(
            f"{invalid:,} of the {records:,} records of batch {batch.batch_id} are invalid, {invalid / records:.1%}; "
            f"--max-invalid-ratio allows {limit:g}. The batch is committed, and nothing after it was read.",
            hint="Inspect the DLQ (notebooks/dlq_inspection.ipynb), then run the same command again to continue with "
            "the next batch",
        )
        switch.request(f"--max-invalid-ratio {limit:g}", error)


def main(config: IngestConfig) -> int:
    """Run the command ``bronze ingest``, and print the counts."""
    summary = ingest(config)
    counts = summary.counts
    present = f", {counts.present:,} already in the tables" if counts.present else ""
    print(
        f"{counts.total:,} records in {summary.batch_count:,} batches: "
        f"{counts.valid:,} valid, {counts.invalid:,} invalid{present}"
    )
    return ExitCode.DONE


def start_query(
    records: DataFrame, processor: BatchProcessor, config: IngestConfig, checkpoint_path: str
) -> StreamingQuery:
    """Start the query: a batch per interval, or with ``available_now`` only the records that the topic holds now."""
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
    """Wait until the query ends or a stop is requested; a stop at any moment neither loses nor duplicates records.

    Raises:
        BronzeError: The query failed, or was stopped with an error.
        KeyboardInterrupt: A second signal came; the query was stopped at once.
    """
    backlog = Backlog(query) if config.available_now else None
    try:
        while not switch.reason and not query.awaitTermination(1):
            check_stop_file(switch, config.stop_file)
            watch.heartbeat()
            if backlog:
                backlog.look()
        if switch.reason:
            stop_query(query, switch, config.stop_timeout)
            log.info("Stopped %s", processor.summary.describe_newest())
        if switch.error:
            raise switch.error
    except (StreamingQueryException, Py4JJavaError) as error:
        # Without an error of the batch, Spark's own write to the checkpoint has failed.
        raise explain_failure(processor.error or error, "" if processor.error else config.checkpoint_path) from error
    except (KeyboardInterrupt, Py4JError) as error:
        if is_interrupt(error):
            log.warning("Stopping at once; the next start repeats a batch that was not committed")
            drop_connection()
            query.stop()
        raise
