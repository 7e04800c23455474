"""Where a query goes on: may it start from this checkpoint, or from these offsets, without leaving records out?"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import msgspec
from pyspark.sql import SparkSession

from bronze.checkpoint import Checkpoint, read_binding, read_checkpoint, read_planned_offsets
from bronze.config import AuditConfig, BackfillConfig, IngestConfig
from bronze.delta.binding import KnownDlqs, list_paths, missing_dlq_error, other_dlq_error, read_id
from bronze.delta.ledger import TopicLedger, find_restore, merge_all
from bronze.delta.lookup import Lookup
from bronze.delta.tables import CheckedTable, TableState, read_commit, read_table_state
from bronze.errors import ConfigError, DataLossError
from bronze.kafka.topic import Topic, check_starting_offsets
from bronze.offsets import (
    MAX_OFFSET,
    OffsetRanges,
    PlannedOffsets,
    count_offsets,
    describe_ranges,
    find_bounds,
    subtract_all,
    subtract_ranges,
)
from bronze.parsing import parse_starting_offsets
from bronze.runtime.spark_errors import data_loss_error

log = logging.getLogger(__name__)
# Of a table of an older version, more ranges than that are taken for one: a transactional topic has one per marker.
_MAX_RANGES = 1_000


@dataclass(frozen=True)
class Opened:
    """A topic, its tables, and what is known of them; nothing was written.

    Attributes:
        topic: The topic.
        bronze: The bronze table.
        dlq: The DLQ; None where none is configured.
        known: The DLQs that bronze names.
        lookup: Looks up positions in all tables.
    """

    topic: Topic
    bronze: CheckedTable
    dlq: CheckedTable | None
    known: KnownDlqs
    lookup: Lookup

    @property
    def is_known(self) -> bool:
        """Whether bronze has a ledger of the topic; else it is new, or of an older version of this product."""
        return self.bronze.state is not None and self.topic.name in self.bronze.state.note.ledger


def make_opened(
    spark: SparkSession, topic: Topic, bronze: CheckedTable, dlq: CheckedTable | None, known: KnownDlqs
) -> Opened:
    """The topic and its tables, with a look-up in all that may hold positions of it."""
    return Opened(topic, bronze, dlq, known, Lookup(spark, list_paths(known, bronze, dlq), topic.name))


@dataclass(frozen=True)
class Start:
    """How a query starts: the ledger that it goes on with, and the losses that are accepted."""

    ledger: TopicLedger
    lost: OffsetRanges = field(default_factory=dict)


def check_start(
    spark: SparkSession, config: IngestConfig, checkpoint_path: str, opened: Opened, held: PlannedOffsets
) -> Start:
    """Refuse to start where records would be left out unsaid: the checkpoint decides, else ``starting_offsets``.

    Args:
        spark: Session.
        config: The ingestion.
        checkpoint_path: Qualified path.
        opened: Topic and tables.
        held: What Kafka holds of the topic.

    Raises:
        ConfigError: JSON offsets do not name every partition, name one that does not exist, or are not among those that
            Kafka holds. A file of the checkpoint is missing or cut off; it has the offsets of another topic, or was
            used with another bronze table; the DLQ that it filled is gone, or bronze does not name it.
        DataLossError: Kafka deleted records that were not read, and that is not accepted. The topic ends before what
            was read.
    """
    checkpoint = read_checkpoint(spark, checkpoint_path, config.kafka_topic)
    if checkpoint is None:
        check_starting_offsets(config, opened.topic, held)
    else:
        check_tables_of(spark, config, checkpoint_path, checkpoint, opened.bronze.state)
        _check_checkpoint_dlq(spark, config, checkpoint_path, checkpoint, opened)
    ledger = _begin_all(build_ledger(opened, checkpoint), opened, held)
    if checkpoint and opened.is_known and not read_binding(spark, checkpoint_path).get("format"):
        # Written by an older version: the ledger does not know what it has done.
        ledger = ledger.add_read(checkpoint.done, {}, checkpoint.begins)
    if found := find_rolled_back(spark, checkpoint_path, checkpoint, opened):
        log.warning("Warning: %s", describe_rolled_back(found))
    _check_end(config, ledger, checkpoint, held)
    # A partition that was added later begins at its first record.
    begins = dict.fromkeys(held, 0) | ledger.begins if ledger.begins else {}
    lost = find_holes(ledger, begins, held, opened.lookup.find_present)
    if lost and config.fail_on_data_loss:
        raise data_loss_error(describe_lost(lost))
    if checkpoint is None:
        _warn_of_skipped(config, ledger, held)
    elif config.starting_offsets:
        log.warning(
            "Warning: --starting-offsets %s is ignored, because the checkpoint %s exists and says where to go on",
            config.starting_offsets,
            config.checkpoint_path,
        )
    return Start(ledger, lost)


def check_tables_of(
    spark: SparkSession,
    config: "IngestConfig | BackfillConfig | AuditConfig",
    checkpoint_path: str,
    checkpoint: Checkpoint,
    table: TableState | None,
) -> None:
    """Refuse a checkpoint that was used with another bronze table: it would leave its past out of this one.

    Raises:
        ConfigError: It was, or it does not say.
    """
    if found := find_disagreement(spark, checkpoint_path, checkpoint, table):
        raise ConfigError(
            f"the checkpoint {config.checkpoint_path} says that records were ingested, but not into the table at "
            f"{config.output_path} ({found})",
            hint="correct --output-path, or give a new --checkpoint-path to ingest from the start (what is in the "
            "tables already is left out then)",
        )


def find_disagreement(
    spark: SparkSession, checkpoint_path: str, checkpoint: Checkpoint, table: TableState | None
) -> str:
    """Why a checkpoint and a bronze table do not belong together; empty where they do."""
    if table is None:
        return "there is no table"
    binding = read_binding(spark, checkpoint_path)
    if not binding:
        is_new = checkpoint.committed is None and checkpoint.planned in (None, 0)
        return "" if is_new else "the checkpoint does not say into which table its records went"
    if binding.get("output_id") != table.table_id:
        return f"the records went into {binding.get('output_path')}, table id {binding.get('output_id')}"
    return ""


def _check_checkpoint_dlq(
    spark: SparkSession, config: IngestConfig, checkpoint_path: str, checkpoint: Checkpoint, opened: Opened
) -> None:
    """The checkpoint will not read again what went into a DLQ that is gone, or that bronze does not know."""
    known = opened.known
    if known.missing and checkpoint.committed is not None:
        raise missing_dlq_error(known.missing[0].path, opened.bronze.path)
    binding = read_binding(spark, checkpoint_path)
    filled, path = binding.get("dlq_id", ""), binding.get("dlq_path", "")
    given = opened.dlq.state.table_id if opened.dlq and opened.dlq.state else ""
    if filled and filled != given and filled not in {place.id for place in known.ledger.dlqs}:
        if read_id(spark, path) != filled:
            raise missing_dlq_error(path, opened.bronze.path)
        raise other_dlq_error(opened.bronze.path, config.kafka_topic, [path], opened.dlq.path if opened.dlq else "")


def _begin_all(ledger: TopicLedger, opened: Opened, held: PlannedOffsets) -> TopicLedger:
    """Of a table of an older version, a partition without rows begins at what Kafka holds."""
    if opened.is_known or not ledger.begins:
        return ledger
    begins = {p: earliest for p, (earliest, _) in held.items()} | ledger.begins
    return msgspec.structs.replace(ledger, begins=begins)


def build_ledger(opened: Opened, checkpoint: Checkpoint | None) -> TopicLedger:
    """The ledger to go on with: bronze's own, except in two cases.

    A table of an older version has none: what is in the tables was read, and what the checkpoint has done. Where a DLQ
    is gone, only what is left in the tables counts as read, so that nothing of what it held is left out unsaid.
    """
    ledger, is_gone = opened.known.ledger, bool(opened.known.missing)
    if (opened.is_known and not is_gone) or opened.bronze.state is None:
        return ledger
    present = opened.lookup.find_present(dict.fromkeys(opened.topic.partitions, (0, MAX_OFFSET)))
    present = {p: ranges for p, ranges in present.items() if ranges}
    done = checkpoint.done if checkpoint and not is_gone else {}
    begins = {p: ranges[0][0] for p, ranges in present.items()}
    started = {**(checkpoint.begins if checkpoint else {}), **ledger.begins}
    return msgspec.structs.replace(
        ledger,
        begins={p: min(first, started.get(p, first)) for p, first in (started | begins).items()},
        read=merge_all({p: ranges if is_gone else _join_many(ranges) for p, ranges in present.items()}, done),
        records={p: count_offsets(ranges) for p, ranges in present.items()},
    )


def _join_many(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return ranges if len(ranges) <= _MAX_RANGES else [(ranges[0][0], ranges[-1][1])]


def find_rolled_back(
    spark: SparkSession, checkpoint_path: str, checkpoint: Checkpoint | None, opened: Opened
) -> OffsetRanges:
    """Offsets that were committed and are in no table, where a table seems to be restored to an earlier state.

    Looked for where a RESTORE is among a table's newest commits, where the commits do not know of what the checkpoint
    has done, or where the tables lack a part of its newest committed batch; else a start would have to read all
    positions. Some of the offsets may never have held a record.
    """
    if opened.bronze.state is None:
        return {}
    last: PlannedOffsets = {}
    if checkpoint and checkpoint.committed is not None:
        last = read_planned_offsets(spark, checkpoint_path, checkpoint.committed, opened.topic.name)
    if not opened.is_known:
        return _find_nothing(last, opened.lookup.find_present)
    ledger, done = opened.known.ledger, checkpoint.done if checkpoint else {}
    unknown = {p: subtract_all(r, ledger.read.get(p, []), ledger.lost.get(p, [])) for p, r in done.items()}
    # A DLQ that bronze had before still counts, so a rollback of it takes records away, too.
    paths = list_paths(opened.known, opened.bronze, opened.dlq)
    is_restored = any(_is_restored(spark, path) for path in paths)
    if not any(unknown.values()) and not is_restored and _has_all(opened, checkpoint, last):
        return {}
    present = opened.lookup.find_present(dict.fromkeys(opened.topic.partitions, (0, MAX_OFFSET)))
    for partition, ranges in ledger.read.items():
        absent = subtract_all(ranges, present.get(partition, []))
        if count_offsets(ranges) - count_offsets(absent) < ledger.records.get(partition, 0):
            unknown[partition] = [*unknown.get(partition, []), *absent]
    found = {p: subtract_all(sorted(ranges), present.get(p, [])) for p, ranges in sorted(unknown.items())}
    return {p: ranges for p, ranges in found.items() if ranges}


def _find_nothing(last: PlannedOffsets, find_present: Callable[[PlannedOffsets], OffsetRanges]) -> OffsetRanges:
    """The newest batch, where the tables have nothing of it; commits of an older version do not say what it held."""
    covered = {p: span for p, span in last.items() if span[0] < span[1]}
    if not covered or any(find_present(covered).values()):
        return {}
    return {p: [(first, end - 1)] for p, (first, end) in covered.items()}


def _is_restored(spark: SparkSession, path: str) -> bool:
    """Whether a RESTORE is among a table's newest commits."""
    state = read_table_state(path, "output-path", spark)
    return state is not None and find_restore(partial(read_commit, path), 0, state.version) is not None


