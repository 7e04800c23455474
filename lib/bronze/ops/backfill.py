"""``bronze backfill``: add what the tables lack of a range of the topic, also beside a live stream on the same tables.

What is missing is looked up first and read in bounded batches. The commit rule keeps both sides from writing an offset
twice, whichever writers they use: the one that commits second looks up again. So it can be interrupted and run again at
any time.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from uuid import uuid4

from pyspark.errors import IllegalArgumentException
from pyspark.sql import DataFrame, SparkSession

from bronze.batch import IngestSummary, describe_batch, select_records
from bronze.checkpoint import Checkpoint, read_checkpoint
from bronze.config import BackfillConfig
from bronze.errors import AppendConflictError, ConfigError, DataLossError, ExitCode
from bronze.kafka.client import client_config_error
from bronze.kafka.read import read_topic_once
from bronze.kafka.topic import describe_topic, list_offsets
from bronze.kafka.watch import watch_topic
from bronze.offsets import OffsetRanges, PlannedOffsets, count_offsets, invert_ranges, select_overlap
from bronze.ops.backfill_plan import (
    BackfillPlan,
    describe_other_times,
    describe_outside,
    find_cut_off,
    limit_to_planned,
    plan_batches,
    plan_partition,
    resolve_offsets,
    resolve_times,
)
from bronze.pipeline import bind_tables, open_session, open_tables
from bronze.resume import Opened, Start, build_ledger, describe_rolled_back, find_rolled_back
from bronze.runtime.paths import check_writable, qualify_path, to_local_path
from bronze.runtime.spark_errors import explain_failures
from bronze.tasks import BatchResult, BatchTask
from bronze.writers import Source, TableWriter

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
        DataLossError: Kafka deleted records before they were read.
        AppendConflictError: Others kept committing first.
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
    except DataLossError as error:
        target.check_topic()  # of a recreated topic, records seem to be lost
        raise DataLossError(
            f"Kafka has deleted records of the range before they were read: {error.lost}.",
            hint="What was appended stays; run the same command again with --allow-partial for what is left",
            lost=error.lost,
        ) from error
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
        except AppendConflictError as error:
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
        ConfigError: Spark does not take one of the client properties.
    """
    cores = str(spark.sparkContext.defaultParallelism)  # also for a range of one partition
    try:
        return read_topic_once(spark, config, batch, "read_committed", minPartitions=cores)
    except IllegalArgumentException as error:
        raise client_config_error(config, " ".join(str(error).split())) from None


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


def main(config: BackfillConfig) -> int:
    """The command ``bronze backfill``: print the plan (``dry_run``) or the result; 130 where it was interrupted."""
    result = run(config)
    print(result.plan.to_text() if config.dry_run else result.describe())
    return ExitCode.INTERRUPTED if result.is_interrupted else ExitCode.DONE


def run(config: BackfillConfig, spark: SparkSession | None = None) -> BackfillResult:
    """Add what the tables lack of the range; an interrupt ends it at once, and the next run adds the rest.

    Args:
        config: Range, topic and tables.
        spark: Session to use; the running one or a new local one when not given.

    Raises:
        ConfigError: A part of the range is neither in the tables nor in Kafka, and that is not allowed.
        DataLossError: Kafka deleted records before they were read.
        BronzeError: What does not fit, or failed; what was appended by then stays.
    """
    with explain_failures():
        target = _check(config, spark)
        if config.dry_run:
            return BackfillResult(_make_plan(target))
        if not target.is_complete:
            _check_plan(config, _make_plan(target))  # before tables are made
        start = Start(build_ledger(target.opened, _read_checkpoint(target)))
        opened, writer = bind_tables(target.spark, config, target.opened, start)
        writer.has_changed()  # before the look-up: what others append from now on it notices
        target = Target(target.spark, config, opened)
        plan = _make_plan(target)
        _check_plan(config, plan)
        for line in (*plan.outside, *plan.notes, plan.describe()):
            log.info("Backfill: %s", line)
        with watch_topic(target.spark, config, opened.topic, opened.bronze.path) as watch:
            return append_batches(replace(target, check_topic=watch.check_topic), writer, plan)


