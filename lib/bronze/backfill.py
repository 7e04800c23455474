"""``bronze backfill``: add what the tables lack of a range of the topic, also beside a live stream on the same tables.

What is missing is looked up first and read in bounded batches. The commit rule keeps both sides from writing an offset
twice, whichever writers they use: the one that commits second looks up again. So it can be interrupted and run again at
any time.
"""

import logging
from dataclasses import replace

from pyspark.sql import SparkSession

from bronze.backfill_batches import BackfillResult, Target, append_batches, read_records
from bronze.backfill_plan import BackfillPlan, describe_outside, plan_batches, plan_partition
from bronze.backfill_range import (
    describe_other_times,
    find_cut_off,
    limit_to_planned,
    resolve_offsets,
    resolve_times,
)
from bronze.checkpoint import Checkpoint, read_checkpoint
from bronze.failures import explain_failures
from bronze.kafka import describe_topic, list_offsets
from bronze.offsets import PlannedOffsets
from bronze.opening import open_session
from bronze.operations import BackfillConfig
from bronze.paths import check_writable
from bronze.prepare import bind_tables, open_tables
from bronze.resume import Start, build_ledger, describe_rolled_back, find_rolled_back
from bronze.storage_errors import RangeNotHeld
from bronze.tables import qualify_path
from bronze.watch import watch_topic

log = logging.getLogger(__name__)


def main(config: BackfillConfig) -> int:
    """The command ``bronze backfill``: print the plan (``dry_run``) or the result; 130 where it was interrupted."""
    result = run(config)
    print(result.plan.to_text() if config.dry_run else result.describe())
    return 130 if result.is_interrupted else 0


def run(config: BackfillConfig, spark: SparkSession | None = None) -> BackfillResult:
    """Add what the tables lack of the range; an interrupt ends it at once, and the next run adds the rest.

    Args:
        config: Range, topic and tables.
        spark: Session to use; the running one or a new local one when not given.

    Raises:
        RangeNotHeld: A part of the range is neither in the tables nor in Kafka, and that is not allowed.
        DeletedMeanwhile: Kafka deleted records before they were read.
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
        raise RangeNotHeld(plan.topic, plan.outside)