def _has_all(opened: Opened, checkpoint: Checkpoint | None, last: PlannedOffsets) -> bool:
    """Whether the tables have all records of the newest committed batch."""
    covered = {p: span for p, span in last.items() if span[0] < span[1]}
    present = sum(map(count_offsets, opened.lookup.find_present(covered).values())) if covered else 0
    if present == sum(end - first for first, end in covered.values()):
        return True
    assert opened.bronze.state is not None
    note = opened.bronze.state.note
    is_newest = checkpoint and (note.query_id, note.batch_id) == (checkpoint.query_id, checkpoint.committed)
    return bool(is_newest and present >= note.counts.get("total", 0))


def describe_rolled_back(found: OffsetRanges) -> str:
    """What the tables lack, and what helps."""
    listed = "; ".join(f"partition {p}, offsets {describe_ranges(ranges)}" for p, ranges in found.items())
    return (
        f"the tables lack records that were committed, of {listed}; was a table restored to an earlier state? "
        "bronze audit tells, bronze backfill adds what Kafka still holds"
    )


def _check_end(config: IngestConfig, ledger: TopicLedger, checkpoint: Checkpoint | None, held: PlannedOffsets) -> None:
    """Refuse a topic that ends before what was read: its next records would get offsets that meant others."""
    read_to = {p: ranges[-1][1] + 1 for p, ranges in ledger.read.items()} | (checkpoint.starts if checkpoint else {})
    beyond = {p: (held[p][1], end) for p, end in sorted(read_to.items()) if p in held and end > held[p][1]}
    if beyond:
        raise truncated_topic_error(config.kafka_topic, beyond)


