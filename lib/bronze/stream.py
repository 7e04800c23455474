"""The ingestion: reads the topic, splits its records and writes both tables, batch by batch.

The CLI, spark-submit's entrypoint and the notebooks call only ``ingest``.
"""

import logging
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from bronze.batch import BatchProcessor, Hooks
from bronze.checkpoint import CheckpointFolder
from bronze.config import IngestConfig
from bronze.errors import (
    BronzeError,
    DataLossError,
    ExitCode,
    TooManyInvalidError,
    TopicVanishedError,
    TransientError,
    UnknownTopicError,
)
from bronze.guard import OverlapGuard
from bronze.kafka.read import read_topic
from bronze.kafka.topic import fetch_topic
from bronze.kafka.watch import TopicWatch
from bronze.monitor.run import Monitor, make_monitor
from bronze.observe.progress import Backlog
from bronze.observe.summary import Batch, IngestSummary, describe_counts, log_batch
from bronze.pipeline import Pipeline, bind_checkpoint, bind_tables, reopen_for_append
from bronze.resume import Start, plan_start
from bronze.runtime.lock import check_lock, hold_lock
from bronze.runtime.logs import event, report
from bronze.runtime.spark_errors import (
    drop_connection,
    explain_failure,
    explain_failures,
    is_interrupt,
    lost_storage_error,
    vanished_topic_error,
)
from bronze.stop import StopSwitch, check_stop_file, listen_for_stop, stop_query
from bronze.stop_http import StopServer, serve_http
from bronze.writers import check_writer

log = logging.getLogger(__name__)
_MAX_PAUSE = 60  # seconds


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
    with explain_failures():
        check_lock(config.checkpoint_path)
        with serve_http(config) as server, Pipeline.open(config, spark) as pipeline:
            return _run(pipeline, config, server)


@dataclass
class _Run:
    """A run of the command, which may run its query several times.

    Attributes:
        folder: The checkpoint, with this run's claim to it.
        monitor: Shows the run to its operators.
        has_planned: Whether the checkpoint says where to continue, so that a restart need not decide where to begin.
        is_bound: Whether the tables say which DLQ belongs to them, so that a restart must not change it again.
    """

    config: IngestConfig
    switch: StopSwitch
    summary: IngestSummary
    folder: CheckpointFolder
    monitor: Monitor
    has_planned: bool = False
    is_bound: bool = False

    def begin_batch(self, spark: SparkSession) -> None:
        """Spark has planned a batch; block it if the run is being stopped."""
        self.has_planned = True
        self.switch.block_if_stopping(spark)

    def count_new(self) -> int:
        """Records that the run has added; a batch that is repeated adds none."""
        return self.summary.counts.valid + self.summary.counts.invalid


def _run(pipeline: Pipeline, config: IngestConfig, server: StopServer | None) -> IngestSummary:
    """Run the query, and run it again with all checks of a start while Kafka or the storage do not answer."""
    check_writer(config.writer, pipeline.tables)
    folder, monitor = pipeline.get_checkpoint(config.checkpoint_path), make_monitor(pipeline, config)
    run = _Run(config, StopSwitch(), IngestSummary(), folder, monitor)
    failed = added = 0
    # The client is closed before the JVM hears that the run has ended.
    with listen_for_stop(run.switch, pipeline.spark, config.stop_timeout), closing(pipeline.kafka), monitor:
        if server:
            server.accept_stops(run.switch.request, pipeline.spark.sparkContext.applicationId, monitor.answer)
        while True:
            try:
                with explain_failures():
                    if failed:
                        pipeline = _reopen(pipeline, run)
                    _stream(pipeline, run)
                return run.summary
            except TransientError as error:
                if run.switch.reason:
                    raise run.switch.error or error from error
                if run.count_new() > added:
                    failed, added = 0, run.count_new()
                failed += 1
                if failed > config.max_restarts or not run.has_planned:
                    raise
                run.summary.restarts += 1
                monitor.on_failure(error)
                _pause(error, failed, run.switch, config)
                if run.switch.reason:
                    return run.summary


