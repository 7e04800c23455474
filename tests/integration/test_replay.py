"""A batch that Spark runs again, after whatever crash, neither loses nor doubles a record."""

import random
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import functions as F

from bronze import spark_writer
from bronze.batch import BatchProcessor, select_records
from bronze.checkpoint import read_planned_offsets
from bronze.commit import DirectWriter, TableLog
from bronze.config import IngestConfig
from bronze.errors import QueryFailed
from bronze.kafka import Topic as KafkaTopic
from bronze.kafka_errors import DataLoss
from bronze.positions import find_present
from bronze.prepare import TableGuard
from bronze.spark_writer import SparkWriter
from bronze.storage_errors import (
    AppendConflict,
    CheckpointOfOtherTables,
    CheckpointOfOtherTopic,
    CheckpointUnreadable,
    DlqMissing,
    TableChanged,
    TopicTruncated,
)
from bronze.writer import BatchTask
from sandbox.events import generate_events
from tests.conftest import ROOT, Lake, Topic, make_events
from tests.integration.test_configuration import delete_records
from tests.integration.test_ingestion import BAD, START


def forget_commits(lake: Lake, batch_id: int) -> None:
    """Leave the checkpoint as a crash before Spark's own commit of the batch leaves it."""
    for name in (str(batch_id), f".{batch_id}.crc"):
        Path(lake.config.checkpoint_path, "commits", name).unlink(missing_ok=True)


def test_a_crash_after_both_commits_doubles_nothing(topic: Topic, any_lake: Lake):
    topic.produce(make_events(20) + BAD)
    any_lake.ingest()
    forget_commits(any_lake, 0)
    assert any_lake.ingest().present == 28
    assert len(any_lake.positions()) == len(set(any_lake.positions())) == 28


def test_a_crash_between_the_two_commits_loses_nothing(topic: Topic, any_lake: Lake, monkeypatch: pytest.MonkeyPatch):
    topic.produce(make_events(20) + BAD)
    with monkeypatch.context() as broken:
        break_bronze_commit(broken)
        with pytest.raises(QueryFailed, match="power cut"):
            any_lake.ingest()
    assert (any_lake.dlq.count(), any_lake.bronze.count()) == (8, 0)
    any_lake.ingest()
    assert len(any_lake.positions()) == len(set(any_lake.positions())) == 28


