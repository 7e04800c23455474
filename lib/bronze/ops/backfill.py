"""``bronze backfill``: ingest the records missing from a range of the topic.

The backfill first looks up what is missing, then reads it in bounded batches. It is safe to run next to a live stream
with any writers: on a commit conflict, the backfill re-checks what exists and skips it. It can be interrupted and run
again at any time.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from threading import Event, Thread, current_thread, main_thread
from uuid import uuid4

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.sql import SparkSession

from bronze.batch import append_batch, make_task
from bronze.checkpoint import Checkpoint
from bronze.config import BackfillConfig
from bronze.delta.commit import Source, TableWriter
from bronze.delta.ledger import TopicLedger
from bronze.errors import AppendConflictError, ConfigError, DataLossError, ExitCode
from bronze.kafka.read import read_records
from bronze.kafka.watch import TopicWatch
from bronze.observe.summary import Batch, IngestSummary, describe_counts
from bronze.offsets import Bounds, OffsetSet
from bronze.ops.backfill_plan import (
    BackfillPlan,
    explain_other_times,
    explain_outside,
    find_cut_off,
    limit_to_planned,
    plan_range,
    resolve_offsets,
    resolve_times,
)
from bronze.pipeline import Pipeline, bind_tables, reopen_for_append
from bronze.resume import build_ledger, check_end, read_own_checkpoint, warn_of_rollback
from bronze.runtime.logs import event, report
from bronze.runtime.retry import retry_conflicts
from bronze.runtime.spark_errors import drop_connection, explain_failures, is_interrupt
from bronze.transforms import Counts

log = logging.getLogger(__name__)

_PATIENCE = 3.0  # seconds in which an interrupted batch ends by itself, once its Spark jobs are cancelled


@dataclass
class BackfillResult:
    """The result of a backfill. At the end, ``plan.planned`` = valid + invalid + added by others + without record.

    Attributes:
        plan: The plan.
        summary: The appended records, batch by batch.
        added_by_others: Offsets that others, such as a live stream, have added since the plan.
        without_record: Offsets at which Kafka has no record: transaction markers, aborted or compacted.
        done_offsets: Planned offsets that are done.
        seconds: Duration of all batches.
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
        valid, invalid = self.summary.counts.valid, self.summary.counts.invalid
        text = (
            f"{valid + invalid:,} records appended ({valid:,} valid, {invalid:,} invalid) in "
            f"{self.seconds:.1f} s; {self.plan.present + self.added_by_others:,} were in the tables already"
        )
        if self.without_record:
            text += f"; {self.without_record:,} offsets have no record in Kafka (transaction marker, or compacted)"
        if self.is_interrupted:
            left = self.plan.planned - self.done_offsets
            text += f". Interrupted: {left:,} offsets are left; run the same command again to add them"
        return text


def main(config: BackfillConfig) -> int:
    """The command ``bronze backfill``: print the plan (``dry_run``) or the result; exit code 130 if interrupted."""
    result = backfill(config)
    report(result.plan.to_text() if config.dry_run else result.describe(), "result", dry_run=config.dry_run)
    return ExitCode.INTERRUPTED if result.is_interrupted else ExitCode.DONE


def backfill(config: BackfillConfig, spark: SparkSession | None = None) -> BackfillResult:
    """Ingest the records missing from the range. An interrupt ends it at once, and the next run adds the rest.

    Args:
        config: Range, topic and tables.
        spark: Session to use; the running one or a new local one when not given.

    Raises:
        ConfigError: A part of the range is neither in the tables nor in Kafka, and that is not allowed.
        DataLossError: Kafka deleted records before they were read. The topic ends before the offsets that were read.
        BronzeError: Something does not fit or failed; records appended by then stay.
    """
    with explain_failures(), Pipeline.open(config, spark) as pipeline:
        pipeline, checkpoint, ledger = _check(pipeline, config)
        if config.dry_run:
            return BackfillResult(_make_plan(pipeline, config, checkpoint))
        if not all(table.state for table in pipeline.tables):
            _check_plan(config, _make_plan(pipeline, config, checkpoint))  # before tables are created
        pipeline, writer = bind_tables(pipeline, config, ledger, OffsetSet())
        writer.has_changed()  # before the look-up, so that it notices later appends by others
        plan = _make_plan(pipeline, config, checkpoint)
        _check_plan(config, plan)
        for line in (*plan.outside, *plan.notes, plan.describe()):
            log.info("Backfill: %s", line)
        watch = TopicWatch(pipeline.kafka, pipeline.topic, pipeline.bronze.path)
        return append_batches(pipeline, writer, plan, watch.check_topic)


