"""What happens to each batch of the stream: guard against overlap, write, commit to both tables, count."""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import msgspec
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.delta.commit import Source, TableWriter
from bronze.delta.ledger import TopicLedger
from bronze.guard import OverlapGuard
from bronze.kafka.watch import TopicWatch
from bronze.offsets import Bounds, OffsetSet
from bronze.runtime.paths import to_local_path
from bronze.runtime.spark_errors import failed_query_error
from bronze.tasks import BatchTask
from bronze.transforms import Counts

log = logging.getLogger(__name__)
_KEPT_BATCHES = 1_000


@dataclass(frozen=True)
class Batch:
    """A committed batch: its number, its counts, and how many seconds it took."""

    batch_id: int
    counts: Counts
    seconds: float


@dataclass
class IngestSummary:
    """What a run ingested; of the batches themselves the latest thousand are kept."""

    counts: Counts = field(default_factory=Counts)
    batch_count: int = 0
    batches: deque[Batch] = field(default_factory=lambda: deque(maxlen=_KEPT_BATCHES))

    def add(self, batch: Batch) -> None:
        """Count a committed batch."""
        self.counts += batch.counts
        self.batch_count += 1
        self.batches.append(batch)

    @property
    def total(self) -> int:
        """Records that were read: ``valid`` + ``invalid`` + ``present``."""
        return self.counts.total

    @property
    def valid(self) -> int:
        """Records that were appended to bronze as valid."""
        return self.counts.valid

    @property
    def invalid(self) -> int:
        """Records that were appended as invalid, to the DLQ or, without one, to bronze."""
        return self.counts.invalid

    @property
    def present(self) -> int:
        """Records that were in the tables already, and were left out."""
        return self.counts.present


@dataclass(frozen=True)
class Hooks:
    """What a batch asks of the run around it: may it begin, is the topic still the same, and what it tells it."""

    block_if_stopping: Callable[[SparkSession], None]
    end_batch: Callable[[Batch], None]
    watch: TopicWatch


class BatchProcessor:
    """The function that Spark calls with each batch."""

    def __init__(self, topic: str, paths: list[str], writer: TableWriter, guard: OverlapGuard, hooks: Hooks):
        """
        Args:
            topic: Kafka topic.
            paths: Of bronze, and of the DLQ where there is one.
            writer: Commits to these tables.
            guard: Knows which offsets are in them.
            hooks: The run around the batches.
        """
        self._topic, self._paths, self._writer, self._guard, self._hooks = topic, paths, writer, guard, hooks
        self.summary = IngestSummary()
        self.error: BaseException | None = None

    def __call__(self, records: DataFrame, batch_id: int) -> None:
        """Append a batch of Kafka records; what it raises is kept, because Spark turns it into text."""
        self._hooks.block_if_stopping(records.sparkSession)
        try:
            self._process(records, batch_id)
        except BaseException as error:
            self.error = error
            raise

    def _process(self, records: DataFrame, batch_id: int) -> None:
        started = time.time()
        bounds, query_id = self._guard.plan(batch_id), read_query_id(records)
        present = self._guard.find_overlap(bounds, self._writer.has_changed())
        counts = append_batch(
            self._writer,
            records,
            make_task(batch_id, started, self._paths, present),
            self._make_source(bounds, query_id),
            lambda: self._guard.look_up(bounds),
            self._hooks.watch.check_topic,
        )
        self._note_lost(self._make_source(bounds, query_id))  # what Kafka had deleted by the time of the read
        batch = Batch(batch_id, counts, time.time() - started)
        self.summary.add(batch)
        self._hooks.end_batch(batch)

    def _make_source(self, bounds: Bounds, query_id: str) -> Source:
        watch = self._hooks.watch
        covered = self._guard.find_covered(bounds, watch.client, watch.timeout)
        begins = {p: self._guard.first_offsets.get(p, 0) for p in bounds}
        return Source("ingest", query_id, self._topic, covered, OffsetSet.between(bounds) - covered, begins)

    def _note_lost(self, source: Source) -> None:
        """After a batch, where a loss is accepted: what of it had Kafka deleted before it was read?"""
        if not source.uncertain:
            return
        if lost := self._guard.find_lost(source.uncertain):
            log.warning("data loss is accepted, Kafka no longer has %s", lost)
        read = source.uncertain - lost

        def note(known: TopicLedger) -> TopicLedger:
            return known.add_read(read, (read - known.read).counts, {}).add_lost(lost)

        self._writer.change_ledger(source.topic, note)


def make_task(batch_id: int, started: float, paths: list[str], present: OffsetSet) -> BatchTask:
    """What the tasks of a batch need to know.

    Args:
        batch_id: Batch of the query.
        started: Seconds since 1970.
        paths: Of bronze, and of the DLQ where there is one.
        present: Offsets that are in the tables already.
    """
    bronze_path, dlq_path = (*(to_local_path(path) or path for path in paths), "")[:2]
    return BatchTask(batch_id, int(started * 1000) * 1000, bronze_path, dlq_path, present)


def append_batch(
    writer: TableWriter,
    records: DataFrame,
    task: BatchTask,
    source: Source,
    find_present: Callable[[], OffsetSet],
    check_topic: Callable[[], None] = lambda: None,
) -> Counts:
    """Write a batch and commit it to both tables.

    Where others appended meanwhile, what they appended is left out of it before the next attempt.

    Args:
        writer: Commits to the tables.
        records: Kafka records.
        task: What the tasks need; ``present`` as of the writer's last ``has_changed``.
        source: What the commits say of the batch.
        find_present: Looks up again which of the batch's offsets are in the tables.
        check_topic: Raises where what was read are not the topic's records; called before anything is committed.

    Returns:
        The counts of what each table got, where an attempt that lost had counted more.

    Raises:
        AppendConflictError: Others committed first, each time.
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
    """The id of the streaming query, the same as in its checkpoint's metadata: the application id of its commits."""
    query_id = batch.sparkSession.sparkContext.getLocalProperty("sql.streaming.queryId")
    if not query_id:
        raise failed_query_error("Spark does not tell the query's id; unset PYSPARK_PIN_THREAD")
    return query_id


def select_records(batch: DataFrame) -> DataFrame:
    """The columns that the tasks take (RECORD_COLUMNS), in as many partitions as there are cores."""
    cores = batch.sparkSession.sparkContext.defaultParallelism
    row_hash = F.xxhash64("value").alias("row_hash")
    return batch.select("value", "key", "topic", "partition", "offset", "timestamp", row_hash).coalesce(cores)


def log_batch(batch: Batch, with_metrics: bool) -> None:
    """One line for each batch; with metrics the counts, and the records per Kafka partition."""
    name, counts = f"Batch {batch.batch_id}", batch.counts
    if not counts.total:
        log.info("%s: empty", name)
    elif with_metrics:
        log.info("%s: total=%d, valid=%d, invalid=%d", name, counts.total, counts.valid, counts.invalid)
        log.info("%s partition distribution: %s", name, sorted(counts.by_partition.items()))
    else:
        log.info("%s committed: %s records in %.1f s", name, f"{counts.total:,}", batch.seconds)
    if counts.present:
        log.info("%s: %s of its records were in the tables already and were left out", name, f"{counts.present:,}")