def break_bronze_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let either writer fail after the DLQ was committed and before bronze is."""

    def fail_on_bronze(original):
        def commit(*arguments, **named):
            if any("bronze" in str(getattr(a, "path", a)) for a in arguments if not hasattr(a, "schema")):
                raise OSError("power cut")
            return original(*arguments, **named)

        return commit

    monkeypatch.setattr(TableLog, "commit", fail_on_bronze(TableLog.commit))
    monkeypatch.setattr(spark_writer, "_append_rows", fail_on_bronze(spark_writer._append_rows))


def test_a_lost_checkpoint_beside_a_half_committed_batch_loses_nothing(
    topic: Topic, any_lake: Lake, monkeypatch: pytest.MonkeyPatch
):
    topic.produce(make_events(20) + BAD)
    with monkeypatch.context() as broken:
        break_bronze_commit(broken)
        with pytest.raises(QueryFailed):
            any_lake.ingest()
    shutil.rmtree(any_lake.config.checkpoint_path)
    any_lake.ingest()
    assert len(any_lake.positions()) == len(set(any_lake.positions())) == 28


def test_a_lost_checkpoint_doubles_nothing_in_any_of_many_batches(topic: Topic, any_lake: Lake):
    for partition in range(3):
        topic.produce(make_events(20) + BAD, partition)
    any_lake.ingest()
    topic.produce(make_events(10, first=20))
    shutil.rmtree(any_lake.config.checkpoint_path)
    summary = any_lake.ingest(max_offsets_per_trigger=12)
    assert (summary.present, summary.valid) == (84, 10)
    assert len(any_lake.positions()) == len(set(any_lake.positions())) == 94


def test_a_checkpoint_restored_from_a_backup_loses_and_doubles_nothing(topic: Topic, any_lake: Lake, tmp_path: Path):
    topic.produce(make_events(40))
    shutil.copytree(start_checkpoint(any_lake), tmp_path / "backup")
    any_lake.ingest(max_offsets_per_trigger=10)
    shutil.rmtree(any_lake.config.checkpoint_path)
    shutil.copytree(tmp_path / "backup", any_lake.config.checkpoint_path)
    topic.produce(make_events(20, first=40))
    any_lake.ingest()
    assert len(any_lake.positions()) == len(set(any_lake.positions())) == 60


def start_checkpoint(lake: Lake) -> str:
    """Run one small batch, so that a checkpoint is there to be copied."""
    lake.ingest(max_offsets_per_trigger=10)
    for batch in range(1, 20):
        forget_commits(lake, batch)
        for name in (str(batch), f".{batch}.crc"):
            Path(lake.config.checkpoint_path, "offsets", name).unlink(missing_ok=True)
    return lake.config.checkpoint_path


def test_a_checkpoint_without_its_table_is_refused(topic: Topic, lake: Lake):
    topic.produce(make_events(5))
    lake.ingest()
    shutil.rmtree(lake.config.output_path)
    with pytest.raises(CheckpointOfOtherTables, match="there is no table"):
        lake.ingest()
    assert not Path(lake.config.output_path).exists()


def test_a_checkpoint_of_another_table_is_refused(topic: Topic, lake: Lake, tmp_path: Path):
    topic.produce(make_events(5))
    lake.ingest()
    lake.ingest(output_path=str(tmp_path / "other"), dlq_path="", checkpoint_path=str(tmp_path / "other-checkpoint"))
    with pytest.raises(CheckpointOfOtherTables, match=r"records went into file:.*/bronze, table id"):
        lake.ingest(output_path=str(tmp_path / "other"))


def test_a_dlq_that_was_deleted_is_not_made_anew_under_its_checkpoint(topic: Topic, lake: Lake):
    topic.produce(make_events(5) + BAD)
    lake.ingest()
    shutil.rmtree(lake.config.dlq_path)
    with pytest.raises(DlqMissing, match="will not read its records again"):
        lake.ingest()
    shutil.rmtree(lake.config.checkpoint_path)
    lake.ingest()
    assert lake.dlq.count() == len(BAD)


def test_tables_that_lack_the_last_batch_are_warned_of(topic: Topic, lake: Lake, bronze_log: pytest.LogCaptureFixture):
    topic.produce(make_events(5))
    lake.ingest()
    lake.spark.sql(f"RESTORE TABLE delta.`{lake.config.output_path}` TO VERSION AS OF 0")
    lake.ingest()
    assert any("the tables have nothing of batch 0" in message for message in bronze_log.messages)


def test_a_lost_checkpoint_does_not_hide_what_kafka_deleted(topic: Topic, lake: Lake, bronze_log):
    topic.produce(make_events(10), partition=1)
    lake.ingest()
    topic.produce(make_events(10), partition=1)
    delete_records(topic, 1, before=15)
    shutil.rmtree(lake.config.checkpoint_path)
    with pytest.raises(DataLoss, match="partition 1, offsets 10-14"):
        lake.ingest()
    lake.ingest(starting_offsets=f'{{"{topic.name}": {{"0": 0, "1": 17, "2": 0}}}}', fail_on_data_loss=False)
    assert any("leaves out partition 1, offsets 15-16" in message for message in bronze_log.messages)


def test_a_table_dropped_and_recreated_under_its_checkpoint_is_refused(topic: Topic, lake: Lake, tmp_path: Path):
    topic.produce(make_events(5))
    lake.ingest()
    shutil.rmtree(lake.config.output_path)
    lake.ingest(checkpoint_path=str(tmp_path / "other-checkpoint"))
    with pytest.raises(CheckpointOfOtherTables, match="not into the table at"):
        lake.ingest()


def test_a_checkpoint_of_another_topic_is_refused(topic: Topic, make_topic, lake: Lake):
    lake.ingest()
    with pytest.raises(CheckpointOfOtherTopic, match=f"has the offsets of {topic.name}, not of"):
        lake.ingest(kafka_topic=make_topic().name)


def test_a_truncated_checkpoint_is_refused_by_the_name_of_its_file(topic: Topic, lake: Lake):
    topic.produce(make_events(5))
    lake.ingest()
    Path(lake.config.checkpoint_path, "offsets", "0").write_text("v1\n")
    with pytest.raises(CheckpointUnreadable, match="offsets/0 is damaged"):
        lake.ingest()
    Path(lake.config.checkpoint_path, "offsets", ".0.crc").unlink()
    with pytest.raises(CheckpointUnreadable, match="offsets/0 is damaged"):
        lake.ingest()


def test_a_dlq_that_is_no_longer_given_still_counts(
    topic: Topic, any_lake: Lake, monkeypatch: pytest.MonkeyPatch, bronze_log: pytest.LogCaptureFixture
):
    topic.produce(make_events(20) + BAD)
    with monkeypatch.context() as broken:
        break_bronze_commit(broken)
        with pytest.raises(QueryFailed):
            any_lake.ingest()
    any_lake.ingest(dlq_path="")
    assert len(any_lake.positions()) == len(set(any_lake.positions())) == 28
    assert any(
        "went to the DLQ" in message and "what it holds is left out" in message for message in bronze_log.messages
    )


def test_planned_offsets_are_those_of_the_batch(topic: Topic, lake: Lake):
    for partition in range(3):
        topic.produce(make_events(4), partition)
    lake.ingest(max_offsets_per_trigger=6)
    read = [read_planned_offsets(lake.spark, lake.config.checkpoint_path, batch, topic.name) for batch in (0, 1)]
    assert read == [dict.fromkeys(range(3), (0, 2)), dict.fromkeys(range(3), (2, 4))]


def test_present_offsets_are_merged_into_ranges(topic: Topic, lake: Lake):
    topic.produce(make_events(5) + [b"{"] + make_events(2), partition=0)
    topic.produce(make_events(3), partition=2)
    lake.ingest()
    tables = [lake.config.output_path, lake.config.dlq_path]
    assert find_present(lake.spark, tables, topic.name, {0: (2, 50), 1: (0, 9), 2: (0, 2)}) == {
        0: [(2, 7)],
        1: [],
        2: [(0, 1)],
    }
    assert find_present(lake.spark, tables, "another", {0: (0, 50)}) == {0: []}
    assert find_present(lake.spark, tables, topic.name, {0: (8, 50), 1: (5, 5)}) == {0: [], 1: []}


def read_batch(lake: Lake, topic: Topic):
    options = {"kafka.bootstrap.servers": topic.brokers, "subscribe": topic.name}
    return lake.spark.read.format("kafka").options(**options).load().transform(select_records)


def make_task(lake: Lake, batch_id: int = 0) -> BatchTask:
    return BatchTask(batch_id, int(time.time() * 1000) * 1000, lake.config.output_path, lake.config.dlq_path)


def test_a_topic_that_ends_before_what_was_read_ends_the_run(lake: Lake):
    guard = TableGuard(lake.spark, lake.config, [], KafkaTopic("t", "", ()), "")
    processor = BatchProcessor(None, guard, "bronze")
    with pytest.raises(TopicTruncated, match="partition 3 ends at 50, but was read to 100"):
        processor._find_overlap({3: (100, 50)})


@pytest.mark.parametrize("make_writer", [DirectWriter, SparkWriter])
def test_an_append_of_the_other_writer_is_noticed(topic: Topic, lake: Lake, make_writer):
    lake.ingest()
    topic.produce(make_events(5))
    tables = [lake.config.output_path, lake.config.dlq_path]
    ours, theirs = make_writer(*tables), (SparkWriter if make_writer is DirectWriter else DirectWriter)(*tables)
    ours.has_changed()
    assert not ours.has_changed()
    theirs.append(read_batch(lake, topic), make_task(lake), "other", dict)
    assert ours.has_changed()


@pytest.mark.parametrize("make_writer", [DirectWriter, SparkWriter])
def test_a_column_that_is_added_under_a_writer_ends_the_run(lake: Lake, make_writer):
    lake.ingest()
    writer = make_writer(lake.config.output_path, lake.config.dlq_path)
    writer.has_changed()
    lake.spark.sql(f"ALTER TABLE delta.`{lake.config.output_path}` ADD COLUMN more INT")
    with pytest.raises(TableChanged, match="checked anew"):
        writer.has_changed()


def test_a_batch_that_is_invalid_throughout_is_noticed_by_a_writer_without_its_dlq(topic: Topic, lake: Lake):
    lake.ingest()
    topic.produce(BAD)
    without, ours = DirectWriter(lake.config.output_path), DirectWriter(lake.config.output_path, lake.config.dlq_path)
    ours.append(read_batch(lake, topic), make_task(lake), "ours", dict)
    assert lake.dlq.count() == len(BAD)
    assert without.has_changed()


def test_two_writers_of_the_same_records_write_them_once(topic: Topic, lake: Lake):
    lake.ingest()  # makes the tables
    topic.produce(make_events(20) + BAD, partition=0)
    first, second = (DirectWriter(lake.config.output_path, lake.config.dlq_path) for _ in range(2))

    def look_up():
        tables = [lake.config.output_path, lake.config.dlq_path]
        return find_present(lake.spark, tables, topic.name, {0: (0, 28)})

    for number, writer in enumerate((first, second)):
        writer.append(read_batch(lake, topic), make_task(lake), f"app-{number}", look_up)
    assert len(lake.positions()) == len(set(lake.positions())) == 28


def test_an_append_of_another_application_is_noticed(topic: Topic, lake: Lake):
    lake.ingest()
    topic.produce(make_events(5))
    ours, theirs = (DirectWriter(lake.config.output_path, lake.config.dlq_path) for _ in range(2))
    theirs.append(read_batch(lake, topic), make_task(lake), "other", dict)
    assert ours.has_changed()
    assert not ours.has_changed()
    assert not theirs.has_changed()


@pytest.mark.parametrize("make_writer", [DirectWriter, SparkWriter])
def test_a_batch_that_another_process_on_the_checkpoint_wrote_is_left_out(topic: Topic, lake: Lake, make_writer):
    """Both looked before either wrote; the second finds the batch's number in the tables."""
    lake.ingest()
    topic.produce(make_events(20) + BAD, partition=0)
    tables = [lake.config.output_path, lake.config.dlq_path]
    first, second = (make_writer(*tables) for _ in range(2))
    for writer in (first, second):
        look_up = partial(find_present, lake.spark, tables, topic.name, {0: (0, 28)})
        writer.append(read_batch(lake, topic), make_task(lake, batch_id=7), "query", look_up)
    assert len(lake.positions()) == len(set(lake.positions())) == 28


