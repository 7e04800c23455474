"""Tables and checkpoint in Azure: the direct writer, every command that writes, crashes, and several writers."""

from collections.abc import Callable
from dataclasses import replace
from threading import Barrier, Thread

import pytest

from bronze import replay
from bronze.config import ReplayConfig
from bronze.delta.ledger import new_note
from bronze.delta.own_table import ConflictError, TableLog
from bronze.delta.tables import find_obstacle
from bronze.runtime.object_store import find_storage
from tests.support.audit import assert_complete, audit
from tests.support.azurite import ACCOUNT_HOST, KEY
from tests.support.backfill import fill, run_backfill
from tests.support.events import BAD, make_event, make_events
from tests.support.ingestion import PAUSE, Ingestion
from tests.support.kills import LONG
from tests.support.lake import Lake, open_table, with_both
from tests.support.maintenance import run_maintenance
from tests.support.topic import Topic

MOMENTS = ("before the write", "during the write", "between the commits", "before the checkpoint's commit")


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
        assert "nor in Azure with an account key" in find_obstacle(lake.config.output_path, None)
    finally:
        conf.unset(name)


def test_one_place_is_one_place_whatever_its_spelling(topic: Topic, lake: Lake):
    topic.produce(make_events(20))
    lake.ingest()
    names = ("output_path", "dlq_path", "checkpoint_path")
    other = {name: getattr(lake.config, name).replace("windows.net/", "windows.net//x/../") + "/" for name in names}
    topic.produce(make_events(10, first=20))
    assert lake.ingest(**other).counts.total == 10
    assert_complete(lake, 30)


def test_the_key_is_not_shown(lake: Lake):
    assert KEY not in repr(find_storage(lake.config.output_path))


def test_a_backfill_adds_what_the_stream_left_out(topic: Topic, lake: Lake):
    fill(topic)
    lake.ingest(starting_offsets="latest")
    assert run_backfill(lake).summary.counts.valid == 30
    assert run_backfill(lake).summary.counts.valid == 0
    assert_complete(lake, 30)


def test_a_replay_appends_what_is_valid_now(topic: Topic, lake: Lake):
    topic.produce(make_events(10) + BAD)
    lake.ingest()
    repaired = f"_raw_bytes = CAST('{make_event(10).decode()}' AS BINARY)"
    lake.spark.sql(f"UPDATE delta.`{lake.config.dlq_path}` SET {repaired} WHERE _error_type = 'malformed_json'")
    report = replay(lake.configure(ReplayConfig), lake.spark)
    assert (report.counts["appended"], report.counts["still_failing"]) == (1, len(BAD) - 1)
    assert audit(lake).is_complete


@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_9_at_each_moment_of_a_batch(topic: Topic, lake: Lake, start: Callable[..., Ingestion], moment: str):
    topic.produce(make_events(40) + BAD[:4])
    lake.ingest()
    topic.produce(make_events(100, first=40) + BAD)
    start(lake.config, *PAUSE, PAUSE_AT=moment).wait_for(f"Paused {moment}", LONG).kill()
    lake.ingest()
    assert_complete(lake, 144 + len(BAD))


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
    topic.produce(make_events(20))
    lake.ingest()

    def optimize() -> None:
        for number in range(5):
            lake.spark.sql(f"ALTER TABLE delta.`{lake.config.output_path}` SET TBLPROPERTIES ('user.n' = '{number}')")
            lake.spark.sql(f"OPTIMIZE delta.`{lake.config.output_path}`").collect()

    topic.produce(make_events(200, first=20) + BAD)
    thread = Thread(target=optimize)
    thread.start()
    lake.ingest(max_offsets_per_trigger=20)
    thread.join()
    assert_complete(lake, 220 + len(BAD))


def test_commits_of_spark_and_of_ours_at_the_same_moment_are_all_in_the_log(topic: Topic, lake: Lake):
    topic.produce(make_events(1))
    lake.ingest()
    path, begin, lost = lake.config.output_path, Barrier(2), []
    version = open_table(path).version()

    def alter() -> None:
        for number in range(10):
            begin.wait()
            try:
                lake.spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('user.n' = '{number}')")
            except Exception as error:
                lost.append(error)

    thread = Thread(target=alter)
    thread.start()
    for _ in range(10):
        table = TableLog(path)
        begin.wait()
        table.commit([], new_note("ingest"))
    thread.join()
    assert open_table(path).version() == version + 20 - len(lost)


def test_maintenance_compacts_what_a_stream_wrote(topic: Topic, lake: Lake):
    for number in range(4):
        topic.produce(make_events(20, first=number * 20), partition=0)
        lake.ingest()
    summary = run_maintenance(lake, optimize_after_hours=1)
    assert summary.files_before > summary.files_after >= 1
    topic.produce(make_events(20, first=80), partition=0)
    lake.ingest()
    assert_complete(lake, 100)


def test_a_wrong_key_ends_with_exit_code_2(lake: Lake, start: Callable[..., Ingestion], azurite, tmp_path):
    (tmp_path / "spark-defaults.conf").write_text(azurite.settings.replace(KEY, KEY.replace("Eby8", "Eby9")))
    refused = start(lake.config, SPARK_CONF_DIR=str(tmp_path))
    assert refused.wait(LONG) == 2, refused.log[-3000:]
    assert ACCOUNT_HOST in refused.log.rstrip().splitlines()[-1]
