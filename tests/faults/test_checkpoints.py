"""Checkpoints that are lost, restored, damaged or foreign, and batches that run again: nothing lost or duplicated."""

import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable

from bronze.batch import BatchProcessor
from bronze.checkpoint import CheckpointFolder
from bronze.cli import main
from bronze.config import CheckpointConfig
from bronze.delta.own_table import OwnTable
from bronze.errors import BronzeError, ConfigError, DataLossError
from tests.support.audit import assert_complete, audit
from tests.support.backfill import run_backfill
from tests.support.commands import list_flags
from tests.support.events import BAD, make_events
from tests.support.lake import Lake, change_path, with_both
from tests.support.topic import Topic, delete_records
from tests.support.waiting import run_twice_at_once


def forget_commits(lake: Lake, batch_id: int) -> None:
    """Put the checkpoint into the state after a crash just before Spark's own commit of the batch."""
    for name in (str(batch_id), f".{batch_id}.crc"):
        Path(lake.config.checkpoint_path, "commits", name).unlink(missing_ok=True)


def test_a_crash_after_both_commits_doubles_nothing(topic: Topic, any_lake: Lake):
    topic.produce(make_events(20) + BAD)
    any_lake.ingest()
    forget_commits(any_lake, 0)
    assert any_lake.ingest().counts.present == 28
    assert len(any_lake.positions()) == len(set(any_lake.positions())) == 28


@with_both
def test_a_crash_between_the_two_commits_loses_nothing(topic: Topic, any_lake: Lake, monkeypatch: pytest.MonkeyPatch):
    topic.produce(make_events(20) + BAD)
    with monkeypatch.context() as broken:
        break_bronze_commit(broken)
        with pytest.raises(BronzeError, match="^failed: .*power cut"):
            any_lake.ingest()
    assert (any_lake.dlq.count(), any_lake.bronze.count()) == (8, 0)
    any_lake.ingest()
    assert len(any_lake.positions()) == len(set(any_lake.positions())) == 28