def test_counts_after_a_lost_race_are_those_of_what_was_committed(topic: Topic, lake: Lake):
    lake.ingest()
    topic.produce(make_events(20) + BAD, partition=0)
    loser, winner = (DirectWriter(lake.config.output_path, lake.config.dlq_path) for _ in range(2))
    tables = [lake.config.output_path, lake.config.dlq_path]
    winner.append(read_batch(lake, topic).where("offset < 25"), make_task(lake), "winner", dict)
    look_up = partial(find_present, lake.spark, tables, topic.name, {0: (0, 28)})
    result = loser.append(read_batch(lake, topic), make_task(lake), "loser", look_up)
    assert (result.total, result.valid, sum(result.invalid.values()), result.present) == (28, 0, 3, 25)


def test_a_commit_that_lost_the_race_is_written_again_without_what_the_winner_wrote(
    topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch
):
    """The version check passes, then another commits: only Delta's own conflict of the transactions is left."""
    lake.ingest()
    topic.produce(make_events(20) + BAD, partition=0)
    loser, winner = (DirectWriter(lake.config.output_path, lake.config.dlq_path) for _ in range(2))
    winner.append(read_batch(lake, topic), make_task(lake), "winner", dict)
    tables = [lake.config.output_path, lake.config.dlq_path]
    original, has_lost = TableLog._read_version, []
    monkeypatch.setattr(TableLog, "_read_version", lambda log: original(log) if has_lost else 0)

    def look_up():
        has_lost.append(True)
        return find_present(lake.spark, tables, topic.name, {0: (0, 28)})

    loser.append(read_batch(lake, topic), make_task(lake), "loser", look_up)
    assert has_lost
    assert len(lake.positions()) == len(set(lake.positions())) == 28