def plan_backfill(config: BackfillConfig, spark: SparkSession | None = None) -> BackfillPlan:
    """Plan what ``backfill`` would do now; nothing is written.

    Args:
        config: Range, topic and tables.
        spark: Session to use; the running one or a new local one when not given.

    Raises:
        BronzeError: Something does not fit. If Kafka does not hold the whole range, the plan says so.
    """
    with explain_failures(), Pipeline.open(config, spark) as pipeline:
        pipeline, checkpoint, _ = _check(pipeline, config)
        return _make_plan(pipeline, config, checkpoint)


def _check(pipeline: Pipeline, config: BackfillConfig) -> tuple[Pipeline, Checkpoint | None, TopicLedger]:
    """Check Kafka, tables and the checkpoint, if one is given, and read it and the ledger; nothing is written.

    The checkpoint limits the range, and says what the stream has read into a table of an older version, whose commits
    do not record it.
    """
    read_records(pipeline.kafka, dict.fromkeys(pipeline.topic.partitions, (0, 0)), "read_committed")  # reads nothing
    pipeline = reopen_for_append(pipeline, config)
    warn_of_rollback(pipeline)
    checkpoint = read_own_checkpoint(pipeline, config) if config.checkpoint_path else None
    ledger = build_ledger(pipeline, checkpoint)
    check_end(pipeline, ledger, checkpoint, pipeline.fetch_available())
    return pipeline, checkpoint, ledger


def _make_plan(pipeline: Pipeline, config: BackfillConfig, checkpoint: Checkpoint | None) -> BackfillPlan:
    """Resolve the range, and look up which of its offsets the tables have."""
    available = pipeline.fetch_available()
    by_time = bool(config.start_timestamp or config.end_timestamp)
    requested = resolve_times(pipeline.kafka, config, available) if by_time else resolve_offsets(config, available)
    outside = _list_outside_times(pipeline, config, requested, available) if by_time else []
    notes = []
    if others := sorted(set(available) - set(requested)):
        notes.append(f"partitions that are not named are skipped: {', '.join(map(str, others))}")
    if checkpoint:
        asked, requested = requested, limit_to_planned(requested, checkpoint)
        if left := sum(asked[p][1] - requested[p][1] for p in requested):
            notes.append(f"{left:,} offsets that the stream has not planned yet are left to the stream")
    ingested, max_offsets = pipeline.find_ingested(requested), config.max_offsets_per_trigger
    plan = plan_range(pipeline.topic.name, requested, available, ingested, max_offsets)
    outside += filter(None, (explain_outside(plan, p) for p in requested))
    return replace(plan, outside=outside, notes=notes)


def _list_outside_times(pipeline: Pipeline, config: BackfillConfig, requested: Bounds, available: Bounds) -> list[str]:
    """Why Kafka may not hold the whole time range, without partitions whose preceding record the tables have."""
    if others := explain_other_times(pipeline.kafka, config, requested, available):
        return [others]
    cut_off = find_cut_off(pipeline.kafka, config, requested, available)
    before = pipeline.find_ingested({p: (available[p][0] - 1, available[p][0]) for p in cut_off}) if cut_off else {}
    return [reason for p, reason in cut_off.items() if p not in before]


def _check_plan(config: BackfillConfig, plan: BackfillPlan) -> None:
    if plan.outside and not config.allow_partial:
        raise ConfigError(
            f"Kafka does not hold the whole range of {plan.topic}: {'; '.join(plan.outside)}.",
            hint="Correct the range, or accept the part that Kafka holds with --allow-partial",
        )


def append_batches(
    pipeline: Pipeline, writer: TableWriter, plan: BackfillPlan, check_topic: Callable[[], None]
) -> BackfillResult:
    """Append the missing records, batch by batch. An interrupt ends it, and the result says so.

    Raises:
        DataLossError: Kafka deleted records before they were read.
        AppendConflictError: Other writers committed first in every attempt.
    """
    result, app_id, started = BackfillResult(plan), f"bronze-backfill-{uuid4()}", time.monotonic()
    try:
        with writer, _catch_interrupt(pipeline.spark.sparkContext, app_id) as interrupted:
            for number, bounds in enumerate(plan.batches):
                if interrupted.is_set():
                    raise KeyboardInterrupt
                missing, before = plan.missing.clip(bounds), result.seconds
                source = Source("backfill", app_id, plan.topic, OffsetSet.between(bounds))
                with explain_failures():
                    counts = _append_batch(pipeline, writer, number, source, check_topic)
                result.seconds = time.monotonic() - started
                _count_batch(result, missing, source.covered, counts)
                if counts:
                    result.summary.add(Batch(number, counts, result.seconds - before, bounds=bounds))
                _log_progress(result, number + 1, bounds, counts or Counts())
    except KeyboardInterrupt:
        result.is_interrupted, result.seconds = True, time.monotonic() - started
        log.info("Backfill: interrupted; appended records stay, the next run adds what is missing")
    except DataLossError as error:
        check_topic()  # if the topic was recreated, records only seem to be lost
        raise DataLossError(
            f"Kafka has deleted records of the range before they were read: {error.lost}.",
            hint="Appended records stay; run the same command again with --allow-partial for the rest",
            lost=error.lost,
        ) from error
    return result