def break_bronze_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make either writer fail after the commit to the DLQ and before the commit to bronze."""
    original = OwnTable.commit

    def commit(table: OwnTable, rows, note):
        if rows is not None and table.path.endswith("bronze"):
            raise OSError("power cut")
        original(table, rows, note)

    monkeypatch.setattr(OwnTable, "commit", commit)


def test_a_lost_checkpoint_beside_a_half_committed_batch_loses_nothing(
    topic: Topic, any_lake: Lake, monkeypatch: pytest.MonkeyPatch
):
    topic.produce(make_events(20) + BAD)
    with monkeypatch.context() as broken:
        break_bronze_commit(broken)
        with pytest.raises(BronzeError, match="^failed: "):
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
    assert (summary.counts.present, summary.counts.valid) == (84, 10)
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
    """Run one small batch, so that there is a checkpoint to copy."""
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
    with pytest.raises(ConfigError, match="for another bronze table"):
        lake.ingest()
    with pytest.raises(ConfigError, match="not into the table at .*there is no table"):
        lake.ingest(change_dlq=True)
    assert not Path(lake.config.output_path).exists()


def test_a_checkpoint_of_another_table_is_refused(topic: Topic, lake: Lake, tmp_path: Path):
    topic.produce(make_events(5))
    lake.ingest()
    lake.ingest(output_path=str(tmp_path / "other"), dlq_path="", checkpoint_path=str(tmp_path / "other-checkpoint"))
    with pytest.raises(ConfigError, match=r"into the table at .*records went into file:.*/bronze, table id"):
        lake.ingest(output_path=str(tmp_path / "other"), dlq_path="")


def test_a_dlq_that_was_deleted_is_not_made_anew_under_its_checkpoint(topic: Topic, lake: Lake):
    topic.produce(make_events(5) + BAD)
    lake.ingest()
    shutil.rmtree(lake.config.dlq_path)
    for change_dlq in (False, True):  # with the old checkpoint, its records would not be read again
        with pytest.raises(
            ConfigError, match="is missing, and the invalid records .*--change-dlq with a new --checkpoint-path"
        ):
            lake.ingest(change_dlq=change_dlq)
    shutil.rmtree(lake.config.checkpoint_path)
    with pytest.raises(ConfigError, match="is missing, and the invalid records"):
        lake.ingest()
    assert not Path(lake.config.dlq_path).exists()
    lake.ingest(change_dlq=True)
    assert_complete(lake, 5 + len(BAD))


def test_tables_that_lack_the_last_batch_are_warned_of(topic: Topic, lake: Lake, bronze_log: pytest.LogCaptureFixture):
    topic.produce(make_events(5))
    lake.ingest()
    lake.spark.sql(f"RESTORE TABLE delta.`{lake.config.output_path}` TO VERSION AS OF 0")
    lake.ingest()
    assert any("the tables lack records that were committed" in message for message in bronze_log.messages)
    run_backfill(lake)  # as the manual says
    assert_complete(lake, 5)


def test_a_lost_checkpoint_does_not_hide_what_kafka_deleted(topic: Topic, lake: Lake, bronze_log):
    topic.produce(make_events(10), partition=1)
    lake.ingest()
    topic.produce(make_events(10), partition=1)
    delete_records(topic, 1, before=15)
    shutil.rmtree(lake.config.checkpoint_path)
    with pytest.raises(DataLossError, match="records before they were read: partition 1, offsets 10-14"):
        lake.ingest()
    lake.ingest(starting_offsets=f'{{"{topic.name}": {{"0": 0, "1": 17, "2": 0}}}}', fail_on_data_loss=False)
    assert any("skips partition 1, offsets 15-16" in message for message in bronze_log.messages)
    assert lake.positions() == [(1, offset) for offset in (*range(10), 17, 18, 19)]


def test_a_hole_below_the_tables_last_rows_is_named_too(topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch):
    """A half-committed batch: its last record is in the DLQ, the others are in no table."""
    topic.produce(make_events(10), partition=1)
    lake.ingest()
    topic.produce([*make_events(9), b"broken"], partition=1)
    with monkeypatch.context() as broken:
        break_bronze_commit(broken)
        with pytest.raises(BronzeError, match="^failed: "):
            lake.ingest()
    delete_records(topic, 1, before=15)
    assert_hole_is_named(lake, "10-14")
    assert lake.positions() == [(1, offset) for offset in (*range(10), *range(15, 20))]


def test_a_hole_below_a_backfill_is_named_too(topic: Topic, lake: Lake):
    topic.produce(make_events(10), partition=1)
    lake.ingest()
    topic.produce(make_events(20), partition=1)
    run_backfill(lake, starting_offsets=f'{{"{topic.name}": {{"1": 20}}}}')
    delete_records(topic, 1, before=15)
    assert_hole_is_named(lake, "10-14")


def assert_hole_is_named(lake: Lake, offsets: str) -> None:
    """Each start names the hole, with the checkpoint or without, and so does the audit, until the loss is accepted."""
    assert "never read, and deleted in Kafka" in audit(lake).to_text()
    for is_lost in (False, True):
        if is_lost:
            shutil.rmtree(lake.config.checkpoint_path)
        with pytest.raises(DataLossError, match=f"records before they were read: .*partition 1, offsets {offsets}"):
            lake.ingest()
    report = audit(lake, checkpoint_path="")
    assert not report.is_complete
    assert "never read, and deleted in Kafka" in report.to_text()
    lake.ingest(fail_on_data_loss=False)
    assert audit(lake).is_complete
    lake.ingest()


@pytest.mark.parametrize("name", ["output_path", "dlq_path"])
def test_a_table_that_is_restored_is_warned_of_by_itself(
    topic: Topic, lake: Lake, name: str, bronze_log, capsys: pytest.CaptureFixture[str]
):
    """The other table keeps its rows of the batch."""
    topic.produce([*make_events(5), b"broken"], partition=0)
    lake.ingest()
    lake.spark.sql(f"RESTORE TABLE delta.`{getattr(lake.config, name)}` TO VERSION AS OF 0")
    assert main(["checkpoint", *list_flags(lake.configure(CheckpointConfig))]) == 2
    assert "the tables lack records that were committed" in capsys.readouterr().out
    lake.ingest()
    assert any("the tables lack records that were committed" in message for message in bronze_log.messages)
    run_backfill(lake)
    assert main(["checkpoint", *list_flags(lake.configure(CheckpointConfig))]) == 0
    assert_complete(lake, 6)


def test_a_restore_to_before_a_backfill_is_warned_of(topic: Topic, lake: Lake, bronze_log):
    """The last batch of the stream is still in the tables."""
    topic.produce(make_events(10), partition=0)
    lake.ingest(starting_offsets=f'{{"{topic.name}": {{"0": 5, "1": 0, "2": 0}}}}')
    version = DeltaTable(lake.config.output_path).version()
    run_backfill(lake)
    lake.spark.sql(f"RESTORE TABLE delta.`{lake.config.output_path}` TO VERSION AS OF {version}")
    lake.ingest()
    assert any("of partition 0, offsets 0-4;" in message for message in bronze_log.messages)


def test_a_bronze_from_a_backup_is_warned_of(topic: Topic, lake: Lake, tmp_path: Path, bronze_log):
    """The log of the backup does not have the last batch."""
    topic.produce(make_events(5), partition=0)
    lake.ingest()
    shutil.copytree(lake.config.output_path, tmp_path / "backup")
    topic.produce([*make_events(5), b"broken"], partition=0)
    lake.ingest()
    shutil.rmtree(lake.config.output_path)
    shutil.copytree(tmp_path / "backup", lake.config.output_path)
    lake.ingest()
    assert any("of partition 0, offsets 5-9;" in message for message in bronze_log.messages)
    run_backfill(lake)
    assert_complete(lake, 11)


def test_a_bronze_from_a_backup_is_warned_of_where_the_dlq_has_the_last_batch(
    topic: Topic, lake: Lake, tmp_path: Path, bronze_log
):
    topic.produce(make_events(5), partition=0)
    lake.ingest()
    shutil.copytree(lake.config.output_path, tmp_path / "backup")
    for values in (make_events(5), [b"broken"]):
        topic.produce(values, partition=0)
        lake.ingest()
    shutil.rmtree(lake.config.output_path)
    shutil.copytree(tmp_path / "backup", lake.config.output_path)
    lake.ingest()
    assert any("of partition 0, offsets 5-9;" in message for message in bronze_log.messages)


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_a_checkpoint_that_is_deleted_or_replaced_under_a_stream_loses_nothing_and_is_said(
    topic: Topic, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
):
    """Replace the checkpoint with its own backup from some batches ago."""
    topic.produce(make_events(40), partition=0)
    shutil.copytree(start_checkpoint(lake), tmp_path / "backup")
    original = BatchProcessor._process

    def process(processor: BatchProcessor, batch, batch_id: int) -> None:
        original(processor, batch, batch_id)
        if batch_id == 2:
            shutil.rmtree(lake.config.checkpoint_path)
            if change == "replaced":
                shutil.copytree(tmp_path / "backup", lake.config.checkpoint_path)

    with monkeypatch.context() as patch:
        patch.setattr(BatchProcessor, "_process", process)
        with pytest.raises(BronzeError, match=str(lake.config.checkpoint_path)):
            lake.ingest(max_offsets_per_trigger=10)
    shutil.rmtree(lake.config.checkpoint_path, ignore_errors=True)
    lake.ingest()
    assert_complete(lake, 40)


def test_offsets_that_another_process_replaces_before_their_batch_begins_are_not_noted_as_read(
    topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch
):
    topic.produce(make_events(40), partition=0)
    original = BatchProcessor._process

    def process(processor: BatchProcessor, batch, batch_id: int) -> None:
        if batch_id == 1:
            offsets = Path(lake.config.checkpoint_path, "offsets", "1")
            offsets.with_name(".1.crc").unlink()
            offsets.write_text(offsets.read_text().replace('{"0":20,', '{"0":30,'))
        original(processor, batch, batch_id)

    with monkeypatch.context() as patch:
        patch.setattr(BatchProcessor, "_process", process)
        with pytest.raises(BronzeError, match="^another process uses the checkpoint .* or it was deleted or replaced"):
            lake.ingest(max_offsets_per_trigger=10)
    assert lake.positions() == [(0, offset) for offset in range(10)]
    lake.ingest()
    assert_complete(lake, 40)


def test_a_table_dropped_and_recreated_under_its_checkpoint_is_refused(topic: Topic, lake: Lake, tmp_path: Path):
    topic.produce(make_events(5))
    lake.ingest()
    shutil.rmtree(lake.config.output_path)
    lake.ingest(checkpoint_path=str(tmp_path / "other-checkpoint"), change_dlq=True)
    with pytest.raises(ConfigError, match="not into the table at"):
        lake.ingest()


def test_a_checkpoint_of_another_topic_is_refused(topic: Topic, make_topic, lake: Lake):
    lake.ingest()
    with pytest.raises(ConfigError, match=f"has the offsets of {topic.name}, not of"):
        lake.ingest(kafka_topic=make_topic().name)


def test_a_truncated_checkpoint_is_refused_by_the_name_of_its_file(topic: Topic, lake: Lake):
    topic.produce(make_events(5))
    lake.ingest()
    Path(lake.config.checkpoint_path, "offsets", "0").write_text("v1\n")
    with pytest.raises(ConfigError, match="offsets/0 is damaged.*, so the checkpoint does not say where to continue"):
        lake.ingest()
    Path(lake.config.checkpoint_path, "offsets", ".0.crc").unlink()
    with pytest.raises(ConfigError, match="offsets/0 is damaged.*, so the checkpoint does not say where to continue"):
        lake.ingest()


def test_a_dlq_that_is_no_longer_given_still_counts(
    topic: Topic, any_lake: Lake, monkeypatch: pytest.MonkeyPatch, bronze_log: pytest.LogCaptureFixture
):
    topic.produce(make_events(20) + BAD)
    with monkeypatch.context() as broken:
        break_bronze_commit(broken)
        with pytest.raises(BronzeError, match="^failed: "):
            any_lake.ingest()
    with pytest.raises(ConfigError, match="and this run has none"):
        any_lake.ingest(dlq_path="")
    any_lake.ingest(dlq_path="", change_dlq=True)
    assert len(any_lake.positions()) == len(set(any_lake.positions())) == 28
    assert any(
        "went to the DLQ" in message and "records that it holds are skipped" in message
        for message in bronze_log.messages
    )


@pytest.mark.parametrize("name", ["metadata", "offsets/0", "commits/0", "sources/0/0", "bronze.json"])
def test_a_checkpoint_file_that_is_cut_in_half_is_refused_and_its_cure_leads_on(
    bronze, topic: Topic, lake: Lake, tmp_path: Path, name: str
):
    """Cut the file and remove its checksum, which only Hadoop's local file system has."""
    topic.produce(make_events(60) + BAD)
    lake.ingest()
    file = Path(lake.config.checkpoint_path, name)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
    code, message = bronze()
    assert code == 2
    assert f"{name} is damaged" in message
    assert "Start with a new --checkpoint-path and --starting-offsets earliest" in message
    cured = change_path(lake, "checkpoint_path", tmp_path / "new-checkpoint")
    cured.ingest(starting_offsets="earliest")
    assert_complete(cured, 60 + len(BAD))


def test_of_two_that_bind_a_checkpoint_at_once_neither_unbinds_it(lake: Lake):
    folder = CheckpointFolder(lake.spark, lake.config.checkpoint_path, lake.config.kafka_topic)
    binding = {"topic": lake.config.kafka_topic, "output_path": lake.config.output_path, "output_id": "1"}

    def bind() -> None:
        for _ in range(50):
            folder.write_binding(binding)

    assert run_twice_at_once(bind) == []
    assert folder.read_binding() == binding
