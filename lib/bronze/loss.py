"""Records that Kafka deleted before they were read: found, and noted in bronze where such a loss is accepted.

The note is a table property, so that the audit can explain the gap long after the log line is gone.
"""

import json
import logging
from collections.abc import Callable

from pyspark.sql import SparkSession

from bronze.offsets import OffsetRanges, PlannedOffsets, describe_ranges, merge_ranges, subtract_ranges
from bronze.schema import set_properties_statement
from bronze.tables import OWN_PROPERTIES, TableState, read_table_state

log = logging.getLogger(__name__)


def find_lost(
    planned: PlannedOffsets, held: PlannedOffsets, find_present: Callable[[PlannedOffsets], OffsetRanges]
) -> OffsetRanges:
    """The planned offsets that are below Kafka's earliest, and in no table.

    Args:
        planned: What was to be read.
        held: What Kafka holds.
        find_present: Looks up which offsets are in the tables; asked only where Kafka has deleted some.
    """
    behind = {
        p: (first, min(end, held[p][0]))
        for p, (first, end) in sorted(planned.items())
        if first < held.get(p, (0, 0))[0]
    }
    present = find_present(behind) if behind else {}
    lost = {p: subtract_ranges([(first, end - 1)], present.get(p, [])) for p, (first, end) in behind.items()}
    return {p: ranges for p, ranges in lost.items() if ranges}


def describe_lost(lost: OffsetRanges) -> str:
    """Lost offsets in one line."""
    return "; ".join(f"partition {p}, offsets {describe_ranges(ranges)}" for p, ranges in lost.items())


def read_accepted(state: TableState, topic: str) -> OffsetRanges:
    """The offsets of a topic whose loss was accepted, as bronze notes it."""
    noted = json.loads(state.properties.get(_property(topic), "{}"))
    return {int(partition): [(first, last) for first, last in ranges] for partition, ranges in noted.items()}


def note_accepted(spark: SparkSession, path: str, topic: str, lost: OffsetRanges) -> None:
    """Add lost offsets to what bronze notes; nothing is written where it has them."""
    state = read_table_state(path, "output-path", spark)
    assert state is not None
    known = read_accepted(state, topic)
    merged = {p: merge_ranges(known.get(p, []), lost.get(p, [])) for p in sorted({*known, *lost})}
    if merged != known:
        log.warning("Warning: data loss is accepted, Kafka no longer has %s", describe_lost(lost))
        spark.sql(set_properties_statement(path, {_property(topic): json.dumps(merged)}))


def _property(topic: str) -> str:
    return f"{OWN_PROPERTIES}lostOffsets.{topic}"