@contextmanager
def _catch_interrupt(context: SparkContext, tag: str) -> Iterator[Event]:
    """On a first interrupt, set the event and cancel the Spark jobs of the block; raise it if that takes too long.

    An exception in the middle of a call to the JVM would break py4j's connection, and sometimes become another error.
    Python lets only the main thread handle signals.

    Raises:
        KeyboardInterrupt: An error followed the interrupt; or the block, such as a wait for Kafka, went on for
            ``_PATIENCE`` seconds; or it was the second interrupt.
    """
    interrupted, has_ended = Event(), Event()
    if current_thread() is not main_thread():
        yield interrupted
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        interrupted.set()

    def cancel_jobs() -> None:
        left = _PATIENCE
        while not has_ended.wait(0.1):
            if interrupted.is_set():  # again and again: a batch has several jobs
                left -= 0.1
                with suppress(Exception):  # the same interrupt may have ended the JVM
                    context.cancelJobsWithTag(tag)
                if left < 0:
                    signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)
                    return

    canceller = Thread(target=cancel_jobs, daemon=True)  # it has its own connection to the JVM
    try:
        context.addJobTag(tag)
        signal.signal(signal.SIGINT, handle)
        canceller.start()
        yield interrupted
    except (Exception, KeyboardInterrupt) as error:
        if not (interrupted.is_set() or is_interrupt(error)):
            raise
        drop_connection()
        raise KeyboardInterrupt from error
    finally:
        has_ended.set()
        signal.signal(signal.SIGINT, before)
        with suppress(Py4JError, OSError):
            context.removeJobTag(tag)


def _append_batch(
    pipeline: Pipeline, writer: TableWriter, number: int, source: Source, check_topic: Callable[[], None]
) -> Counts | None:
    """Append the missing records of a batch, and retry if other writers commit first; None if they added all of it."""
    bounds = source.covered.bounds
    cores = str(pipeline.spark.sparkContext.defaultParallelism)  # so that even a range of one partition uses all cores

    def append_missing(attempt: int) -> Counts | None:
        if attempt > 1:
            log.info("Backfill: other writers committed first, retrying batch %d", number + 1)
        writer.has_changed()  # first, so that later appends by others are a conflict
        ingested = pipeline.find_ingested(bounds)
        if not source.covered - ingested:
            return None
        records = read_records(pipeline.kafka, bounds, "read_committed", minPartitions=cores)
        task = make_task(number, time.time(), pipeline.paths, ingested)
        return append_batch(writer, records, task, source, lambda: pipeline.find_ingested(bounds), check_topic)

    return retry_conflicts(append_missing, AppendConflictError)  # each attempt uses all attempts of the writer


def _count_batch(result: BackfillResult, missing: OffsetSet, covered: OffsetSet, counts: Counts | None) -> None:
    """Count each planned offset as appended, added by others since the plan, or without a record in Kafka."""
    result.done_offsets += missing.count
    if counts is None:
        result.added_by_others += missing.count
        return
    others = max(0, counts.present - (covered - missing).count)
    result.added_by_others += others
    result.without_record += missing.count - others - counts.valid - counts.invalid


def _log_progress(result: BackfillResult, number: int, bounds: Bounds, counts: Counts) -> None:
    planned, done = result.plan.planned, result.done_offsets
    appended = result.summary.counts.valid + result.summary.counts.invalid
    progress = {"batch": number, "planned": planned, "done": done, "appended": appended}
    log.info(
        "Backfill: batch %d of %d, %s of %s offsets done, %s records appended, %s records/s",
        number,
        len(result.plan.batches),
        f"{done:,}",
        f"{planned:,}",
        f"{appended:,}",
        f"{appended / max(result.seconds, 0.001):,.0f}",
        extra=event("backfill", **progress, offsets=bounds, counts=describe_counts(counts)),
    )
