"""Others work on the same tables while a stream runs: all make progress, nothing is lost or duplicated."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import functions as F

from bronze import backfill
from bronze import ingest as run
from bronze.config import BackfillConfig
from bronze.delta.own_table import OwnTable, TableLog
from bronze.observe.summary import IngestSummary
from sandbox.topics import measure_topics
from tests.support import delta_log
from tests.support.audit import assert_complete
from tests.support.backfill import fill, run_backfill
from tests.support.events import BAD, make_event, make_events
from tests.support.ingestion import GATED, Ingestion
from tests.support.lake import EITHER_WRITER, Lake, change_path, read_end
from tests.support.maintenance import add_stray_file, run_maintenance
from tests.support.topic import Topic
from tests.support.waiting import wait_until, when

# 1. Statements of delta-spark


@dataclass
class Maintenance:
    """A statement that is run again and again until the stream has ended."""

    lake: Lake
    statement: str
    done: int = 0
    conflicts: int = 0
    failed: Exception | None = None
    is_over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.is_over.is_set() and not self.failed:
            try:
                self.lake.spark.sql(self.statement.format(table=f"delta.`{self.lake.config.output_path}`")).collect()
                self.done += 1
            except Exception as error:
                self.conflicts += 1
                is_conflict = "Concurrent" in type(error).__name__ or "DELTA_CONCURRENT" in str(error)
                self.failed = None if is_conflict else error


# Delta's own rule: a change of rows conflicts with each append to a partition that it has to read. So the statements
# name other partitions than the stream writes to, as the manual says.
OLD = "2026-01-01"
STATEMENTS = {
    "optimize": "OPTIMIZE {table}",
    "update": f"UPDATE {{table}} SET event_version = event_version WHERE _event_date = '{OLD}'",
    "delete": f"DELETE FROM {{table}} WHERE _event_date = '{OLD}' AND _kafka_topic = 'other' AND _kafka_offset < 30",
}


@pytest.mark.parametrize(
    ("name", "writer", "has_deletion_vectors"),
    [
        ("optimize", "direct", False),
        ("update", "direct", True),
        *(
            pytest.param(*case, marks=pytest.mark.soak)
            for case in [
                ("delete", "direct", False),
                ("update", "delta-spark", True),
                ("optimize", "direct", True),
                ("update", "direct", False),
                ("delete", "direct", True),
                ("optimize", "delta-spark", False),
            ]
        ),
    ],
)
def test_a_stream_beside_others_that_change_its_files_doubles_nothing_and_starves_nobody(
    bronze, topic: Topic, lake: Lake, name: str, writer: str, has_deletion_vectors: bool
):
    topic.produce([make_event(n, event_timestamp=f"{OLD}T00:00:00Z") for n in range(60)], partition=1)
    lake.ingest()
    if has_deletion_vectors:
        enabled = "SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')"
        lake.spark.sql(f"ALTER TABLE delta.`{lake.config.output_path}` {enabled}")
    add_rows_of_another_topic(lake)
    topic.produce(make_events(150) + BAD)
    maintenance = Maintenance(lake, STATEMENTS[name])
    thread = when(lambda: lake.has_rows(121), maintenance.run)
    try:
        code, message = bronze("--max-offsets-per-trigger", "15", "--writer", writer)
    finally:
        maintenance.is_over.set()
        thread.join()
    assert code == 0, message
    assert maintenance.failed is None
    assert is_interleaved(lake, name), f"{maintenance.done} done, {maintenance.conflicts} conflicts"
    assert_complete(lake, 60 + 150 + len(BAD))


def is_interleaved(lake: Lake, name: str) -> bool:
    """Whether the stream and the others took turns: one of their commits lies between two of its appends."""
    history = lake.spark.sql(f"DESCRIBE HISTORY delta.`{lake.config.output_path}`").orderBy("version").collect()
    names = [row["operation"].lower() for row in history]
    begun = names.index("write", names.index("write", names.index("write") + 1) + 1)  # the first two are the test's
    others = [number for number, found in enumerate(names) if found == name]
    return any(begun < number < len(names) - 1 - names[::-1].index("write") for number in others)


def add_rows_of_another_topic(lake: Lake) -> None:
    rows = lake.bronze.withColumn("_kafka_topic", F.lit("other"))
    rows.write.format("delta").mode("append").save(lake.config.output_path)


# 2. Other drivers


def read_last_line(ingestion: Ingestion) -> str:
    return ingestion.log.rstrip().splitlines()[-1]


def test_of_two_drivers_on_one_checkpoint_the_second_says_since_when_the_first_works_and_ends(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], tmp_path: Path
):
    topic.produce(make_events(30))
    first = start(lake.config, *GATED, GATE=str(tmp_path / "gate"), BRONZE_RUN_ID="nightly").wait_for("Gate: batch 0")
    second = start(lake.config)
    assert second.wait() == 1
    assert f"uses the checkpoint {lake.config.checkpoint_path} since 20" in read_last_line(second)
    assert f"UTC (run nightly, process {first.process.pid} on {socket.gethostname()})" in read_last_line(second)
    (tmp_path / "gate").touch()
    assert first.wait() == 0, first.log[-2000:]
    assert_complete(lake, 30)


def test_a_driver_that_was_killed_does_not_block_the_next_start(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], tmp_path: Path
):
    topic.produce(make_events(30))
    start(lake.config, *GATED, GATE=str(tmp_path / "gate")).wait_for("Gate: batch 0").kill()
    assert "run_id" in Path(lake.config.checkpoint_path, "bronze.lock").read_text()
    lake.ingest()
    assert_complete(lake, 30)


@pytest.mark.parametrize("writer", EITHER_WRITER)
def test_of_two_drivers_on_one_checkpoint_without_a_lock_one_is_refused_without_harm(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], tmp_path: Path, writer: str
):
    """The first driver has planned a batch when the second one runs it, and all others."""
    lake.ingest()
    topic.produce(make_events(300) + BAD)
    config = replace(lake.config, max_offsets_per_trigger=40, writer=writer)
    first = start(config, *GATED, GATE=str(tmp_path / "gate")).wait_for("Gate: batch 1 is planned")
    Path(lake.config.checkpoint_path, "bronze.lock").unlink()
    second = start(config)
    assert second.wait(400) == 0, second.log[-2000:]
    (tmp_path / "gate").touch()
    assert first.wait(400) == 1, first.log[-2000:]
    assert f"another process uses the checkpoint {lake.config.checkpoint_path}" in read_last_line(first)
    assert_complete(lake, 300 + len(BAD))


def test_two_drivers_with_their_own_checkpoints_start_together_on_new_tables(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion]
):
    topic.produce(make_events(300) + BAD)
    small = replace(lake.config, max_offsets_per_trigger=40)
    both = [start(small), start(replace(small, checkpoint_path=f"{small.checkpoint_path}-2"))]
    assert [ingestion.wait(400) for ingestion in both] == [0, 0], [ingestion.log[-2000:] for ingestion in both]
    assert_complete(lake, 300 + len(BAD))
    assert_complete(change_path(lake, "checkpoint_path", Path(f"{small.checkpoint_path}-2")), 300 + len(BAD))


# 3. The product's own backfill and maintenance


@contextmanager
def stream(lake: Lake, **changes: int | str) -> Iterator[Future[IngestSummary]]:
    """The ingestion in a thread of this process; the end of the block stops it, and raises its error, if any."""
    config = replace(lake.config, available_now=False, **changes)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, config, lake.spark)
        try:
            yield running
        finally:
            while not running.done():  # a query may be about to start
                for query in lake.spark.streams.active:
                    query.stop()
                time.sleep(0.5)
    running.result()


@pytest.mark.parametrize("writer", EITHER_WRITER)
def test_beside_a_live_stream_every_record_is_added_once_and_both_get_on(topic: Topic, lake: Lake, writer: str):
    """The stream is at the end of the topic and commits every second; meanwhile the whole topic is backfilled."""
    fill(topic, 300)
    lake.ingest(starting_offsets="latest")
    with stream(lake, trigger_interval="1 second", max_offsets_per_trigger=20, writer=writer) as running:
        fill(topic, 100)
        result = run_backfill(lake, max_offsets_per_trigger=150)
        wait_until(lambda: read_end(lake) == 1_200)
    assert result.summary.counts.valid >= 900
    assert running.result().batch_count >= 3
    assert result.summary.counts.valid + running.result().counts.valid == 1_200
    assert_complete(lake, 1_200)


@pytest.mark.parametrize("writers", [("delta-spark", "direct"), ("direct", "delta-spark"), ("delta-spark",) * 2])
def test_a_stream_that_comes_between_the_look_up_and_the_commit_of_a_backfill_doubles_nothing(
    topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch, writers: tuple[str, str]
):
    """The backfill has looked up and written the same records that the stream then commits."""
    lake.ingest(starting_offsets="latest")
    topic.produce([make_event(1), b"broken", make_event(2)], 0)
    original, done = OwnTable.commit, []

    def commit(table: OwnTable, rows, note) -> None:
        if rows is not None and not done:
            done.append(True)
            lake.ingest(writer=writers[0])
        original(table, rows, note)

    monkeypatch.setattr(OwnTable, "commit", commit)
    changes = {"starting_offsets": "earliest", "max_offsets_per_trigger": 100, "checkpoint_path": ""}
    config = lake.configure(BackfillConfig, writer=writers[1], **changes)
    result = backfill(config, lake.spark)
    assert (result.summary.counts.valid, result.added_by_others) == (0, 3)
    assert_complete(lake, 3)


def test_maintenance_beside_a_live_stream_loses_and_doubles_nothing(topic: Topic, lake: Lake):
    topic.produce(make_events(20) + BAD)
    lake.ingest()
    add_stray_file(lake, days=30)
    for path in (lake.config.output_path, lake.config.dlq_path):
        delta_log.append(TableLog(path), 10 - DeltaTable(path).version())
        DeltaTable(path).create_checkpoint()
        delta_log.make_old(path, 40, range(10))
    with stream(lake, trigger_interval="0 seconds"):
        with produce_all_the_time(topic):
            wait_until(lambda: len(lake.positions()) >= 60)
            summaries = [run_maintenance(lake, vacuum=True) for _ in range(2)]
        produced = measure_topics(topic.brokers)[topic.name].produced
        wait_until(lambda: read_end(lake) == produced)
    assert sum(s.compacted for s in summaries) >= 2
    assert sum(s.unreferenced for s in summaries) == 1
    assert sum(s.cleaned for s in summaries) == 20
    assert_complete(lake, produced)


@contextmanager
def produce_all_the_time(topic: Topic) -> Iterator[None]:
    """Produce some records every third of a second while the block runs."""
    stop = threading.Event()

    def produce() -> None:
        while not stop.wait(0.3):
            topic.produce([*make_events(5), *BAD])

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