@pytest.mark.parametrize("make_writer", [DirectWriter, SparkWriter])
def test_an_append_to_a_table_that_was_dropped_meanwhile_makes_none_anew(topic: Topic, lake: Lake, make_writer):
    lake.ingest()
    topic.produce(make_events(5))
    writer, table = make_writer(lake.config.output_path), Path(lake.config.output_path)
    with pytest.raises(TableChanged, match="bronze was altered, replaced or deleted"):
        writer.append(read_batch(lake, topic), make_task(lake), "app", dict, lambda: table.rename(f"{table}-dropped"))
    assert not table.exists()


def test_a_writer_that_always_comes_second_gives_up(topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch):
    lake.ingest()
    topic.produce(make_events(5))
    writer = DirectWriter(lake.config.output_path)
    monkeypatch.setattr("bronze.commit.time.sleep", lambda seconds: None)
    monkeypatch.setattr(TableLog, "has_changed", lambda log: setattr(log, "_seen", -1) or False)
    writer.has_changed()
    with pytest.raises(AppendConflict, match="5 attempts"):
        writer.append(read_batch(lake, topic), make_task(lake), "app", dict)
    assert lake.bronze.count() == 0


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


@pytest.mark.parametrize("writer", ["direct", "delta-spark"])
def test_kill_9_at_any_moment_loses_and_doubles_nothing(topic: Topic, lake: Lake, writer: str):
    topic.produce([record.value for record in generate_events(6_000, 5, START, invalid_ratio=0.05)])
    command = list_flags(lake.config, writer)
    chance = random.Random(7)
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for_tables(lake)
        time.sleep(chance.uniform(0.5, 6))
        process.send_signal(signal.SIGKILL)
        process.wait()
    lake.ingest(writer=writer)
    assert len(lake.positions()) == len(set(lake.positions())) == 6_000
    counted = lake.dlq.groupBy("_error_type").agg(F.count("*"))
    assert sum(row[1] for row in counted.collect()) == 300


