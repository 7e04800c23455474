"""The log of a table with several writers: fast to open, kept as long as configured, cleaned by maintain only."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from bronze.delta import log_files
from bronze.delta.create import create_table
from bronze.delta.ddl import create_table_statement
from bronze.delta.log import find_checkpoint, open_log
from bronze.delta.log_cleanup import keep_newest, measure_log, tidy_log
from bronze.delta.log_files import remove_stale_checksum
from bronze.delta.own_table import TableLog
from bronze.schema import get_bronze_spec
from tests.support.delta_log import (
    DAY,
    append,
    check_commits_in_turn,
    list_commits,
    make_old,
    read_anew,
    run_direct,
    set_properties,
)

SPELLINGS = ["365 days", "interval 365 days", "INTERVAL 365 DAYS"]


# Short, so that a few commits suffice; our tables have 100.
INTERVAL = {"delta.checkpointInterval": "10"}


@pytest.fixture
def path(tmp_path: Path, spark: SparkSession) -> str:
    spark.sql(create_table_statement(get_bronze_spec(), str(tmp_path / "bronze"), properties=INTERVAL))
    return str(tmp_path / "bronze")


@pytest.mark.soak
def test_commits_of_two_writers_in_turn_are_short_to_open_and_cleaned_by_maintain_alone(spark: SparkSession, path: str):
    check_commits_in_turn(spark, path, 200)


@pytest.mark.soak
def test_commits_that_strictly_alternate_miss_no_checkpoint(spark: SparkSession, path: str):
    log = TableLog(path)
    for turn in range(11):
        run_direct(spark, log, 1)
        set_properties(spark, path, bronze__turn=str(turn))
    run_direct(spark, log, 1)
    assert DeltaTable(path).version() - find_checkpoint(path) < 10
    assert list_commits(path) == list(range(24))


def test_a_checkpoint_after_delta_spark_s_leaves_no_stale_checksum(spark: SparkSession, path: str):
    for number in range(10):
        set_properties(spark, path, bronze__turn=str(number))
    checksum = Path(path, "_delta_log", "._last_checkpoint.crc")
    before = checksum.read_bytes()
    run_direct(spark, TableLog(path), 11)
    assert find_checkpoint(path) == 21
    assert checksum.read_bytes() != before
    remove_stale_checksum(path)
    assert checksum.exists()


def test_a_stale_checksum_of_earlier_versions_is_gone_once_a_writer_opens_the_table(spark: SparkSession, path: str):
    for number in range(10):
        set_properties(spark, path, bronze__turn=str(number))
    append(TableLog(path), 9)
    DeltaTable(path).create_checkpoint()
    assert Path(path, "_delta_log", "._last_checkpoint.crc").exists()
    TableLog(path)
    assert not Path(path, "_delta_log", "._last_checkpoint.crc").exists()


def add_and_remove_file(path: str, days: float) -> None:
    """Commit a file, and then its removal, dated days ago."""
    values = {"_event_date": "2026-01-31", "_event_hour": "22"}
    file = {"path": "old.parquet", "partitionValues": values, "size": 4, "dataChange": True}
    removed = {**file, "deletionTimestamp": int((time.time() - days * DAY) * 1000), "extendedFileMetadata": True}
    for action in ({"add": {**file, "modificationTime": 1}}, {"remove": removed}):
        commit = Path(path, "_delta_log", f"{DeltaTable(path).version() + 1:020}.json")
        commit.write_text(json.dumps(action))


def list_tombstones(path: str) -> list[str]:
    """The removed files that the newest checkpoint keeps."""
    file = Path(path, "_delta_log", f"{find_checkpoint(path):020}.checkpoint.parquet")
    return [row["path"] for row in pq.read_table(file)["remove"].to_pylist() if row]


@pytest.mark.parametrize("retention", SPELLINGS)
def test_tombstones_are_kept_as_long_as_the_table_says(spark: SparkSession, path: str, retention: str):
    retentions = {"delta__logRetentionDuration": retention, "delta__deletedFileRetentionDuration": retention}
    set_properties(spark, path, **retentions)
    add_and_remove_file(path, days=10)
    run_direct(spark, TableLog(path), 8)
    assert list_tombstones(path) == ["old.parquet"]


def test_tombstones_that_are_older_go(spark: SparkSession, path: str):
    add_and_remove_file(path, days=10)
    run_direct(spark, TableLog(path), 8)
    assert list_tombstones(path) == []


@pytest.fixture
def old(spark: SparkSession, path: str) -> str:
    """A table of 25 commits with checkpoints at 9 and 19, which was last written to 20 days ago."""
    for version in (9, 19, 25):
        append(TableLog(path), version - DeltaTable(path).version())
        if version < 25:
            DeltaTable(path).create_checkpoint()
    make_old(path, 20, range(25))
    make_old(path, 400, range(15))
    return path


@pytest.mark.soak
@pytest.mark.parametrize(
    ("retention", "kept_from"),
    [("390 days", 9), ("INTERVAL 57 WEEKS", 9), ("9936 hours", 0), ("Interval 2 Weeks", 19)],
)
def test_maintain_reads_a_retention_in_every_spelling_of_delta(
    spark: SparkSession, old: str, retention: str, kept_from: int
):
    set_properties(spark, old, delta__logRetentionDuration=retention)
    deleted = tidy_log(spark, old)
    assert list_commits(old)[0] == deleted == kept_from


def test_the_newest_commit_of_ours_and_all_after_it_stay_however_old(spark: SparkSession, old: str):
    for number in range(12):
        set_properties(spark, old, bronze__turn=str(number))
    make_old(old, 200, range(25))
    make_old(old, 100, range(25, 38))
    assert (keep_newest(spark, old), find_checkpoint(old)) == (25, 30)
    assert tidy_log(spark, old) == list_commits(old)[0] == 19
    assert measure_log(spark, old).notes == []


@pytest.mark.parametrize("owner", ["the product", "false", "true", "nobody"])
def test_a_log_that_its_owner_keeps_is_left_alone(spark: SparkSession, old: str, owner: str):
    """In a table of the product, false means that only maintain cleans the log; in others, that nothing does."""
    if owner != "the product":
        spark.sql(f"ALTER TABLE delta.`{old}` UNSET TBLPROPERTIES ('bronze.logCleanedBy')")
    if owner == "nobody":
        spark.sql(f"ALTER TABLE delta.`{old}` UNSET TBLPROPERTIES ('delta.enableExpiredLogCleanup')")
    if owner == "true":
        set_properties(spark, old, delta__enableExpiredLogCleanup="true")
    assert tidy_log(spark, old) == (0 if owner == "false" else 9)


def test_no_commit_of_delta_spark_cleans_the_log_of_a_table_of_ours(spark: SparkSession, old: str):
    make_old(old, 60, range(26))
    for number in range(10):
        set_properties(spark, old, bronze__turn=str(number))
    assert find_checkpoint(old) == 30
    assert list_commits(old)[0] == 0


def test_status_says_when_maintain_should_be_run(spark: SparkSession, old: str):
    (note,) = measure_log(spark, old).notes
    assert note.startswith(f"the log of {old} has 9 commits that are older than delta.logRetentionDuration, 30 days;")
    tidy_log(spark, old)
    assert measure_log(spark, old).notes == []


def test_status_says_when_no_checkpoint_is_written_any_more(spark: SparkSession, path: str):
    append(TableLog(path), 29)
    assert measure_log(spark, path).notes[0].startswith(f"the log of {path} has 30 commits since its last checkpoint")
    tidy_log(spark, path)
    assert measure_log(spark, path).notes == []


def test_a_log_without_a_commit_of_ours_is_cleaned_too(spark: SparkSession, path: str):
    for number in range(20):
        set_properties(spark, path, bronze__turn=str(number))
    make_old(path, 60, range(21))
    assert keep_newest(spark, path) is None
    assert tidy_log(spark, path) == 20


def test_a_checkpoint_that_delta_cannot_write_fails_no_batch(
    spark: SparkSession, path: str, bronze_log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("bronze.delta.log_files.open_log", fail)
    run_direct(spark, TableLog(path), 12)
    assert sum("cannot write a checkpoint of the log of" in message for message in bronze_log.messages) == 1
    assert DeltaTable(path).version() == 12


@pytest.fixture
def table(spark: SparkSession, path: str, monkeypatch: pytest.MonkeyPatch) -> TableLog:
    """A table that is deleted while a checkpoint of its log is written."""
    read = log_files.read_commit

    def read_and_delete(*place: Any) -> str | None:
        content = read(*place)
        monkeypatch.setattr(log_files, "read_commit", read)
        open_log(spark, path)[1].stateDF().count()  # Spark has read the log
        shutil.rmtree(path)
        return content

    monkeypatch.setattr(log_files, "read_commit", read_and_delete)
    return TableLog(path)


def test_a_checkpoint_does_not_bring_a_deleted_table_back(
    spark: SparkSession, path: str, table: TableLog, bronze_log: pytest.LogCaptureFixture
):
    run_direct(spark, table, 9)
    assert not Path(path).exists()
    assert sum("was altered, replaced or deleted" in message for message in bronze_log.messages) == 1


def test_a_checkpoint_of_a_deleted_table_is_not_left_in_a_new_one(
    spark: SparkSession, path: str, table: TableLog, monkeypatch: pytest.MonkeyPatch
):
    read = log_files.read_commit

    def read_and_create(*place: Any) -> str | None:
        content = read(*place)
        create_table(spark, path, get_bronze_spec())
        append(TableLog(path), 9)
        return content

    monkeypatch.setattr(log_files, "read_commit", read_and_create)
    run_direct(spark, table, 9)
    assert find_checkpoint(path) == -1
    assert read_anew(spark, path) == (9, 9)
