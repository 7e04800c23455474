"""Checks that a query can start from its checkpoint or its starting offsets without skipping records."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import msgspec

from bronze.checkpoint import Checkpoint, CheckpointFolder, no_checkpoint_error
from bronze.config import AuditConfig, BackfillConfig, IngestConfig
from bronze.delta.binding import missing_dlq_error, other_dlq_error, read_id
from bronze.delta.ledger import TopicLedger
from bronze.delta.log import find_restore, read_commit
from bronze.delta.tables import TableState, read_table_state
from bronze.errors import ConfigError, DataLossError
from bronze.kafka.topic import check_starting_offsets
from bronze.offsets import EMPTY, MAX_OFFSET, Bounds, OffsetSet, format_ranges
from bronze.parsing import parse_starting_offsets
from bronze.pipeline import Pipeline
from bronze.runtime.object_store import find_storage
from bronze.runtime.spark_errors import data_loss_error

log = logging.getLogger(__name__)
# In a table of an older version, more ranges than this are merged: a transactional topic has a range per marker.
_MAX_RANGES = 1_000


@dataclass(frozen=True)
class Start:
    """The start of a query: the ledger that it continues, the accepted losses, and whether no batch was planned yet."""

    ledger: TopicLedger
    lost: OffsetSet = EMPTY
    is_first: bool = False


def plan_start(pipeline: Pipeline, config: IngestConfig, folder: CheckpointFolder, available: Bounds) -> Start:
    """Plan the start from the checkpoint or else from ``starting_offsets``; refuse to skip records silently.

    Args:
        pipeline: Topic and tables.
        config: Configuration of the ingestion.
        folder: Its checkpoint.
        available: Offsets that Kafka holds.

    Raises:
        ConfigError: JSON offsets do not name every partition, name one that does not exist, or are not among those that
            Kafka holds. A file of the checkpoint is missing or truncated. The checkpoint has the offsets of another
            topic, was used with another bronze table, or filled a DLQ that is missing or that bronze does not name.
        DataLossError: Kafka deleted records before they were read, and data loss is not accepted. The topic ends before
            the offsets that were read.
    """
    checkpoint = folder.read()
    if checkpoint is None:
        check_starting_offsets(config, pipeline.topic, available)
    else:
        check_tables_of(config, folder, checkpoint, pipeline.bronze.state)
        _check_checkpoint_dlq(pipeline, folder, checkpoint)
    ledger = _begin_all(build_ledger(pipeline, checkpoint), pipeline, available)
    if checkpoint and pipeline.has_ledger and not folder.read_binding().get("format"):
        # An older version wrote the checkpoint, so its completed offsets are not in the ledger.
        ledger = ledger.add_read(checkpoint.done, {}, checkpoint.first_offsets)
    warn_of_rollback(pipeline, folder, checkpoint)
    check_end(pipeline, ledger, checkpoint, available)
    # A partition that was added later starts at its first record.
    begins = dict.fromkeys(available, 0) | ledger.begins if ledger.begins else {}
    lost = find_holes(ledger, begins, available, pipeline.find_ingested)
    if lost and config.fail_on_data_loss:
        raise data_loss_error(str(lost))
    if checkpoint is None:
        _warn_of_skipped(config, ledger, available)
    elif config.starting_offsets:
        log.warning(
            "--starting-offsets %s is ignored, because the checkpoint %s exists and says where to continue",
            config.starting_offsets,
            config.checkpoint_path,
        )
    return Start(ledger, lost, checkpoint is None)


def check_tables_of(
    config: AuditConfig | BackfillConfig | IngestConfig,
    folder: CheckpointFolder,
    checkpoint: Checkpoint,
    table: TableState | None,
) -> None:
    """Refuse a checkpoint that was used with another bronze table: this table would lack the records before it.

    Raises:
        ConfigError: It was used with another table, or does not name its table.
    """
    if found := find_disagreement(folder, checkpoint, table):
        raise ConfigError(
            f"the checkpoint {config.checkpoint_path} says that records were ingested, but not into the table at "
            f"{config.output_path} ({found})",
            hint="correct --output-path, or use a new --checkpoint-path to ingest from the start (records that are "
            "already in the tables are skipped)",
        )


def read_own_checkpoint(pipeline: Pipeline, config: AuditConfig | BackfillConfig) -> Checkpoint:
    """Read the checkpoint of a command that needs one, which must belong to the bronze table.

    Raises:
        ConfigError: There is no checkpoint, or it has planned nothing. A file of it is missing or cut off. It has the
            offsets of another topic. It was used with another bronze table.
    """
    folder = pipeline.get_checkpoint(config.checkpoint_path)
    checkpoint = folder.read()
    if checkpoint is None:
        raise no_checkpoint_error(config.checkpoint_path)
    check_tables_of(config, folder, checkpoint, pipeline.bronze.state)
    return checkpoint


def find_disagreement(folder: CheckpointFolder, checkpoint: Checkpoint, table: TableState | None) -> str:
    """Return why a checkpoint and a bronze table do not belong together; empty if they do."""
    if table is None:
        return "there is no table"
    binding = folder.read_binding()
    if not binding:
        is_new = checkpoint.committed is None and checkpoint.planned in (None, 0)
        return "" if is_new else "the checkpoint does not say into which table its records went"
    if binding.get("output_id") != table.table_id:
        return f"the records went into {binding.get('output_path')}, table id {binding.get('output_id')}"
    return ""


def _check_checkpoint_dlq(pipeline: Pipeline, folder: CheckpointFolder, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that filled a missing or unknown DLQ: the query would not read those records again."""
    known, path = pipeline.known, pipeline.bronze.path
    if known.missing and checkpoint.committed is not None:
        raise missing_dlq_error(known.missing[0].path, path)
    binding = folder.read_binding()
    filled, dlq_path = binding.get("dlq_id", ""), binding.get("dlq_path", "")
    if filled and filled != known.given and filled not in {place.id for place in known.ledger.dlqs}:
        if read_id(pipeline.spark, dlq_path) != filled:
            raise missing_dlq_error(dlq_path, path)
        raise other_dlq_error(path, pipeline.topic.name, [dlq_path], pipeline.dlq.path if pipeline.dlq else "")


