"""What a writer appends, and what it does if others append to or alter the tables at the same time."""

import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from bronze.batch import append_batch
from bronze.checkpoint import CheckpointFolder
from bronze.delta.commit import Source
from bronze.delta.lookup import Lookup
from bronze.delta.own_table import ConflictError, OwnTable, TableLog
from bronze.delta.positions import find_ingested
from bronze.errors import AppendConflictError, BronzeError, DataLossError
from bronze.guard import OverlapGuard
from bronze.offsets import OffsetSet
from bronze.storage import Storage
from bronze.tasks import BatchTask
from bronze.writers import DirectWriter, SparkWriter
from tests.support.events import BAD, make_events
from tests.support.lake import Lake, with_both
from tests.support.topic import Topic


def test_planned_offsets_are_those_of_the_batch(topic: Topic, lake: Lake):
    for partition in range(3):
        topic.produce(make_events(4), partition)
    lake.ingest(max_offsets_per_trigger=6)
    folder = CheckpointFolder(lake.spark, lake.config.checkpoint_path, topic.name)
    read = [folder.read_batch_range(batch) for batch in (0, 1)]
    assert read == [dict.fromkeys(range(3), (0, 2)), dict.fromkeys(range(3), (2, 4))]


def test_present_offsets_are_merged_into_ranges(topic: Topic, lake: Lake):
    topic.produce(make_events(5) + [b"{"] + make_events(2), partition=0)
    topic.produce(make_events(3), partition=2)
    lake.ingest()
    tables = [lake.config.output_path, lake.config.dlq_path]
    assert find_ingested(lake.spark, tables, topic.name, {0: (2, 50), 1: (0, 9), 2: (0, 2)}) == {
        0: [(2, 7)],
        2: [(0, 1)],
    }
    assert find_ingested(lake.spark, tables, "another", {0: (0, 50)}) == {}
    assert find_ingested(lake.spark, tables, topic.name, {0: (8, 50), 1: (5, 5)}) == {}


def read_batch(lake: Lake, topic: Topic):
    options = {"kafka.bootstrap.servers": topic.brokers, "subscribe": topic.name}
    return lake.spark.read.format("kafka").options(**options).load()


def name_source(lake: Lake, name: str) -> Source:
    return Source("ingest", name, lake.config.kafka_topic, OffsetSet({0: [(0, 27)]}))


def make_task(lake: Lake, batch_id: int = 0) -> BatchTask:
    places = (Storage(lake.config.output_path), Storage(lake.config.dlq_path))
    return BatchTask(batch_id, int(time.time() * 1000) * 1000, *places)


def test_a_topic_that_ends_before_what_was_read_ends_the_run(lake: Lake):
    bounds = {3: (100, 50)}
    reads = {"read_first_offsets": dict, "read_batch_range": lambda _: bounds, "get_planned_range": lambda *_: bounds}
    guard = OverlapGuard(lake.config, SimpleNamespace(**reads), Lookup(lake.spark, [], "t"))
    with pytest.raises(DataLossError, match="has lost its newest records: partition 3, offsets 50-99"):
        guard.plan("query", 0)


@pytest.mark.parametrize("make_writer", [DirectWriter, SparkWriter])
def test_an_append_of_the_other_writer_is_noticed(topic: Topic, lake: Lake, make_writer):
    lake.ingest()
    topic.produce(make_events(5))
    tables = [lake.config.output_path, lake.config.dlq_path]
    ours, theirs = make_writer(*tables), (SparkWriter if make_writer is DirectWriter else DirectWriter)(*tables)
    ours.has_changed()
    assert not ours.has_changed()
    append_batch(theirs, read_batch(lake, topic), make_task(lake), name_source(lake, "other"), OffsetSet)
    assert ours.has_changed()