def _reopen(pipeline: Pipeline, run: _Run) -> Pipeline:
    """Prepare a restart: return the pipeline with the current topic and tables.

    Raises:
        TransientError: The checkpoint is not there, for example because its disk is not mounted any more. Kafka does
            not know the topic, as a broker does that has just been started.
        BronzeError: Another process has begun to use the checkpoint.
    """
    if run.folder.read() is None:
        raise lost_storage_error(f"there is no planned batch at {run.folder.path}")
    run.folder.check_claim()
    run.config = replace(run.config, starting_offsets="", change_dlq=run.config.change_dlq and not run.is_bound)
    try:
        return pipeline.reopen(run.config, fetch_topic(pipeline.kafka))
    except UnknownTopicError as error:
        raise vanished_topic_error(str(error)) from error


def _pause(error: TransientError, failed: int, switch: StopSwitch, config: IngestConfig) -> None:
    """Wait before a restart; longer after each failure, unless a stop is requested."""
    seconds = min(2**failed, _MAX_PAUSE)
    fields = event("restart", restart=failed, max_restarts=config.max_restarts, seconds=seconds)
    log.warning("%s; restart %d of %d in %d s", error.problem, failed, config.max_restarts, seconds, extra=fields)
    end = time.monotonic() + seconds
    while not switch.reason and time.monotonic() < end:
        check_stop_file(switch, config.stop_file)
        time.sleep(0.2)


def _stream(pipeline: Pipeline, run: _Run) -> None:
    """Run the query once, from the checks of a start to its end."""
    folder = run.folder
    pipeline, start = _check(pipeline, run.config, folder)
    run.has_planned |= not start.is_first
    records = read_topic(pipeline.kafka, run.config)
    with hold_lock(pipeline.spark, folder.path):
        _query(pipeline, records, start, run)


def _query(pipeline: Pipeline, records: DataFrame, start: Start, run: _Run) -> None:
    """Bind the tables and the checkpoint to each other, and run the query to its end."""
    config, folder, switch = run.config, run.folder, run.switch
    watch = TopicWatch(pipeline.kafka, pipeline.topic, pipeline.bronze.path)
    pipeline, writer = bind_tables(pipeline, config, start.ledger, start.lost)
    run.is_bound = True
    with explain_failures(folder.path):
        bind_checkpoint(pipeline, folder)
    for place in pipeline.known.ledger.earlier:
        log.warning("invalid records previously went to the DLQ %s; records that it holds are skipped", place.path)
    guard = OverlapGuard(config, folder, pipeline.lookup)
    end_batch = partial(_end_batch, switch, config, run.monitor.on_batch)
    hooks = Hooks(run.begin_batch, end_batch, watch, folder.check_claim)
    processor = BatchProcessor(pipeline, writer, guard, hooks, run.summary)
    query = start_query(records, processor, config, folder.path)
    try:
        with writer:
            await_query(query, processor, switch, config, watch)
    except BronzeError as error:
        if isinstance(error, DataLossError | TopicVanishedError | UnknownTopicError):
            # Spark reports a recreated topic as lost records; the checks of a start find the real cause.
            again = pipeline.reopen(config, fetch_topic(pipeline.kafka))
            _check(again, replace(config, starting_offsets="", change_dlq=False), folder)
        if isinstance(error, UnknownTopicError):
            raise vanished_topic_error(str(error)) from error
        raise


def _check(pipeline: Pipeline, config: IngestConfig, folder: CheckpointFolder) -> tuple[Pipeline, Start]:
    """Check that Kafka, tables and checkpoint belong together; every start does this."""
    pipeline = reopen_for_append(pipeline, config)
    return pipeline, plan_start(pipeline, config, folder, pipeline.fetch_available())


def _end_batch(switch: StopSwitch, config: IngestConfig, on_batch: Callable[[Batch], None], batch: Batch) -> None:
    """Log and report a batch; request a stop if too many of its new records are invalid."""
    log_batch(batch, config.with_metrics)
    on_batch(batch)
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
    restarts = f", {summary.restarts} restarts" if summary.restarts else ""
    text = (
        f"{counts.total:,} records in {summary.batch_count:,} batches: "
        f"{counts.valid:,} valid, {counts.invalid:,} invalid{present}{restarts}"
    )
    report(text, "result", batches=summary.batch_count, restarts=summary.restarts, counts=describe_counts(counts))
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
        raise
    finally:  # whatever has ended the wait, such as an error of a question to Kafka
        with suppress(Py4JError):  # the JVM may be gone; the first error is the one to report
            if query.isActive:
                query.stop()