def _begin_all(ledger: TopicLedger, pipeline: Pipeline, available: Bounds) -> TopicLedger:
    """In a table of an older version, let a partition without rows begin at Kafka's earliest offset."""
    if pipeline.has_ledger or not ledger.begins:
        return ledger
    begins = {p: earliest for p, (earliest, _) in available.items()} | ledger.begins
    return msgspec.structs.replace(ledger, begins=begins)


def build_ledger(pipeline: Pipeline, checkpoint: Checkpoint | None) -> TopicLedger:
    """Return the ledger to continue: bronze's own, except in three cases.

    A table of an older version has none; the offsets in the tables and those that the checkpoint has completed count
    as read. If the newest commit is damaged, these offsets are added to the last known ledger. If a DLQ is missing,
    only the offsets in the tables count as read, so that none of its records are skipped silently.
    """
    ledger, is_gone, state = pipeline.known.ledger, bool(pipeline.known.missing), pipeline.bronze.state
    if state is None or (pipeline.has_ledger and not is_gone and state.found.is_newest):
        return ledger
    ingested = pipeline.find_ingested(dict.fromkeys(pipeline.topic.partitions, (0, MAX_OFFSET)))
    done = checkpoint.done if checkpoint and not is_gone else EMPTY
    if pipeline.has_ledger and not is_gone:
        log.warning("the newest commit of bronze-ingestion to %s is damaged; its rows were found", pipeline.bronze.path)
        fresh = ingested - ledger.read
        return ledger.add_read(_join_many(fresh) | done, fresh.counts, {})
    begins = {p: first for p, (first, _) in ingested.bounds.items()}
    started = {**(checkpoint.first_offsets if checkpoint else {}), **ledger.begins}
    return msgspec.structs.replace(
        ledger,
        begins={p: min(first, started.get(p, first)) for p, first in (started | begins).items()},
        read=(ingested if is_gone else _join_many(ingested)) | done,
        records=ingested.counts,
    )


def _join_many(offsets: OffsetSet) -> OffsetSet:
    return offsets | OffsetSet.between({p: span for p, span in offsets.bounds.items() if len(offsets[p]) > _MAX_RANGES})


def find_holes(
    ledger: TopicLedger, begins: Mapping[int, int], available: Bounds, find_ingested: Callable[[Bounds], OffsetSet]
) -> OffsetSet:
    """Find the offsets that were never read and that Kafka has deleted, even if later ones were read.

    Args:
        ledger: The offsets that were read, and the accepted losses.
        begins: Offset at which the ingestion began, per partition; earlier ones need not be in the tables.
        available: Offsets that Kafka holds.
        find_ingested: Looks up which offsets are in the tables; called only if there may be a hole.
    """
    deleted = OffsetSet.between({p: (first, available.get(p, (0, 0))[0]) for p, first in begins.items()})
    holes = deleted - ledger.read - ledger.lost
    return holes - find_ingested(holes.bounds) if holes else holes


def warn_of_rollback(
    pipeline: Pipeline, folder: CheckpointFolder | None = None, checkpoint: Checkpoint | None = None
) -> None:
    """Warn of committed records that the tables lack, if a table seems to be restored to an earlier state."""
    if found := find_rolled_back(pipeline, folder, checkpoint):
        log.warning("%s", explain_rollback(found))


