"""Where a query goes on: may it start from this checkpoint, or from these offsets, without leaving records out?"""

import logging
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession

from bronze.checkpoint import Checkpoint, read_binding, read_checkpoint, read_planned_offsets
from bronze.checkpoint_errors import CheckpointOfOtherTables
from bronze.config import IngestConfig
from bronze.kafka import Topic, check_starting_offsets
from bronze.kafka_errors import DataLoss
from bronze.lookup import Lookup
from bronze.loss import describe_lost, find_lost
from bronze.offsets import MAX_OFFSET, OffsetRanges, PlannedOffsets, describe_ranges
from bronze.opening import CheckedTable, list_tables_with_positions
from bronze.parsing import parse_starting_offsets
from bronze.storage_errors import DlqMissing, TopicTruncated
from bronze.tables import TableState

if TYPE_CHECKING:
    from bronze.operations import BackfillConfig

log = logging.getLogger(__name__)


def check_start(
    spark: SparkSession,
    config: IngestConfig,
    checkpoint_path: str,
    bronze: CheckedTable,
    dlq: CheckedTable | None,
    topic: Topic,
    held: PlannedOffsets,
) -> OffsetRanges:
    """Refuse to start where records would be left out unsaid: the checkpoint decides, else ``starting_offsets``.

    Args:
        spark: Session.
        config: The ingestion.
        checkpoint_path: Qualified path.
        bronze: The bronze table.
        dlq: The DLQ; None where none is configured.
        topic: The topic.
        held: What Kafka holds of it.

    Returns:
        Offsets that Kafka deleted before they were read, where that is accepted.

    Raises:
        PartitionsMissing: JSON offsets do not name every partition.
        PartitionsUnknown: They name one that does not exist.
        OffsetsOutOfRange: They are not among those that Kafka holds.
        CheckpointUnreadable: A file of it is missing or cut off.
        CheckpointOfOtherTopic: It has the offsets of another topic.
        CheckpointOfOtherTables: It was used with another bronze table.
        DlqMissing: The DLQ that it filled is gone.
        DataLoss: Kafka deleted records since, and that is not accepted.
        TopicTruncated: The topic ends before what was read.
    """
    checkpoint = read_checkpoint(spark, checkpoint_path, config.kafka_topic)
    tables = list_tables_with_positions(spark, bronze, dlq.path if dlq and dlq.state else "") if bronze.state else []
    if checkpoint is None:
        check_starting_offsets(config, topic, held)
        return _check_fresh_start(spark, config, tables, held) if tables else {}
    check_tables_of(spark, config, checkpoint_path, checkpoint, bronze.state)
    if checkpoint.committed is not None:
        _check_dlq(config, bronze, dlq)
        _warn_of_rollback(spark, config, checkpoint_path, checkpoint, tables)
    lost = check_data_loss(spark, config, checkpoint.starts, tables, held)
    if config.starting_offsets:
        log.warning(
            "Warning: --starting-offsets %s is ignored, because the checkpoint %s exists and says where to go on",
            config.starting_offsets,
            config.checkpoint_path,
        )
    return lost


def check_tables_of(
    spark: SparkSession,
    config: "IngestConfig | BackfillConfig",
    checkpoint_path: str,
    checkpoint: Checkpoint,
    table: TableState | None,
) -> None:
    """Refuse a checkpoint that was used with another bronze table: it would leave its past out of this one.

    Raises:
        CheckpointOfOtherTables: It was, or it does not say.
    """
    if found := find_disagreement(spark, checkpoint_path, checkpoint, table):
        raise CheckpointOfOtherTables(config.checkpoint_path, config.output_path, found)


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


def _check_fresh_start(
    spark: SparkSession, config: IngestConfig, tables: list[str], held: PlannedOffsets
) -> OffsetRanges:
    """Without a checkpoint, what lies between the tables' last rows and the start must not be left out unsaid."""
    present = Lookup(spark, tables, config.kafka_topic).find_present(dict.fromkeys(held, (0, MAX_OFFSET)))
    ends = {partition: ranges[-1][1] + 1 for partition, ranges in present.items() if ranges}
    lost = check_data_loss(spark, config, ends, tables, held)
    offsets = parse_starting_offsets(config.starting_offsets, config.kafka_topic) or {}
    default = -1 if config.starting_offsets == "latest" else -2
    for partition, end in sorted(ends.items()):
        asked = offsets.get(partition, default)
        start = {-2: held[partition][0], -1: held[partition][1]}.get(asked, asked)
        first = max(end, held[partition][0])
        if first < start:
            log.warning(
                "Warning: --starting-offsets leaves out partition %d, offsets %s; bronze backfill can add them",
                partition,
                describe_ranges([(first, start - 1)]),
            )
    return lost


def _check_dlq(config: IngestConfig, bronze: CheckedTable, dlq: CheckedTable | None) -> None:
    """Refuse to make anew a DLQ that was filled: invalid records that waited in it would be lost unsaid."""
    if dlq and dlq.state is None and bronze.state and dlq.path in bronze.state.dlq_paths:
        raise DlqMissing(config.dlq_path, config.output_path)


def _warn_of_rollback(
    spark: SparkSession, config: IngestConfig, checkpoint_path: str, checkpoint: Checkpoint, tables: list[str]
) -> None:
    """Warn where the tables have nothing of the newest committed batch: they may have been restored to before it."""
    assert checkpoint.committed is not None
    planned = read_planned_offsets(spark, checkpoint_path, checkpoint.committed, config.kafka_topic)
    covered = {partition: span for partition, span in planned.items() if span[0] < span[1]}
    if covered and not any(Lookup(spark, tables, config.kafka_topic).find_present(covered).values()):
        log.warning(
            "Warning: the tables have nothing of batch %d, which the checkpoint says is done; were they restored to an "
            "earlier state? bronze audit tells, bronze backfill adds what Kafka still holds",
            checkpoint.committed,
        )


def check_data_loss(
    spark: SparkSession, config: IngestConfig, starts: dict[int, int], tables: list[str], held: PlannedOffsets
) -> OffsetRanges:
    """Name the offsets that Kafka deleted before they were read: between the next ones and Kafka's earliest.

    A crash before Spark's own commit leaves a batch that the tables have, and Kafka may not have any more.

    Returns:
        Those offsets, where their loss is accepted.

    Raises:
        DataLoss: There are some, and that is not accepted.
        TopicTruncated: The topic ends before what was read.
    """
    beyond = {p: first for p, first in starts.items() if p in held and first > held[p][1]}
    if beyond:
        raise TopicTruncated(config.kafka_topic, {p: (held[p][1], first) for p, first in sorted(beyond.items())})
    planned = {partition: (first, MAX_OFFSET) for partition, first in starts.items()}
    lost = find_lost(planned, held, Lookup(spark, tables, config.kafka_topic).find_present)
    if lost and config.fail_on_data_loss:
        raise DataLoss(describe_lost(lost))
    return lost
