"""Which offsets a backfill is asked for: by offsets, or by Kafka's timestamps, up to what a stream has planned."""

from pyspark.sql import SparkSession

from bronze.checkpoint import read_checkpoint
from bronze.checkpoint_errors import CheckpointMissing
from bronze.kafka import Topic
from bronze.kafka_errors import PartitionsUnknown
from bronze.kafka_times import find_offsets_at, find_timestamps, format_timestamp
from bronze.offsets import PlannedOffsets
from bronze.operations import BackfillConfig
from bronze.parsing import parse_timestamp
from bronze.resume import check_tables_of
from bronze.tables import TableState, qualify_path

# Records at a partition's begin whose timestamps no clock could mean may stand before the first one of a time range.
_ODD = 100


def resolve_offsets(config: BackfillConfig, topic: Topic, held: PlannedOffsets) -> PlannedOffsets:
    """First and end offset of each partition that is named, of all where none is.

    Raises:
        PartitionsUnknown: A named partition does not exist.
    """
    starts, ends = config.parse_range()
    for name, offsets in (("starting_offsets", starts), ("ending_offsets", ends)):
        if unknown := sorted(set(offsets or ()) - set(topic.partitions)):
            raise PartitionsUnknown(name, topic.name, unknown)
    wanted = {}
    for partition in sorted(starts or ends or topic.partitions):
        first, end = (starts or {}).get(partition, -2), (ends or {}).get(partition, -1)
        earliest, latest = held[partition]
        first = earliest if first < 0 else first
        wanted[partition] = (first, max(first, latest if end < 0 else end))
    return wanted


def resolve_times(spark: SparkSession, config: BackfillConfig, topic: Topic, held: PlannedOffsets) -> PlannedOffsets:
    """The offsets from the first record at or after the one time to the first at or after the other.

    Kafka finds them per partition. Where a producer's timestamps do not ascend, records beside the borders may be of
    other times. A record whose timestamp no clock could mean is taken by its place.
    """
    names = ("start_timestamp", "end_timestamp")
    starts, ends = (
        {} if ms is None else find_offsets_at(spark, config, topic, ms, held, is_end=name == "end_timestamp")
        for name, ms in ((name, parse_timestamp(name, getattr(config, name))) for name in names)
    )
    wanted = {}
    for partition, (earliest, latest) in held.items():
        first, end = starts.get(partition, earliest), ends.get(partition, latest)
        first, end = latest if first < 0 else first, latest if end < 0 else end
        wanted[partition] = (min(first, latest), max(min(first, latest), min(end, latest)))
    return wanted


def describe_other_times(
    spark: SparkSession, config: BackfillConfig, topic: Topic, wanted: PlannedOffsets, held: PlannedOffsets
) -> str:
    """Why a time range holds nothing, where all of Kafka's records are earlier, or all later; else empty."""
    is_after = bool(config.start_timestamp) and all(wanted[p][0] == held[p][1] for p in wanted)
    is_before = bool(config.end_timestamp) and all(wanted[p][1] == held[p][0] for p in wanted)
    return f"its records are of {_describe_times(spark, config, topic, held)}" if is_after or is_before else ""


def find_cut_off(
    spark: SparkSession, config: BackfillConfig, topic: Topic, wanted: PlannedOffsets, held: PlannedOffsets
) -> dict[int, str]:
    """Partitions in which Kafka's earliest record is later than the start time, and it has deleted earlier ones.

    How many of those were of the time range cannot be known.
    """
    start = parse_timestamp("start_timestamp", config.start_timestamp) or 0
    begun = [p for p, (first, _) in wanted.items() if held[p][0] > 0 and first - held[p][0] <= _ODD]
    if not begun:
        return {}
    times = find_timestamps(spark, config, topic, held)
    return {
        p: f"partition {p} holds {held[p][0]} to {held[p][1] - 1}, from {format_timestamp(times[p][0])} on, and "
        "records before that are deleted"
        for p in begun
        if times[p][0] > start
    }


def limit_to_planned(
    spark: SparkSession, config: BackfillConfig, table: TableState | None, wanted: PlannedOffsets
) -> PlannedOffsets:
    """End each partition where the live query of the checkpoint has planned to; the rest is left to it.

    Raises:
        CheckpointMissing: There is none, or it has planned nothing.
        CheckpointUnreadable: A file of it is missing or cut off.
        CheckpointOfOtherTopic: It has the offsets of another topic.
        CheckpointOfOtherTables: It was used with another bronze table.
    """
    path = qualify_path(spark, config.checkpoint_path)
    checkpoint = read_checkpoint(spark, path, config.kafka_topic)
    if checkpoint is None:
        raise CheckpointMissing(config.checkpoint_path)
    check_tables_of(spark, config, path, checkpoint, table)
    # A partition that the query does not know yet is read by it from the first record on.
    return {p: (first, max(first, min(end, checkpoint.ends.get(p, 0)))) for p, (first, end) in wanted.items()}


def _describe_times(spark: SparkSession, config: BackfillConfig, topic: Topic, held: PlannedOffsets) -> str:
    times = [t for t in find_timestamps(spark, config, topic, held).values() if t[0] >= 0]
    if not times:
        return "no time, because it has none"
    return f"{format_timestamp(min(t[0] for t in times))} to {format_timestamp(max(t[1] for t in times))}"