def find_rolled_back(
    pipeline: Pipeline, folder: CheckpointFolder | None = None, checkpoint: Checkpoint | None = None
) -> OffsetSet:
    """Find committed offsets that are in no table, if a table seems to be restored to an earlier state.

    Searches only if a RESTORE is among a table's newest commits, if the commits do not cover the offsets that the
    checkpoint has completed, or if the tables lack a part of its newest committed batch, because a search reads all
    positions. Some of the offsets may never have held a record.
    """
    if pipeline.bronze.state is None:
        return EMPTY
    last: Bounds = {}
    if folder and checkpoint and checkpoint.committed is not None:
        last = folder.read_batch_range(checkpoint.committed)
    if not pipeline.has_ledger:  # commits of an older version do not list the records of the batch
        return EMPTY if _find_from(pipeline, last) else OffsetSet.between(last)
    ledger = pipeline.known.ledger
    unknown = (checkpoint.done if checkpoint else EMPTY) - ledger.read - ledger.lost
    # A previous DLQ still counts, so its rollback removes records too.
    paths = [pipeline.bronze.path, *pipeline.known.dlq_paths]
    is_restored = any(_is_restored(pipeline, path) for path in paths)
    if not unknown and not is_restored and _has_all(pipeline, checkpoint, last):
        return EMPTY
    partitions = {*pipeline.topic.partitions, *ledger.read, *unknown}
    ingested = pipeline.find_ingested(dict.fromkeys(sorted(partitions), (0, MAX_OFFSET)))
    absent, found = ledger.read - ingested, (ledger.read & ingested).counts
    lacking = {p: absent[p] for p in ledger.read if found.get(p, 0) < ledger.records.get(p, 0)}
    return (unknown | OffsetSet(lacking)) - ingested


def _find_from(pipeline: Pipeline, bounds: Bounds) -> OffsetSet:
    """Find which offsets of a batch the tables have; the look-up has no end, because the guard needs the rest next."""
    if not OffsetSet.between(bounds):
        return EMPTY
    return pipeline.find_ingested({p: (first, MAX_OFFSET) for p, (first, _) in bounds.items()}).clip(bounds)


def _is_restored(pipeline: Pipeline, path: str) -> bool:
    """Whether a RESTORE is among a table's newest commits."""
    state = read_table_state(path, "output-path", pipeline.spark)
    return state is not None and find_restore(partial(read_commit, find_storage(path)), 0, state.version) is not None


def _has_all(pipeline: Pipeline, checkpoint: Checkpoint | None, last: Bounds) -> bool:
    """Whether the tables have all records of the newest committed batch."""
    found = _find_from(pipeline, last).count
    if found == OffsetSet.between(last).count:
        return True
    assert pipeline.bronze.state is not None
    note = pipeline.bronze.state.note
    is_newest = checkpoint and (note.query_id, note.batch_id) == (checkpoint.query_id, checkpoint.committed)
    return bool(is_newest and found >= note.counts.get("total", 0))


def explain_rollback(found: OffsetSet) -> str:
    """Return the warning with the offsets that the tables lack, and the remedy."""
    return (
        f"the tables lack records that were committed, of {found}; was a table restored to an earlier state? "
        "Run bronze audit to see what is missing, and bronze backfill to add what Kafka still holds"
    )


def check_end(pipeline: Pipeline, ledger: TopicLedger, checkpoint: Checkpoint | None, available: Bounds) -> None:
    """Refuse a topic that ends before the offsets that were read: its next records would reuse offsets.

    The rows count too: after a crash between the two commits, the DLQ has offsets that the ledger does not have.

    Raises:
        DataLossError: The topic has lost its newest records.
    """
    next_offsets = checkpoint.next_offsets if checkpoint else {}
    # From where the query continues, because the guard needs the same look-up next.
    bounds = {p: (min(end, next_offsets.get(p, end)), MAX_OFFSET) for p, (_, end) in available.items()}
    read = ledger.read | OffsetSet.between({p: (0, end) for p, end in next_offsets.items()})
    read |= pipeline.find_ingested(bounds)
    # Ask Kafka again, because another process may have appended newer records meanwhile.
    if beyond := find_beyond(read, pipeline.fetch_available()):
        raise truncated_topic_error(pipeline.topic.name, beyond)


def find_beyond(read: OffsetSet, available: Bounds) -> OffsetSet:
    """Find which offsets lie at or beyond Kafka's end, which must have been asked for after they were read."""
    return read - OffsetSet.between({p: (0, end) for p, (_, end) in available.items()})


def _warn_of_skipped(config: IngestConfig, ledger: TopicLedger, available: Bounds) -> None:
    """Warn of records that Kafka still holds and that a start without a checkpoint skips."""
    offsets = parse_starting_offsets(config.starting_offsets, config.kafka_topic) or {}
    default = -1 if config.starting_offsets == "latest" else -2
    skipped = {}
    for partition, (earliest, end) in available.items():
        requested = offsets.get(partition, default)
        start = {-2: earliest, -1: end}.get(requested, requested)
        skipped[partition] = (max(ledger.begins.get(partition, start), earliest), start)
    for partition, ranges in (OffsetSet.between(skipped) - ledger.read).items():
        log.warning(
            "--starting-offsets skips partition %d, offsets %s; bronze backfill can add them",
            partition,
            format_ranges(ranges),
        )


def truncated_topic_error(topic: str, beyond: OffsetSet) -> DataLossError:
    """Make the error for a topic that ends before offsets that were read."""
    return DataLossError(
        f"{topic} has lost its newest records: {beyond}. New records would get offsets that are already in the tables.",
        hint="Use new --output-path, --dlq-path and --checkpoint-path",
    )
