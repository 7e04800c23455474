"""The checks of a start that need neither Kafka nor a session."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from bronze.checkpoint import Checkpoint
from bronze.delta.ledger import TopicLedger
from bronze.delta.tables import CheckedTable
from bronze.errors import DataLossError
from bronze.kafka.topic import Topic
from bronze.offsets import EMPTY, Bounds, OffsetSet
from bronze.pipeline import Pipeline
from bronze.resume import check_end, find_beyond
from bronze.schema import get_bronze_spec

READ_TO_100 = TopicLedger(read=OffsetSet({0: [(0, 99)]}))


@dataclass(frozen=True)
class Ends(Pipeline):
    """A pipeline without tables, which knows what Kafka and the tables would answer."""

    available: Bounds = field(default_factory=dict)
    rows: OffsetSet = EMPTY

    def fetch_available(self) -> Bounds:
        return self.available

    def find_ingested(self, bounds: Bounds) -> OffsetSet:
        return self.rows.clip(bounds)


def check(ledger: TopicLedger, checkpoint: Checkpoint | None, before: Bounds, **answers: Any) -> None:
    """Check a topic that had the offsets before the look-up."""
    bronze = CheckedTable("/b", get_bronze_spec(), None)
    answers = {"available": before} | answers
    check_end(Ends(None, None, Topic("t", "", (0,)), bronze, None, **answers), ledger, checkpoint, before)  # type: ignore[arg-type]


def make_checkpoint(end: int) -> Checkpoint:
    return Checkpoint("query", 0, 0, {0: 0}, {0: end}, {0: end})


@pytest.mark.parametrize("checkpoint", [None, make_checkpoint(50), make_checkpoint(100)])
def test_a_topic_that_ends_before_what_the_tables_have_is_refused_whatever_the_checkpoint_says(checkpoint):
    with pytest.raises(DataLossError, match="t has lost .* partition 0, offsets 80-99"):
        check(READ_TO_100, checkpoint, {0: (0, 80)})


def test_a_topic_that_ends_before_the_checkpoint_is_refused():
    with pytest.raises(DataLossError, match="partition 0, offsets 80-119"):
        check(READ_TO_100, make_checkpoint(120), {0: (0, 80)})


@pytest.mark.parametrize("checkpoint", [None, make_checkpoint(70)])
def test_a_topic_that_ends_before_a_row_that_no_ledger_has_is_refused(checkpoint):
    """The DLQ has a batch that bronze does not have: a crash between the two commits."""
    with pytest.raises(DataLossError, match="partition 0, offsets 80-82"):
        check(TopicLedger(), checkpoint, {0: (0, 80)}, rows=OffsetSet({0: [(70, 82)]}))


def test_a_topic_that_lost_a_partition_is_refused():
    with pytest.raises(DataLossError, match="partition 0, offsets 0-99"):
        check(READ_TO_100, None, {1: (0, 500)})


def test_a_topic_that_goes_on_is_accepted():
    check(READ_TO_100, make_checkpoint(50), {0: (0, 100)}, rows=OffsetSet({0: [(0, 99)]}))


def test_a_row_that_another_process_appends_meanwhile_is_accepted():
    check(READ_TO_100, None, {0: (0, 100)}, rows=OffsetSet({0: [(100, 104)]}), available={0: (0, 105)})


def test_only_what_lies_at_or_beyond_the_end_is_beyond():
    read = OffsetSet({0: [(0, 9)], 1: [(5, 7), (9, 12)], 2: [(0, 0)]})
    assert find_beyond(read, {0: (3, 10), 1: (0, 10)}) == {1: [(10, 12)], 2: [(0, 0)]}