def plan_backfill(config: BackfillConfig, spark: SparkSession | None = None) -> BackfillPlan:
    """What ``run`` would do now; nothing is written.

    Args:
        config: Range, topic and tables.
        spark: Session to use; the running one or a new local one when not given.

    Raises:
        BronzeError: What does not fit. That Kafka does not hold the whole range is in the plan.
    """
    with explain_failures():
        return _make_plan(_check(config, spark))


def _check(config: BackfillConfig, spark: SparkSession | None) -> Target:
    """Check paths, session, Kafka and tables; nothing is written."""
    spark = open_session(config, spark)
    if not config.dry_run:
        check_writable(spark, config, "output_path", "dlq_path")
    topic = describe_topic(spark, config)
    read_records(spark, config, dict.fromkeys(topic.partitions, (0, 0)))  # takes the client properties, reads nothing
    opened = open_tables(spark, config, topic, config.change_dlq)
    if found := find_rolled_back(spark, "", None, opened):
        log.warning("Warning: %s", describe_rolled_back(found))
    return Target(spark, config, opened)


def _read_checkpoint(target: Target) -> Checkpoint | None:
    """What the stream has done, for a table of an older version, whose commits do not say it."""
    if not target.config.checkpoint_path:
        return None
    path = qualify_path(target.spark, target.config.checkpoint_path)
    return read_checkpoint(target.spark, path, target.config.kafka_topic)


def _make_plan(target: Target) -> BackfillPlan:
    """Resolve the range, and look up what the tables have of it."""
    spark, config, topic = target.spark, target.config, target.opened.topic
    held = list_offsets(spark, config, topic)
    by_time = bool(config.start_timestamp or config.end_timestamp)
    wanted = resolve_times(spark, config, topic, held) if by_time else resolve_offsets(config, topic, held)
    outside = _list_outside_times(target, wanted, held) if by_time else []
    notes = []
    if others := sorted(set(topic.partitions) - set(wanted)):
        notes.append(f"partitions that are not named are left out: {', '.join(map(str, others))}")
    if config.checkpoint_path:
        asked, wanted = wanted, limit_to_planned(spark, config, target.opened.bronze.state, wanted)
        if left := sum(asked[p][1] - wanted[p][1] for p in wanted):
            notes.append(f"{left:,} offsets that the stream has not planned yet are left to it")
    present = target.find_present(wanted)
    partitions = [plan_partition(p, span, held[p], present.get(p, [])) for p, span in wanted.items()]
    missing = {p.partition: p.missing for p in partitions}
    outside += filter(None, map(describe_outside, partitions))
    return BackfillPlan(topic.name, partitions, plan_batches(missing, config.max_offsets_per_trigger), outside, notes)


def _list_outside_times(target: Target, wanted: PlannedOffsets, held: PlannedOffsets) -> list[str]:
    """Why Kafka may not hold the whole time range; not where the tables have what came before its earliest record."""
    if others := describe_other_times(target.spark, target.config, target.opened.topic, wanted, held):
        return [others]
    cut_off = find_cut_off(target.spark, target.config, target.opened.topic, wanted, held)
    before = target.find_present({p: (held[p][0] - 1, held[p][0]) for p in cut_off}) if cut_off else {}
    return [reason for p, reason in cut_off.items() if not before.get(p)]


def _check_plan(config: BackfillConfig, plan: BackfillPlan) -> None:
    if plan.outside and not config.allow_partial:
        raise ConfigError(
            f"Kafka does not hold the whole range of {plan.topic}: {'; '.join(plan.outside)}.",
            hint="Correct the range, or take what there is with --allow-partial",
        )