def truncated_topic_error(topic: str, ends: Mapping[int, tuple[int, int]]) -> DataLossError:
    """For a topic that ends before what was read; ``ends`` has the end and where it was read to, by partition."""
    listed = "; ".join(f"partition {p} ends at {end}, but was read to {read}" for p, (end, read) in ends.items())
    return DataLossError(
        f"{topic} has lost its newest records: {listed}. New records would get offsets that are in the tables already.",
        hint="Give new --output-path, --dlq-path and --checkpoint-path",
    )


def _warn_of_skipped(config: IngestConfig, ledger: TopicLedger, held: PlannedOffsets) -> None:
    """Say what a start without a checkpoint leaves out of what Kafka still holds."""
    offsets = parse_starting_offsets(config.starting_offsets, config.kafka_topic) or {}
    default = -1 if config.starting_offsets == "latest" else -2
    for partition, begin in sorted(ledger.begins.items()):
        if partition in held:
            asked = offsets.get(partition, default)
            start = {-2: held[partition][0], -1: held[partition][1]}.get(asked, asked)
            first = max(begin, held[partition][0])
            if left := subtract_all([(first, start - 1)] if first < start else [], ledger.read.get(partition, [])):
                log.warning(
                    "Warning: --starting-offsets leaves out partition %d, offsets %s; bronze backfill can add them",
                    partition,
                    describe_ranges(left),
                )


def find_holes(
    ledger: TopicLedger,
    begins: Mapping[int, int],
    held: PlannedOffsets,
    find_present: Callable[[PlannedOffsets], OffsetRanges],
) -> OffsetRanges:
    """The offsets that were never read and that Kafka can no longer give, whatever was read beyond them.

    Args:
        ledger: What was read of the topic, and which losses were accepted.
        begins: Where the ingestion began, per partition; nothing is promised before.
        held: What Kafka holds.
        find_present: Looks up which offsets are in the tables; asked only where there may be a hole.
    """
    holes = {
        p: subtract_all([(first, held[p][0] - 1)], ledger.read.get(p, []), ledger.lost.get(p, []))
        for p, first in sorted(begins.items())
        if first < held.get(p, (0, 0))[0]
    }
    present = find_present(find_bounds(holes)) if any(holes.values()) else {}
    found = {p: subtract_ranges(ranges, present.get(p, [])) for p, ranges in holes.items()}
    return {p: ranges for p, ranges in found.items() if ranges}


def describe_lost(lost: OffsetRanges) -> str:
    """Lost offsets in one line."""
    return "; ".join(f"partition {p}, offsets {describe_ranges(ranges)}" for p, ranges in lost.items())
