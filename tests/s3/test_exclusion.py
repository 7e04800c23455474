"""Any number of writers exclude one another: each commit is a request that S3 refuses if the version exists."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Barrier, Event, Thread, Timer

import pytest
from pyspark.sql import SparkSession

from bronze.delta import own_table
from bronze.delta.create import create_table
from bronze.delta.ledger import new_note
from bronze.delta.own_table import ConflictError, TableLog
from bronze.errors import BronzeError, ConfigError
from bronze.runtime import lock, object_store
from bronze.runtime.jars import LOG_STORE
from bronze.runtime.lock import hold_lock
from bronze.runtime.object_store import check_conditions, put_if_absent
from bronze.runtime.paths import open_file_system, read_text, write_text
from bronze.schema import get_bronze_spec
from bronze.storage import Storage
from sandbox.log_store import build_log_store
from sandbox.s3 import S3Sandbox
from tests.support.audit import assert_complete
from tests.support.delta_log import list_operations
from tests.support.events import BAD, make_events
from tests.support.ingestion import GATED, Ingestion
from tests.support.kills import LONG
from tests.support.lake import Lake, open_table
from tests.support.maintenance import run_maintenance
from tests.support.object_store import check_optimize_beside_a_stream
from tests.support.s3_proxy import Proxy, Rule, run_proxy
from tests.support.topic import Topic
from tests.support.waiting import run_twice_at_once, wait_until, when

COMMITS = 20
UNLOCKED = """
import sys
from bronze.cli import main
from bronze.runtime import lock
lock._create = lambda *arguments: True
sys.exit(main())
"""
HOLDER = """
import os, sys, time
from bronze.config import MaintainConfig
from bronze.runtime.lock import hold_lock
from bronze.runtime.session import get_session
with hold_lock(get_session(MaintainConfig(output_path=sys.argv[1])), sys.argv[1]):
    print("It holds the lock", flush=True)
    time.sleep(600)
