"""Tables that do not fit, are dropped or lose files: refused or reported by name, nothing lost or duplicated."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable

from bronze.cli import main
from bronze.config import AuditConfig
from bronze.delta.ddl import create_table_statement
from bronze.schema import get_bronze_spec
from tests.support.audit import assert_complete
from tests.support.backfill import let_commit_first, run_backfill
from tests.support.commands import list_flags
from tests.support.events import BAD, make_events
from tests.support.lake import EITHER_WRITER, Lake, change_path
from tests.support.topic import Topic
from tests.support.waiting import when

RECORDS = 60 + len(BAD)


# 1. Tables that do not fit (others in tests/integration/test_tables.py)


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("status_code:int", "status_code:string", "column response.status_code: expected int, found string"),
        ("`tenant_id` string", "`tenant_id` bigint", "column tenant_id: expected string, found bigint"),
        (
            "`_raw_value` string",
            "`raw` string",
            "column _raw_value: missing (string)\n  column raw: not expected (string)",
        ),
        (
            "PARTITIONED BY (_event_date, _event_hour)",
            "PARTITIONED BY (_event_date)",
            "partitioning: expected _event_date, _event_hour, found _event_date",
        ),
    ],
    ids=["nested type", "type", "column", "partitioning"],
)
def test_a_table_that_differs_is_refused_with_the_difference(bronze, lake: Lake, old: str, new: str, difference: str):
    statement = create_table_statement(get_bronze_spec(), lake.config.output_path)
    assert old in statement
    lake.spark.sql(statement.replace(old, new))
    code, message = bronze()
    assert code == 2
    assert message == (
        f"--output-path: the table at {lake.config.output_path} does not fit; give another path, or migrate it:\n"
        f"  {difference}"
    )
    assert lake.bronze.count() == 0
    assert not Path(lake.config.dlq_path).exists()
    assert not Path(lake.config.checkpoint_path).exists()


def test_a_dlq_that_is_no_dlq_is_refused_before_bronze_is_made(bronze, lake: Lake):
    lake.spark.sql(create_table_statement(get_bronze_spec(), lake.config.dlq_path))
    code, message = bronze()
    assert code == 2
    assert f"--dlq-path: the table at {lake.config.dlq_path} does not fit" in message
    assert "column _error_type: missing (string)" in message
    assert not Path(lake.config.output_path).exists()


def test_a_record_that_breaks_a_constraint_ends_the_stream_by_the_constraint_s_name(bronze, topic: Topic, lake: Lake):
    lake.ingest()
    table = f"delta.`{lake.config.output_path}`"
    lake.spark.sql(f"ALTER TABLE {table} ADD CONSTRAINT small CHECK (_kafka_offset < 20)")
    topic.produce(make_events(60), partition=0)
    code, message = bronze()
    assert code == 2
    assert "CHECK constraint small" in message
    assert len(message.splitlines()) == 1
    lake.spark.sql(f"ALTER TABLE {table} DROP CONSTRAINT small")
    assert bronze()[0] == 0
    assert_complete(lake, 60)


def test_a_table_whose_creation_was_killed_is_created_at_the_next_start(bronze, topic: Topic, lake: Lake):
    topic.produce(make_events(60) + BAD)
    Path(lake.config.output_path, "_delta_log").mkdir(parents=True)
    Path(lake.config.dlq_path, "_delta_log", "_staged_commits").mkdir(parents=True)
    assert bronze()[0] == 0
    assert_complete(lake, RECORDS)


# 2. Tables that are dropped (recreated ones: test_checkpoints.py and tests/integration/test_tables.py)


@pytest.mark.parametrize("writer", EITHER_WRITER)
@pytest.mark.parametrize("name", ["output_path", "dlq_path"])
def test_a_table_that_is_dropped_while_the_stream_runs_ends_it_and_is_not_made_anew(
    bronze, topic: Topic, lake: Lake, tmp_path: Path, name: str, writer: str
):
    topic.produce([*make_events(300), *BAD * 10], partition=0)
    path = Path(getattr(lake.config, name))
    dropping = when(lambda: lake.has_rows(20), lambda: path.rename(tmp_path / "dropped"))
    code, message = bronze("--max-offsets-per-trigger", "10", "--writer", writer)
    dropping.join()
    assert code == 1, message
    assert "altered, replaced or deleted since this run began" in message or str(path) in message
    assert len(message.splitlines()) == 1
    assert not Path(path, "_delta_log").exists()
    code, message = bronze()
    assert code == 2, message
    assert "use --change-dlq with a new --checkpoint-path" in message
    assert writer == "delta-spark" or not path.exists()
    assert not Path(path, "_delta_log").exists()
    shutil.rmtree(path, ignore_errors=True)  # tasks of Spark's own writer may have left files
    cured = change_path(lake, "checkpoint_path", tmp_path / "new-checkpoint")
    cured.ingest(change_dlq=True)
    assert_complete(cured, 300 + 10 * len(BAD))


# 3. Files that are deleted


@pytest.fixture
def audit(lake: Lake, capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, str]]:
    """Run ``bronze audit``; return its exit code and its standard error."""

    def run() -> tuple[int, str]:
        code = main(["audit", *list_flags(lake.configure(AuditConfig))])
        return code, capsys.readouterr().err.strip().rpartition("bronze: ")[2]

    return run


def test_a_data_file_that_is_gone_is_named_and_the_cure_brings_its_rows_back(bronze, audit, topic: Topic, lake: Lake):
    topic.produce(make_events(60) + BAD)
    lake.ingest(max_offsets_per_trigger=20)
    lake.spark.conf.set("spark.sql.files.ignoreMissingFiles", "true")  # a setting that a cluster may have by default
    lost = sorted(Path(lake.config.output_path).rglob("part-*.parquet"))[-1]  # a file of the newest batch
    lost.unlink()
    topic.produce(make_events(60))
    for command in (audit, bronze):
        code, message = command()
        assert code == 2
        assert message.startswith(f"{lost} is missing, although its table's log refers to it")
        assert len(message.splitlines()) == 1
        assert "nothing was lost" not in message
    table = re.search(r"DeltaTable\('(.+)'\)\.repair\(\)", message)
    DeltaTable(table[1]).repair()
    assert audit()[0] == 5
    run_backfill(lake, checkpoint_path=lake.config.checkpoint_path)
    assert bronze()[0] == 0
    assert_complete(lake, RECORDS + 60)


@pytest.mark.parametrize("size", [0, pytest.param(100, marks=pytest.mark.soak)])
def test_a_data_file_that_is_cut_off_is_named_and_the_cure_brings_its_rows_back(
    bronze, audit, topic: Topic, lake: Lake, size: int
):
    topic.produce(make_events(60))
    lake.ingest(max_offsets_per_trigger=20)
    damaged = sorted(Path(lake.config.output_path).rglob("part-*.parquet"))[-1]
    os.truncate(damaged, size)
    topic.produce(make_events(60))
    for command in (audit, bronze):
        code, message = command()
        assert code == 2
        assert message.startswith(f"{damaged} is damaged or was cut off")
    damaged.unlink()  # as the message says
    DeltaTable(re.search(r"DeltaTable\('(.+)'\)\.repair\(\)", message)[1]).repair()
    assert audit()[0] == 5
    run_backfill(lake, checkpoint_path=lake.config.checkpoint_path)
    assert bronze()[0] == 0
    assert_complete(lake, 120)


@pytest.fixture
def newest(topic: Topic, lake: Lake) -> Path:
    """The newest commit of bronze, whose batch the checkpoint notes as done."""
    topic.produce(make_events(60))
    lake.ingest(max_offsets_per_trigger=20)
    return max(Path(lake.config.output_path, "_delta_log").glob("0*.json"))


def test_a_commit_that_is_cut_off_is_named_and_the_cure_makes_the_table_whole(bronze, audit, lake: Lake, newest: Path):
    os.truncate(newest, 50)
    for command in (audit, bronze):
        code, message = command()
        assert code == 2
        assert message.startswith(f"{newest} is damaged or was cut off")
    newest.unlink()  # as the message says
    assert audit()[0] == 5
    run_backfill(lake, checkpoint_path=lake.config.checkpoint_path)
    assert_complete(lake, 60)


def test_a_commit_that_is_empty_is_warned_of(lake: Lake, newest: Path, bronze_log: pytest.LogCaptureFixture):
    newest.write_bytes(b"")
    lake.ingest()
    assert any("the tables lack records that were committed" in message for message in bronze_log.messages)
    run_backfill(lake, checkpoint_path=lake.config.checkpoint_path)
    assert_complete(lake, 60)


@pytest.mark.parametrize("age", [1, pytest.param(2, marks=pytest.mark.soak)])
@pytest.mark.parametrize("lines", [*(pytest.param(n, marks=pytest.mark.soak) for n in (0, 0.5)), 1])
def test_a_damaged_commit_that_a_checkpoint_of_the_log_has_loses_and_duplicates_nothing(
    bronze, topic: Topic, lake: Lake, newest: Path, lines: float, age: int
):
    DeltaTable(lake.config.output_path).create_checkpoint()
    damaged = sorted(newest.parent.glob("0*.json"))[-age]
    first = damaged.read_bytes().index(b"\n") + 1
    os.truncate(damaged, int(lines * first))
    shutil.rmtree(lake.config.checkpoint_path)  # the start must find out by itself what the tables have
    topic.produce(make_events(60, first=60))
    assert bronze()[0] == 0
    assert_complete(lake, 120)


def test_a_table_whose_newest_commit_is_damaged_still_knows_its_dlqs(bronze, topic: Topic, lake: Lake, tmp_path: Path):
    topic.produce(make_events(20) + BAD)
    lake.ingest()
    switched = change_path(lake, "dlq_path", tmp_path / "second")
    topic.produce(BAD)
    switched.ingest(change_dlq=True)
    DeltaTable(lake.config.output_path).create_checkpoint()
    max(Path(lake.config.output_path, "_delta_log").glob("0*.json")).write_bytes(b"")
    assert bronze()[0] == 2  # the first DLQ
    run_backfill(switched, starting_offsets="earliest")
    assert_complete(switched, 20 + 2 * len(BAD))


@pytest.mark.soak
def test_a_deletion_vector_that_is_gone_is_named_and_the_cure_makes_the_table_whole(audit, topic: Topic, lake: Lake):
    topic.produce(make_events(60) + BAD)
    lake.ingest()
    table = f"delta.`{lake.config.output_path}`"
    lake.spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    lake.spark.sql(f"DELETE FROM {table} WHERE event_id = 'event-4'").collect()
    topic.produce(make_events(10))
    lake.ingest()
    (lost,) = Path(lake.config.output_path).rglob("*.bin")
    lost.unlink()
    code, message = audit()
    assert (code, message.partition(" is missing")[0]) == (2, f"Deletion vector {lost}")
    restore = re.search(r"RESTORE TABLE \S+ TO VERSION AS OF", message)
    lake.spark.sql(f"{restore[0]} 2").collect()
    assert audit()[0] == 5
    run_backfill(lake, checkpoint_path=lake.config.checkpoint_path)
    assert_complete(lake, RECORDS + 10)


def test_a_vacuum_without_retention_between_two_runs_takes_nothing(bronze, topic: Topic, lake: Lake):
    topic.produce(make_events(60) + BAD)
    lake.ingest(max_offsets_per_trigger=20)
    lake.spark.sql(f"OPTIMIZE delta.`{lake.config.output_path}`").collect()
    vacuum_all(lake)
    topic.produce(make_events(60))
    assert bronze()[0] == 0
    assert_complete(lake, RECORDS + 60)


def vacuum_all(lake: Lake) -> None:
    check = "spark.databricks.delta.retentionDurationCheck.enabled"
    lake.spark.conf.set(check, "false")
    try:
        lake.spark.sql(f"VACUUM delta.`{lake.config.output_path}` RETAIN 0 HOURS").collect()
    finally:
        lake.spark.conf.unset(check)


def test_a_vacuum_without_retention_that_takes_a_batch_s_files_before_their_commit_is_noticed(
    bronze, topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch
):
    topic.produce(make_events(60) + BAD)
    lake.ingest()
    topic.produce(make_events(60))
    with monkeypatch.context() as patched:
        let_commit_first(patched, lambda: vacuum_all(lake))
        code, message = bronze("--writer", "direct")
    assert code == 1
    assert "nothing was committed" in message
    assert bronze()[0] == 0
    assert_complete(lake, RECORDS + 60)
