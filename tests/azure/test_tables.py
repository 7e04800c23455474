"""Tables and checkpoint in Azure: the direct writer, every command that writes, crashes, and several writers."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from py4j.protocol import Py4JJavaError

from bronze.config import PATHS
from bronze.delta.ledger import new_note
from bronze.delta.log import name_commit, read_commit
from bronze.delta.own_table import ConflictError, TableLog
from bronze.delta.tables import find_obstacle
from bronze.runtime.object_store import find_storage
from bronze.runtime.paths import find_class
from sandbox.system import HOST
from tests.support.audit import assert_complete
from tests.support.azurite import ACCOUNT_HOST, Azurite, write_settings
from tests.support.events import BAD, make_events
from tests.support.ingestion import MOMENTS, Ingestion
from tests.support.kills import LONG
from tests.support.lake import Lake, open_table, with_both
from tests.support.maintenance import run_maintenance
from tests.support.object_store import check_backfill, check_kill, check_optimize_beside_a_stream, check_replay
from tests.support.topic import Topic

pytestmark = pytest.mark.soak


@with_both
def test_each_record_is_in_one_of_the_two_tables(topic: Topic, any_lake: Lake):
    topic.produce(make_events(50) + BAD)
    assert any_lake.ingest().counts.valid == 50
    topic.produce(make_events(30, first=50))
    assert any_lake.ingest().counts.total == 30
    assert_complete(any_lake, 80 + len(BAD))


def test_the_direct_writer_is_chosen(topic: Topic, lake: Lake, bronze_log: pytest.LogCaptureFixture):
    topic.produce(make_events(5))
    lake.ingest()
    assert "Using the direct writer (no restrictions found)" in bronze_log.messages


SETTINGS = {"fs.azure.encryption.context.provider.type": "any", f"fs.azure.account.auth.type.{ACCOUNT_HOST}": "SAS"}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_only_abfs_can_follow_is_left_to_the_delta_spark_writer(lake: Lake, name: str):
    conf = lake.spark.sparkContext._jsc.hadoopConfiguration()
    assert find_obstacle(lake.config.output_path, None) == ""
    conf.set(name, SETTINGS[name])
    try:
        assert find_obstacle(lake.config.output_path, None).endswith(f" is set for {lake.config.output_path}")
        assert not find_storage(lake.config.output_path).is_direct
    finally:
        conf.unset(name)


def test_one_place_is_one_place_whatever_its_spelling(topic: Topic, lake: Lake):
    topic.produce(make_events(20))
    lake.ingest()
    other = {name: getattr(lake.config, name).replace("windows.net/", "windows.net//x/../") + "/" for name in PATHS}
    topic.produce(make_events(10, first=20))
    assert lake.ingest(**other).counts.total == 10
    assert_complete(lake, 30)


def test_a_backfill_adds_what_the_stream_left_out(topic: Topic, lake: Lake):
    check_backfill(topic, lake)


def test_a_replay_appends_what_is_valid_now(topic: Topic, lake: Lake):
    check_replay(topic, lake)


@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_9_at_each_moment_of_a_batch(topic: Topic, lake: Lake, start: Callable[..., Ingestion], moment: str):
    check_kill(topic, lake, start, moment)


def test_of_two_writers_that_saw_the_same_state_only_one_commits(topic: Topic, lake: Lake):
    topic.produce(make_events(1))
    lake.ingest()
    one, other = (TableLog(lake.config.output_path) for _ in range(2))
    one.commit([], new_note("ingest"))
    with pytest.raises(ConflictError):
        other.commit([], new_note("ingest"))


def test_two_drivers_with_their_own_checkpoints_write_the_same_tables(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion]
):
    topic.produce(make_events(300) + BAD)
    small = replace(lake.config, max_offsets_per_trigger=40)
    both = [start(small), start(replace(small, checkpoint_path=f"{small.checkpoint_path}-2"))]
    assert [ingestion.wait(LONG) for ingestion in both] == [0, 0], [ingestion.log[-2000:] for ingestion in both]
    assert_complete(lake, 300 + len(BAD))


def test_an_optimize_of_spark_and_a_stream_do_not_overwrite_each_other(topic: Topic, lake: Lake):
    check_optimize_beside_a_stream(topic, lake)


def test_neither_a_commit_of_spark_nor_one_of_ours_replaces_the_other(topic: Topic, lake: Lake):
    topic.produce(make_events(1))
    lake.ingest()
    place, version = find_storage(lake.config.output_path), open_table(lake.config.output_path).version()
    ours = read_commit(place, version)
    assert not commit_by_spark(lake, version)
    table = TableLog(lake.config.output_path)
    assert commit_by_spark(lake, version + 1)
    table.commit([], new_note("ingest"))
    assert read_commit(place, version) == ours
    assert "of Spark" in (read_commit(place, version + 1) or "")
    assert open_table(lake.config.output_path).version() == version + 2


def commit_by_spark(lake: Lake, version: int) -> bool:
    """Write a commit with Delta's log store; return whether it did."""
    conf = lake.spark.sparkContext._jsc.hadoopConfiguration()
    path = find_class(lake.spark, "org.apache.hadoop.fs.Path")(f"{lake.config.output_path}/{name_commit(version)}")
    lines = find_class(lake.spark, "java.util.ArrayList")()
    lines.add('{"commitInfo": {"operation": "of Spark"}}')
    try:
        find_class(lake.spark, "io.delta.storage.AzureLogStore")(conf).write(path, lines.iterator(), False, conf)
    except Py4JJavaError as error:
        assert "FileAlreadyExistsException" in str(error)
        return False
    return True


def test_maintenance_compacts_what_a_stream_wrote(topic: Topic, lake: Lake):
    for number in range(4):
        topic.produce(make_events(20, first=number * 20), partition=0)
        lake.ingest()
    summary = run_maintenance(lake, optimize_after_hours=1)
    assert summary.files_before > summary.files_after >= 1
    topic.produce(make_events(20, first=80), partition=0)
    lake.ingest()
    assert_complete(lake, 100)


def test_the_jvm_of_a_run_ends_although_azure_does_not_answer_any_more(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], tmp_path: Path
):
    topic.produce(make_events(5))
    with Azurite(tmp_path / "azurite", port=0) as own:
        variables = {"AZURITE_BLOB_STORAGE_URL": f"http://{HOST}:{own.port}"}
        variables["SPARK_CONF_DIR"] = str(write_settings(own, tmp_path))
        ingestion = start(replace(lake.config, available_now=False), **variables).wait_for("Batch 0", LONG)
        processes = psutil.Process(ingestion.process.pid).children(recursive=True)
        own.kill()
    ingestion.send(signal.SIGTERM).wait(LONG)
    assert any("java" in process.name() for process in processes)
    assert psutil.wait_procs(processes, timeout=60)[1] == []