"""


def test_the_shipped_log_store_is_that_of_the_source():
    assert LOG_STORE.read_bytes() == build_log_store()


def test_of_two_that_put_the_same_file_at_once_one_succeeds(lake: Lake, spark: SparkSession):
    written: list[bool] = []
    for number in range(COMMITS):
        path, contents = f"{lake.config.output_path}/{number}", iter((b"one", b"other"))
        run_twice_at_once(
            lambda path=path, contents=contents: written.append(put_if_absent(spark, path, next(contents)))
        )
    assert sum(written) == COMMITS


def test_of_two_that_create_the_same_table_at_once_neither_fails(lake: Lake):
    create = partial(create_table, lake.spark, lake.config.output_path, get_bronze_spec())
    assert run_twice_at_once(create) == []
    assert open_table(lake.config.output_path).version() == 0


def test_of_two_writers_that_saw_the_same_state_only_one_commits(lake: Lake):
    create_table(lake.spark, lake.config.output_path, get_bronze_spec())
    one, other = (TableLog(lake.config.output_path) for _ in range(2))
    one.commit([], new_note("ingest"))
    with pytest.raises(ConflictError):
        other.commit([], new_note("ingest"))


def test_of_two_drivers_on_one_checkpoint_without_a_lock_the_first_is_refused_without_harm(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], tmp_path: Path
):
    lake.ingest()
    topic.produce(make_events(30) + BAD)
    first = start(lake.config, *GATED, GATE=str(tmp_path / "gate")).wait_for("Gate: batch 1 is planned", LONG)
    second = start(lake.config, sys.executable, "-c", UNLOCKED, "ingest")
    assert second.wait(LONG) == 0, second.log[-2000:]
    (tmp_path / "gate").touch()
    assert first.wait(LONG) == 1, first.log[-2000:]
    assert f"another process uses the checkpoint {lake.config.checkpoint_path}" in first.log.rstrip().splitlines()[-1]
    assert_complete(lake, 30 + len(BAD))


def test_an_optimize_of_spark_and_a_stream_do_not_overwrite_each_other(topic: Topic, lake: Lake):
    check_optimize_beside_a_stream(topic, lake)


@pytest.fixture
def raced(topic: Topic, lake: Lake, start: Callable[..., Ingestion], s3: S3Sandbox) -> Lake:
    """A lake in a bucket of its own, and records for another batch."""
    s3.create_bucket(f"raced-{topic.name}")
    found = replace(lake, config=replace(lake.config, output_path=f"s3://raced-{topic.name}/bronze"))
    topic.produce(make_events(20))
    assert start(found.config).wait(LONG) == 0
    topic.produce(make_events(20, first=20))
    return found


@pytest.fixture
def proxy(s3: S3Sandbox) -> Iterator[Proxy]:
    with run_proxy(s3.port) as running:
        running.rules.append(Rule("commit PUT", "hold", times=10))  # a client that has waited long repeats it
        yield running


def alter(lake: Lake) -> None:
    lake.spark.sql(f"ALTER TABLE delta.`{lake.config.output_path}` SET TBLPROPERTIES ('user.n' = '1')")


def test_a_commit_of_spark_that_arrives_second_does_not_replace_ours(
    topic: Topic, raced: Lake, s3: S3Sandbox, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
):
    endpoint = f"fs.s3a.bucket.raced-{topic.name}.endpoint"
    raced.spark.sparkContext._jsc.hadoopConfiguration().set(endpoint, proxy.endpoint)
    thread = Thread(target=alter, args=(raced,))
    thread.start()
    wait_until(lambda: proxy.faults.total() == 1, LONG)
    settings = s3.environment | {"AWS_ENDPOINT_URL_S3": s3.endpoint, "allow_http": "true"}
    direct = frozenset(settings.items())  # without the proxy
    monkeypatch.setattr(own_table, "find_storage", lambda path: Storage(path, direct))
    TableLog(raced.config.output_path).commit([], new_note("ingest"))
    proxy.gate.set()
    thread.join()
    history = raced.spark.sql(f"DESCRIBE HISTORY delta.`{raced.config.output_path}`").orderBy("version")
    assert [row.operation for row in history.collect()][-2:] == ["WRITE", "SET TBLPROPERTIES"]


def test_our_commit_that_arrives_second_does_not_replace_spark_s(
    raced: Lake, start: Callable[..., Ingestion], proxy: Proxy
):
    ingestion = start(raced.config, AWS_ENDPOINT_URL=proxy.endpoint)
    wait_until(lambda: proxy.faults.total() == 1, LONG)
    alter(raced)
    raced.spark.sql(f"UPDATE delta.`{raced.config.output_path}` SET tenant_id = 'new' WHERE event_id = 'event-0'")
    proxy.gate.set()
    assert ingestion.wait(LONG) == 0, ingestion.log[-2000:]
    assert list_operations(raced.config.output_path)[-3:] == ["SET TBLPROPERTIES", "UPDATE", "WRITE"]
    assert raced.bronze.where("tenant_id = 'new'").count() == 1
    assert_complete(raced, 40)


def test_a_server_that_overwrites_what_exists_is_refused(lake: Lake, s3: S3Sandbox, proxy: Proxy):
    """While the second file is on its way, the first one disappears: the answer is that of such a server."""
    s3.create_bucket("careless")
    lake.spark.sparkContext._jsc.hadoopConfiguration().set("fs.s3a.bucket.careless.endpoint", proxy.endpoint)
    proxy.rules[:] = [Rule("_conditional-", "hold", every=2)]

    def forget() -> None:
        s3.file_system.delete_dir_contents("careless")
        proxy.gate.set()

    thread = when(lambda: proxy.faults.total() == 1, forget)
    with pytest.raises(ConfigError, match="ignores If-None-Match"):
        check_conditions(lake.spark, "s3a://careless/bronze")
    thread.join()


def test_spark_does_not_commit_with_the_log_store_of_delta(topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch):
    topic.produce(make_events(5))
    lake.ingest()
    monkeypatch.setattr(object_store, "_LOG_STORE_SETTING", "spark.delta.logStore.other.impl")  # which is not set
    with pytest.raises(ConfigError, match="submit with --jars .*bronze-log-store.jar"):
        lake.ingest(writer="delta-spark")
    with pytest.raises(ConfigError, match="could overwrite those of other drivers"):
        run_maintenance(lake)
    assert lake.ingest().counts.total == 0


def test_the_lock_of_a_checkpoint_ends_the_second_run_and_outlives_no_kill(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion]
):
    topic.produce(make_events(20))
    holder = start(None, sys.executable, "-c", HOLDER, lake.config.checkpoint_path, BRONZE_RUN_ID="nightly")
    holder.wait_for("It holds the lock")
    wait_until(lambda: read_text(lake.spark, f"{lake.config.checkpoint_path}/bronze.lock"))
    with pytest.raises(BronzeError, match=rf"since 20.* UTC \(run nightly, process {holder.process.pid} on "):
        lake.ingest()
    holder.kill()
    assert lake.ingest().counts.total == 20
    assert read_text(lake.spark, f"{lake.config.checkpoint_path}/bronze.lock") is None


DEAD = '{"since": "2026-11-26 00:00:00", "run_id": "nightly", "process": 1, "host": "gone", "lock_id": "1", "alive": 0}'
STARTS = 4


@pytest.fixture
def lock_path(lake: Lake) -> str:
    return f"{lake.config.checkpoint_path}/bronze.lock"


def start_at_once(lake: Lake) -> list[str]:
    """Let several runs ask for the lock of the checkpoint at the same moment; return what became of each."""
    barrier, ends = Barrier(STARTS), list[str]()

    def run() -> None:
        barrier.wait()
        try:
            with hold_lock(lake.spark, lake.config.checkpoint_path):
                ends.append("held")
                wait_until(lambda: len(ends) == STARTS, 60)
        except BronzeError:
            ends.append("refused")

    with ThreadPoolExecutor(STARTS) as pool:
        for started in [pool.submit(run) for _ in range(STARTS)]:
            started.result()
    return sorted(ends)


def test_of_several_runs_that_start_at_once_exactly_one_has_the_lock(lake: Lake, lock_path: str):
    assert start_at_once(lake) == ["held", *["refused"] * (STARTS - 1)]
    assert read_text(lake.spark, lock_path) is None


def test_of_several_runs_that_find_the_lock_of_a_killed_one_exactly_one_takes_it(lake: Lake, lock_path: str):
    write_text(lake.spark, lock_path, DEAD)
    assert start_at_once(lake) == ["held", *["refused"] * (STARTS - 1)]
    assert read_text(lake.spark, lock_path) is None


def test_of_several_runs_that_take_the_lock_of_a_killed_one_at_once_exactly_one_has_it(
    lake: Lake, lock_path: str, monkeypatch: pytest.MonkeyPatch
):
    write_text(lake.spark, lock_path, DEAD)
    monkeypatch.setattr(lock, "_create", lambda *arguments: False)  # all have waited
    assert start_at_once(lake) == ["held", *["refused"] * (STARTS - 1)]


def test_a_late_sign_of_life_of_a_run_itself_does_not_refuse_its_restart(lake: Lake, lock_path: str):
    with hold_lock(lake.spark, lake.config.checkpoint_path):
        own, ended = json.loads(read_text(lake.spark, lock_path) or ""), Event()

    def write_late() -> None:
        while not ended.wait(0.5):
            own["alive"] += 1
            write_text(lake.spark, lock_path, json.dumps(own))

    write_text(lake.spark, lock_path, json.dumps(own))
    thread = Thread(target=write_late)
    thread.start()
    try:
        with hold_lock(lake.spark, lake.config.checkpoint_path):
            pass
    finally:
        ended.set()
        thread.join()


def test_a_run_whose_lock_was_taken_over_leaves_it_to_the_other_one(lake: Lake, lock_path: str):
    with hold_lock(lake.spark, lake.config.checkpoint_path):
        write_text(lake.spark, lock_path, DEAD)
    assert read_text(lake.spark, lock_path) == DEAD


def test_a_lock_is_free_for_a_run_that_waits_as_soon_as_its_holder_ends(
    lake: Lake, lock_path: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lock, "_PATIENCE", 60)
    write_text(lake.spark, lock_path, DEAD)
    file_system, path = open_file_system(lake.spark, lock_path)
    timer = Timer(3, lambda: file_system.delete(path, False))
    timer.start()
    started = time.monotonic()
    with hold_lock(lake.spark, lake.config.checkpoint_path):
        assert time.monotonic() - started < 30
