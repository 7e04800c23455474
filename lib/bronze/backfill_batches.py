"""The batches of a backfill: read, append what is missing, count; each is in the tables before the next is read."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

from pyspark.errors import IllegalArgumentException
from pyspark.sql import DataFrame, SparkSession

from bronze.backfill_plan import BackfillPlan
from bronze.batch import IngestSummary, describe_batch, select_records
from bronze.commit import Source, TableWriter
from bronze.failures import explain_failures
from bronze.gaps import read_topic_once
from bronze.kafka_errors import DataLoss, InvalidKafkaConfig
from bronze.offsets import OffsetRanges, PlannedOffsets, count_offsets, invert_ranges, select_overlap
from bronze.operations import BackfillConfig
from bronze.resume import Opened
from bronze.storage_errors import AppendConflict, DeletedMeanwhile
from bronze.tables import to_local_path
from bronze.writer import BatchResult, BatchTask

log = logging.getLogger(__name__)
# Times that a batch is begun again when others kept committing first; each has all attempts of the writer.
_ROUNDS = 5


@dataclass
class BackfillResult:
    """What a backfill did; when all was done, ``plan.planned`` = valid + invalid + added by others + without record.

    Attributes:
        plan: What it was about to do.
        summary: What it appended, batch by batch.
        added_by_others: Offsets that others added since the plan, such as a live stream.
        without_record: Offsets at which Kafka has no record: transaction markers, aborted or compacted.
        done_offsets: Planned offsets that are done.
        seconds: Of all batches.
        is_interrupted: Whether it was stopped before all was done.
    """

    plan: BackfillPlan
    summary: IngestSummary = field(default_factory=IngestSummary)
    added_by_others: int = 0
    without_record: int = 0
    done_offsets: int = 0
    seconds: float = 0.0
    is_interrupted: bool = False

    def describe(self) -> str:
        """The result in one line."""
        appended = self.summary.valid + self.summary.invalid
        text = (
            f"{appended:,} records appended ({self.summary.valid:,} valid, {self.summary.invalid:,} invalid) in "
            f"{self.seconds:.1f} s; {self.plan.present + self.added_by_others:,} were in the tables already"
        )
        if self.without_record:
            text += f"; {self.without_record:,} offsets have no record in Kafka (transaction marker, or compacted)"
        if self.is_interrupted:
            left = self.plan.planned - self.done_offsets
            text += f". Interrupted: {left:,} offsets are left; run the same command again, it adds what is missing"
        return text


@dataclass(frozen=True)
class Target:
    """Where the batches come from and go to."""

    spark: SparkSession
    config: BackfillConfig
    opened: Opened
    check_topic: Callable[[], None] = lambda: None

    @property
    def is_complete(self) -> bool:
        """Whether all configured tables exist."""
        return all(table.state for table in (self.opened.bronze, self.opened.dlq) if table)

    def find_present(self, planned: PlannedOffsets) -> OffsetRanges:
        """Which of the planned offsets are in the tables that exist."""
        return self.opened.lookup.find_present(planned)


def append_batches(target: Target, writer: TableWriter, plan: BackfillPlan) -> BackfillResult:
    """Append what is missing, batch after batch; an interrupt ends it, and the result says so.

    Raises:
        DeletedMeanwhile: Kafka deleted records before they were read.
        AppendConflict: Others kept committing first.
    """
    result, app_id, started = BackfillResult(plan), f"bronze-backfill-{uuid4()}", time.monotonic()
    context = target.spark.sparkContext
    context.addJobTag(app_id)
    try:
        for number, batch in enumerate(plan.batches):
            missing, before = select_overlap(plan.missing, batch), result.seconds
            appended = _append_batch(target, writer, app_id, number, batch, missing)
            result.seconds = time.monotonic() - started
            _count_batch(result, missing, batch, appended)
            if appended:
                result.summary.add(describe_batch(number, appended, result.seconds - before))
            _log_progress(result, number + 1)
    except KeyboardInterrupt:
        result.is_interrupted, result.seconds = True, time.monotonic() - started
        context.cancelJobsWithTag(app_id)
        log.info("Backfill: interrupted; what was appended stays, the next run adds what is missing")
    except DataLoss as error:
        target.check_topic()  # of a recreated topic, records seem to be lost
        raise DeletedMeanwhile(error.reason) from error
    finally:
        context.removeJobTag(app_id)
    return result


def _append_batch(
    target: Target, writer: TableWriter, app_id: str, number: int, batch: PlannedOffsets, missing: OffsetRanges
) -> BatchResult | None:
    """Append what is missing in a batch, begun again where others kept committing first; None where they had it all."""
    conflict = None
    for _ in range(_ROUNDS):
        writer.has_changed()  # first: what others append from now on is a conflict
        present = select_overlap(target.find_present(batch), batch)
        if not _invert(present, batch):
            return None
        try:
            return _write(target, writer, app_id, number, batch, present)
        except AppendConflict as error:
            conflict = error
            log.info("Backfill: others keep committing first, batch %d is begun again", number + 1)
    assert conflict
    raise conflict


def _write(
    target: Target, writer: TableWriter, app_id: str, number: int, batch: PlannedOffsets, present: OffsetRanges
) -> BatchResult:
    opened = target.opened
    bronze_path, dlq_path = opened.bronze.path, opened.dlq.path if opened.dlq else ""
    task = BatchTask(
        number,
        int(time.time() * 1000) * 1000,
        bronze_path=to_local_path(bronze_path) or "",
        dlq_path=dlq_path and (to_local_path(dlq_path) or dlq_path),
        present=present,
    )
    records = read_records(target.spark, target.config, batch).transform(select_records)
    covered = {p: [(first, end - 1)] for p, (first, end) in batch.items() if first < end}
    with explain_failures():
        return writer.append(
            records,
            task,
            Source("backfill", app_id, opened.topic.name, covered),
            lambda: select_overlap(target.find_present(batch), batch),
            target.check_topic,
        )


def read_records(spark: SparkSession, config: BackfillConfig, batch: PlannedOffsets) -> DataFrame:
    """The records of a batch; those of aborted transactions are left out. Nothing is read yet.

    Raises:
        InvalidKafkaConfig: Spark does not take one of the client properties.
    """
    cores = str(spark.sparkContext.defaultParallelism)  # also for a range of one partition
    try:
        return read_topic_once(spark, config, batch, "read_committed", minPartitions=cores)
    except IllegalArgumentException as error:
        raise InvalidKafkaConfig(config.kafka_brokers, " ".join(str(error).split())) from None


def _invert(ranges: OffsetRanges, batch: PlannedOffsets) -> OffsetRanges:
    """The offsets of a batch that are in none of the ranges."""
    inverted = {p: invert_ranges(ranges.get(p, []), first, end) for p, (first, end) in batch.items()}
    return {p: found for p, found in inverted.items() if found}


def _count(ranges: OffsetRanges) -> int:
    return sum(map(count_offsets, ranges.values()))


def _count_batch(
    result: BackfillResult, missing: OffsetRanges, batch: PlannedOffsets, appended: BatchResult | None
) -> None:
    """Account for each planned offset: appended, added by others since the plan, or without a record in Kafka."""
    planned = _count(missing)
    result.done_offsets += planned
    if appended is None:
        result.added_by_others += planned
        return
    others = max(0, appended.present - _count(_invert(missing, batch)))
    result.added_by_others += others
    result.without_record += planned - others - appended.valid - sum(appended.invalid.values())


def _log_progress(result: BackfillResult, number: int) -> None:
    appended = result.summary.valid + result.summary.invalid
    log.info(
        "Backfill: batch %d of %d, %s of %s offsets done, %s records appended, %s records/s",
        number,
        len(result.plan.batches),
        f"{result.done_offsets:,}",
        f"{result.plan.planned:,}",
        f"{appended:,}",
        f"{appended / max(result.seconds, 0.001):,.0f}",
    )
