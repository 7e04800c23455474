"""Processes each batch of the stream: find the overlap, write, commit to both tables, count."""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import msgspec
from pyspark.sql import DataFrame, SparkSession

from bronze.delta.commit import Source, TableWriter
from bronze.delta.ledger import TopicLedger
from bronze.guard import OverlapGuard
from bronze.kafka.watch import TopicWatch
from bronze.observe.summary import Batch, IngestSummary
from bronze.offsets import Bounds, OffsetSet
from bronze.pipeline import Pipeline
from bronze.runtime.object_store import find_storage
from bronze.runtime.spark_errors import explain_failures, failed_query_error
from bronze.runtime.stats import BatchStats
from bronze.tasks import BatchTask
from bronze.transforms import RECORD_COLUMNS, Counts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hooks:
    """Calls from a batch to the run: its beginning and end, and checks that topic and checkpoint are still its own."""

    begin_batch: Callable[[SparkSession], None]
    end_batch: Callable[[Batch], None]
    watch: TopicWatch
    check_claim: Callable[[], None]


class BatchProcessor:
    """The function that Spark calls with each batch."""

    def __init__(
        self, pipeline: Pipeline, writer: TableWriter, guard: OverlapGuard, hooks: Hooks, summary: IngestSummary
    ):
        """
        Args:
            pipeline: Topic and tables.
            writer: Commits to the tables.
            guard: Knows which offsets are in the tables.
            hooks: Calls to the run.
            summary: Counts of the run, to which it adds its batches.
        """
        self._pipeline, self._writer, self._guard, self._hooks = pipeline, writer, guard, hooks
        self.summary = summary
        self.error: BaseException | None = None

    def __call__(self, records: DataFrame, batch_id: int) -> None:
        """Append a batch of Kafka records; keep an exception in ``error``, because Spark reduces it to text."""
        self._hooks.begin_batch(records.sparkSession)
        try:
            with explain_failures():  # what py4j prints of an error must not have what a store repeats of a request
                self._process(records, batch_id)
        except BaseException as error:
            self.error = error
            raise

    def _process(self, records: DataFrame, batch_id: int) -> None:
        started, self._writer.stats = time.time(), BatchStats()
        with self._writer.stats.time("overlap"):
            query_id = read_query_id(records)
            bounds = self._guard.plan(query_id, batch_id)
            present = self._guard.find_overlap(bounds, self._writer.has_changed())
        counts = append_batch(
            self._writer,
            records,
            make_task(batch_id, started, self._pipeline.paths, present),
            self._make_source(bounds, query_id),
            lambda: self._guard.look_up(bounds),
            self._check,
        )
        self._note_lost(self._make_source(bounds, query_id))  # ask Kafka again: it may have deleted records meanwhile
        writer = self._writer
        batch = Batch(batch_id, counts, time.time() - started, writer.stats, bounds, writer.versions)
        self.summary.add(batch)
        self._hooks.end_batch(batch)

    def _check(self) -> None:
        self._hooks.watch.check_topic()
        self._hooks.check_claim()

    def _make_source(self, bounds: Bounds, query_id: str) -> Source:
        topic, watch = self._pipeline.topic.name, self._hooks.watch
        covered = self._guard.find_covered(bounds, watch.client, watch.timeout)
        begins = {p: self._guard.first_offsets.get(p, 0) for p in bounds}
        return Source("ingest", query_id, topic, covered, OffsetSet.between(bounds) - covered, begins)

    def _note_lost(self, source: Source) -> None:
        """Note in the ledger which offsets of the batch Kafka deleted before the read, if data loss is accepted."""
        if not source.uncertain:
            return
        if lost := self._guard.find_lost(source.uncertain):
            log.warning("data loss is accepted, Kafka no longer has %s", lost)
        read = source.uncertain - lost

        def note(known: TopicLedger) -> TopicLedger:
            return known.add_read(read, (read - known.read).counts, {}).add_lost(lost)

        self._writer.change_ledger(source.topic, note)


def make_task(batch_id: int, started: float, paths: list[str], present: OffsetSet) -> BatchTask:
    """Build the parameters of a batch's tasks.

    Args:
        batch_id: Batch of the query.
        started: Start of the batch, in seconds since 1970.
        paths: Path of bronze, and of the DLQ if one is configured.
        present: Offsets that the tables already have.
    """
    bronze, *dlqs = map(find_storage, paths)
    return BatchTask(batch_id, int(started * 1000) * 1000, bronze, dlqs[0] if dlqs else None, present)


def append_batch(
    writer: TableWriter,
    records: DataFrame,
    task: BatchTask,
    source: Source,
    find_present: Callable[[], OffsetSet],
    check_topic: Callable[[], None] = lambda: None,
) -> Counts:
    """Write a batch and commit it to both tables.

    After a conflict, the next attempt skips the records that the other writers appended.

    Args:
        writer: Commits to the tables.
        records: Kafka records.
        task: Parameters of the tasks; ``present`` was looked up after the writer's last ``has_changed``.
        source: Origin of the batch, for the commits.
        find_present: Looks up again which offsets of the batch are in the tables.
        check_topic: Raises if the records are not those of the topic; called before each commit.

    Returns:
        The counts of the rows that each table got. An attempt that failed may have counted more.

    Raises:
        AppendConflictError: Another writer committed first on every attempt.
    """
    task, selected = writer.mark_counted(task, source), records.transform(select_records)
    committed: dict[str, Counts] = {}
    with ExitStack() as stack:
        written = stack.enter_context(writer.write(selected, task))

        def commit(has_conflict: bool) -> None:
            nonlocal task, written
            renewed = writer.mark_counted(replace(task, present=find_present()), source) if has_conflict else task
            if renewed != task:
                task = renewed
                stack.close()
                written = stack.enter_context(writer.write(selected, task))
            check_topic()
            writer.commit(written, committed, source, task.batch_id)

        writer.retry(commit, f"Batch {task.batch_id}")
        writer.keep_logs_short(records.sparkSession)
    bronze, dlq = committed["bronze"], committed.get("dlq", committed["bronze"])
    present = bronze.total - bronze.valid - dlq.invalid
    return msgspec.structs.replace(bronze, by_error_type=dlq.by_error_type, present=present)


def read_query_id(batch: DataFrame) -> str:
    """Return the id of the streaming query, which is also in its checkpoint's metadata and in its commits."""
    query_id = batch.sparkSession.sparkContext.getLocalProperty("sql.streaming.queryId")
    if not query_id:
        raise failed_query_error("Spark does not report the query's id; unset PYSPARK_PIN_THREAD")
    return query_id


def select_records(batch: DataFrame) -> DataFrame:
    """Select the columns that the tasks take (RECORD_COLUMNS), with one Spark partition per core."""
    cores = batch.sparkSession.sparkContext.defaultParallelism
    columns = [*(f"`{name}`" for name in RECORD_COLUMNS[:-1]), f"xxhash64(`value`) AS {RECORD_COLUMNS[-1]}"]
    return batch.selectExpr(*columns).coalesce(cores)