@pytest.mark.parametrize("make_writer", [DirectWriter, SparkWriter])
def test_a_column_that_is_added_under_a_writer_ends_the_run(lake: Lake, make_writer):
    lake.ingest()
    writer = make_writer(lake.config.output_path, lake.config.dlq_path)
    writer.has_changed()
    lake.spark.sql(f"ALTER TABLE delta.`{lake.config.output_path}` ADD COLUMN more INT")
    with pytest.raises(BronzeError, match="was altered, replaced or deleted .*checks the table again"):
        writer.has_changed()


def test_a_batch_that_is_invalid_throughout_is_noticed_by_a_writer_without_its_dlq(topic: Topic, lake: Lake):
    lake.ingest()
    topic.produce(BAD)
    without, ours = DirectWriter(lake.config.output_path), DirectWriter(lake.config.output_path, lake.config.dlq_path)
    append_batch(ours, read_batch(lake, topic), make_task(lake), name_source(lake, "ours"), OffsetSet)
    assert lake.dlq.count() == len(BAD)
    assert without.has_changed()


BOTH = [DirectWriter, SparkWriter]


@pytest.mark.parametrize("second_writer", BOTH)
@pytest.mark.parametrize("first_writer", BOTH)
def test_two_writers_of_the_same_records_write_them_once(topic: Topic, lake: Lake, first_writer, second_writer):
    """Any two writers: both look up the tables before either one writes."""
    lake.ingest()  # creates the tables
    topic.produce(make_events(20) + BAD, partition=0)
    paths = (lake.config.output_path, lake.config.dlq_path)
    first, second = first_writer(*paths), second_writer(*paths)

    def look_up():
        tables = [lake.config.output_path, lake.config.dlq_path]
        return find_ingested(lake.spark, tables, topic.name, {0: (0, 28)})

    for number, writer in enumerate((first, second)):
        append_batch(writer, read_batch(lake, topic), make_task(lake), name_source(lake, f"app-{number}"), look_up)
    assert len(lake.positions()) == len(set(lake.positions())) == 28


def test_an_append_of_another_application_is_noticed(topic: Topic, lake: Lake):
    lake.ingest()
    topic.produce(make_events(5))
    ours, theirs = (DirectWriter(lake.config.output_path, lake.config.dlq_path) for _ in range(2))
    append_batch(theirs, read_batch(lake, topic), make_task(lake), name_source(lake, "other"), OffsetSet)
    assert ours.has_changed()
    assert not ours.has_changed()
    assert not theirs.has_changed()


@pytest.mark.parametrize("make_writer", [DirectWriter, SparkWriter])
def test_a_batch_that_another_process_on_the_checkpoint_wrote_is_left_out(topic: Topic, lake: Lake, make_writer):
    """Both look up the tables before either one writes; the second finds the batch's number in the tables."""
    lake.ingest()
    topic.produce(make_events(20) + BAD, partition=0)
    tables = [lake.config.output_path, lake.config.dlq_path]
    first, second = (make_writer(*tables) for _ in range(2))
    for writer in (first, second):
        look_up = partial(find_ingested, lake.spark, tables, topic.name, {0: (0, 28)})
        append_batch(writer, read_batch(lake, topic), make_task(lake, batch_id=7), name_source(lake, "query"), look_up)
    assert len(lake.positions()) == len(set(lake.positions())) == 28


def test_counts_after_a_lost_race_are_those_of_what_was_committed(topic: Topic, lake: Lake):
    lake.ingest()
    topic.produce(make_events(20) + BAD, partition=0)
    loser, winner = (DirectWriter(lake.config.output_path, lake.config.dlq_path) for _ in range(2))
    tables = [lake.config.output_path, lake.config.dlq_path]
    append_batch(
        winner, read_batch(lake, topic).where("offset < 25"), make_task(lake), name_source(lake, "winner"), OffsetSet
    )
    look_up = partial(find_ingested, lake.spark, tables, topic.name, {0: (0, 28)})
    result = append_batch(loser, read_batch(lake, topic), make_task(lake), name_source(lake, "loser"), look_up)
    assert (result.total, result.valid, result.invalid, result.present) == (28, 0, 3, 25)


