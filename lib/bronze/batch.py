"""What happens to each batch of the stream: guard against overlap, append to both tables, count."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.delta.ledger import TopicLedger
from bronze.errors import BronzeError
from bronze.guard import TableGuard
from bronze.offsets import (
    MAX_OFFSET,
    OffsetRanges,
    PlannedOffsets,
    count_offsets,
    find_bounds,
    select_overlap,
    subtract_ranges,
)
from bronze.resume import describe_lost, truncated_topic_error
from bronze.runtime.spark_errors import failed_query_error
from bronze.tasks import BatchResult, BatchTask
from bronze.writers import Source, TableWriter

log = logging.getLogger(__name__)
_KEPT_BATCHES = 1_000


@dataclass(frozen=True)
class BatchMetrics:
    """Counts of one batch: ``total`` = ``valid`` + ``invalid`` + ``present`` (in the tables already, left out)."""

    batch_id: int
    total: int
    valid: int
    invalid: int
    present: int
    seconds: float
    by_partition: dict[int, int]
    by_error_type: dict[str, int]


@dataclass
class IngestSummary:
    """What a run ingested; of the batches themselves the latest thousand are kept."""

    batches: deque[BatchMetrics] = field(default_factory=lambda: deque(maxlen=_KEPT_BATCHES))
    batch_count: int = 0
    total: int = 0
    valid: int = 0
    invalid: int = 0
    present: int = 0
    by_error_type: Counter[str] = field(default_factory=Counter)
    by_partition: Counter[int] = field(default_factory=Counter)

    def add(self, batch: BatchMetrics) -> None:
        """Count a committed batch."""
        self.batches.append(batch)
        self.batch_count += 1
        self.total += batch.total
        self.valid += batch.valid
        self.invalid += batch.invalid
        self.present += batch.present
        self.by_error_type.update(batch.by_error_type)
        self.by_partition.update(batch.by_partition)


class BatchProcessor:
    """The function that Spark calls with each batch.

    Offsets may be in the tables already after any start (a crash between the two commits, a deleted or restored
    checkpoint) and after others appended (a backfill). So what the tables hold from the next offsets on is looked up
    at the start and whenever others appended; for any other batch the guard costs a comparison.
    """

    def __init__(
        self,
        writer: TableWriter,
        guard: TableGuard,
        bronze_path: str,
        dlq_path: str = "",
        with_metrics: bool = False,
        hold_batch: Callable[[SparkSession], None] = lambda _: None,
        check_topic: Callable[[], None] = lambda: None,
        end_batch: Callable[[BatchMetrics], None] = lambda _: None,
    ):
        self._writer = writer
        self._guard = guard
        self._paths = (bronze_path, dlq_path)
        self._with_metrics = with_metrics
        self._hold_batch = hold_batch
        self._check_topic = check_topic
        self._end_batch = end_batch
        # Offsets of this query's own batches only ever rise, so they need not be added.
        self._present: OffsetRanges = {}
        self._ends: dict[int, int] = {}  # of the batch before
        self.summary = IngestSummary()
        self.error: BaseException | None = None

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        """Append a batch of Kafka records; what it raises is kept, because Spark turns it into text."""
        self._hold_batch(batch.sparkSession)
        try:
            self._process(batch, batch_id)
        except BaseException as error:
            self.error = error
            raise

    def _process(self, batch: DataFrame, batch_id: int) -> None:
        started = time.time()
        planned = self._guard.read_planned(batch_id)
        self._check_follows(planned)
        present = self._find_overlap(planned)
        task = BatchTask(batch_id, int(started * 1000) * 1000, *self._paths, present=present)
        query_id = read_query_id(batch)
        source = self._describe_source(planned, query_id)
        records = batch.transform(select_records)
        result = self._writer.append(records, task, source, lambda: self._look_up(planned), self._check_topic)
        self._note_lost(self._describe_source(planned, query_id))  # what Kafka had deleted by the time of the read
        metrics = describe_batch(batch_id, result, time.time() - started)
        self.summary.add(metrics)
        log_batch(metrics, self._with_metrics)
        self._end_batch(metrics)

    def _check_follows(self, planned: PlannedOffsets) -> None:
        """Make sure that the checkpoint is still the one that this query writes.

        Raises:
            BronzeError: A batch does not start where the one before ended.
        """
        if any(planned.get(p, (end, end))[0] != end for p, end in self._ends.items()):
            raise BronzeError(
                f"the checkpoint {self._guard.checkpoint_path} was deleted or replaced while the query was running",
                hint="nothing was lost: run the same command again, which goes on from the checkpoint that is there "
                "now",
            )
        self._ends |= {p: end for p, (_, end) in planned.items()}

    def _describe_source(self, planned: PlannedOffsets, query_id: str) -> Source:
        covered = self._guard.find_covered(planned)
        spans = {p: [(first, end - 1)] for p, (first, end) in planned.items() if first < end}
        uncertain = {p: subtract_ranges(ranges, covered.get(p, [])) for p, ranges in spans.items()}
        begins = {p: self._guard.begins.get(p, 0) for p in planned}
        return Source("ingest", query_id, self._guard.topic, covered, uncertain, begins)

    def _note_lost(self, source: Source) -> None:
        """After a batch, where a loss is accepted: what of it had Kafka deleted before it was read?"""
        if not any(source.uncertain.values()):
            return
        present = self._guard.find_present(find_bounds(source.uncertain))
        lost = {p: subtract_ranges(ranges, present.get(p, [])) for p, ranges in source.uncertain.items()}
        read = {p: subtract_ranges(ranges, lost[p]) for p, ranges in source.uncertain.items()}
        if lost := {p: ranges for p, ranges in lost.items() if ranges}:
            log.warning("Warning: data loss is accepted, Kafka no longer has %s", describe_lost(lost))

        def note(known: TopicLedger) -> TopicLedger:
            fresh = {p: count_offsets(subtract_ranges(r, known.read.get(p, []))) for p, r in read.items()}
            return known.add_read(read, fresh, {}).add_lost(lost)

        self._writer.change_ledger(source.topic, note)

    def _find_overlap(self, planned: PlannedOffsets) -> OffsetRanges:
        """Which of the planned offsets the tables have; a partition that is new to the query is looked up too.

        Raises:
            DataLossError: The topic now ends before what was read, and Spark was told to accept data loss.
        """
        if backwards := {p: (end, first) for p, (first, end) in planned.items() if end < first}:
            raise truncated_topic_error(self._guard.topic, backwards)
        if self._writer.has_changed() or not planned.keys() <= self._present.keys():
            return self._look_up(planned)
        return select_overlap(self._present, planned)

    def _look_up(self, planned: PlannedOffsets) -> OffsetRanges:
        """Look up what the tables have from a plan on, for later batches too, as what others append may reach."""
        self._present = self._guard.find_present({p: (first, MAX_OFFSET) for p, (first, _) in planned.items()})
        return select_overlap(self._present, planned)


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


def describe_batch(batch_id: int, result: BatchResult, seconds: float) -> BatchMetrics:
    """The counts of a batch, from what its tasks returned."""
    counts = (result.total, result.valid, sum(result.invalid.values()), result.present)
    return BatchMetrics(batch_id, *counts, seconds, result.partitions, result.invalid)


def log_batch(batch: BatchMetrics, with_metrics: bool) -> None:
    """One line for each batch; with metrics the counts, and the records per Kafka partition."""
    name = f"Batch {batch.batch_id}"
    if not batch.total:
        log.info("%s: empty", name)
    elif with_metrics:
        log.info("%s: total=%d, valid=%d, invalid=%d", name, batch.total, batch.valid, batch.invalid)
        log.info("%s partition distribution: %s", name, sorted(batch.by_partition.items()))
    else:
        log.info("%s committed: %s records in %.1f s", name, f"{batch.total:,}", batch.seconds)
    if batch.present:
        log.info("%s: %s of its records were in the tables already and were left out", name, f"{batch.present:,}")