def list_flags(config: IngestConfig, writer: str) -> list[str]:
    names = ("kafka_brokers", "kafka_topic", "checkpoint_path", "output_path", "dlq_path")
    flags = [word for name in names for word in ("--" + name.replace("_", "-"), getattr(config, name))]
    extra = ["--max-offsets-per-trigger", "400", "--available-now", "--writer", writer]
    return [sys.executable, "-m", "bronze.cli", "ingest", *flags, *extra]


def wait_for_tables(lake: Lake, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not DeltaTable.is_deltatable(lake.config.dlq_path):
        assert time.monotonic() < end, "the ingestion made no tables"
        time.sleep(0.1)


def test_a_stream_in_intervals_goes_on_until_it_is_interrupted(topic: Topic, lake: Lake):
    topic.produce(make_events(30))
    flags = [flag for flag in list_flags(lake.config, "direct") if flag != "--available-now"]
    command = [*flags, "--trigger-interval", "1 second", "--with-metrics"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        wait_for_rows(lake, 30)
        topic.produce(make_events(20, first=30))
        wait_for_rows(lake, 50)
        process.send_signal(signal.SIGINT)
        printed, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Stopping, asked by SIGINT" in log
    assert re.search(r"50 records in \d+ batches: 50 valid, 0 invalid", printed)
    assert lake.ingest().total == 0


def wait_for_rows(lake: Lake, rows: int, seconds: float = 90) -> None:
    wait_for_tables(lake)
    end = time.monotonic() + seconds
    while DeltaTable(lake.config.output_path).count() < rows:
        assert time.monotonic() < end, f"fewer than {rows} rows"
        time.sleep(0.2)