@pytest.mark.parametrize("make_loser", BOTH)
def test_a_commit_that_lost_the_race_is_written_again_without_what_the_winner_wrote(
    topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch, make_loser
):
    """The version check passes, and then another writer commits: only Delta's own transaction conflict remains."""
    lake.ingest()
    topic.produce(make_events(20) + BAD, partition=0)
    paths = (lake.config.output_path, lake.config.dlq_path)
    loser, winner = make_loser(*paths), DirectWriter(*paths)
    append_batch(winner, read_batch(lake, topic), make_task(lake), name_source(lake, "winner"), OffsetSet)
    tables = [lake.config.output_path, lake.config.dlq_path]
    original, has_lost = OwnTable.check_unchanged, []
    monkeypatch.setattr(OwnTable, "check_unchanged", lambda table: original(table) if has_lost else None)

    def look_up():
        has_lost.append(True)
        return find_ingested(lake.spark, tables, topic.name, {0: (0, 28)})

    append_batch(loser, read_batch(lake, topic), make_task(lake), name_source(lake, "loser"), look_up)
    assert has_lost
    assert len(lake.positions()) == len(set(lake.positions())) == 28


@pytest.mark.parametrize("make_writer", [DirectWriter, SparkWriter])
def test_an_append_to_a_table_that_was_dropped_meanwhile_makes_none_anew(topic: Topic, lake: Lake, make_writer):
    lake.ingest()
    topic.produce(make_events(5))
    writer, table = make_writer(lake.config.output_path), Path(lake.config.output_path)
    with pytest.raises(BronzeError, match="bronze was altered, replaced or deleted"):
        append_batch(
            writer,
            read_batch(lake, topic),
            make_task(lake),
            name_source(lake, "app"),
            OffsetSet,
            lambda: table.rename(f"{table}-dropped"),
        )
    assert not table.exists()


def test_a_writer_that_always_comes_second_gives_up(topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch):
    lake.ingest()
    topic.produce(make_events(5))
    writer = DirectWriter(lake.config.output_path)
    monkeypatch.setattr("bronze.runtime.retry.sleep", lambda seconds: None)

    def come_second(table: OwnTable) -> None:
        raise ConflictError(table.path)

    monkeypatch.setattr(OwnTable, "check_unchanged", come_second)
    with pytest.raises(AppendConflictError, match="5 attempts"):
        append_batch(writer, read_batch(lake, topic), make_task(lake), name_source(lake, "app"), OffsetSet)
    assert lake.bronze.count() == 0


@with_both
def test_optimize_and_delete_between_batches_disturb_nothing(topic: Topic, any_lake: Lake):
    topic.produce(make_events(40))
    any_lake.ingest(max_offsets_per_trigger=10)
    any_lake.spark.sql(f"OPTIMIZE delta.`{any_lake.config.output_path}`").collect()
    any_lake.spark.sql(f"DELETE FROM delta.`{any_lake.config.output_path}` WHERE event_id = 'event-3'").collect()
    topic.produce(make_events(10, first=40))
    any_lake.ingest()
    assert any_lake.bronze.count() == 49


def test_an_optimize_between_writing_and_committing_is_no_conflict(topic: Topic, lake: Lake, monkeypatch):
    topic.produce(make_events(10))
    lake.ingest()
    original = TableLog.commit

    def optimize_first(log: TableLog, *arguments):
        lake.spark.sql(f"OPTIMIZE delta.`{lake.config.output_path}`").collect()
        return original(log, *arguments)

    monkeypatch.setattr(TableLog, "commit", optimize_first)
    topic.produce(make_events(10, first=10))
    lake.ingest()
    assert len(lake.positions()) == len(set(lake.positions())) == 20
