"""What holds for tables in any object store: the lake, and the checks that each store's tier runs on it."""

import uuid
from collections.abc import Callable
from threading import Thread

from pyspark.sql import SparkSession

from bronze import replay
from bronze.config import IngestConfig, ReplayConfig
from tests.support.audit import assert_complete, audit
from tests.support.backfill import fill, run_backfill
from tests.support.delta_log import list_operations
from tests.support.events import BAD, make_event, make_events
from tests.support.ingestion import PAUSE, Ingestion
from tests.support.kills import LONG
from tests.support.lake import Lake
from tests.support.topic import Topic


def make_lake(topic: Topic, spark: SparkSession, bucket: str) -> Lake:
    """An empty lake for a topic, in a folder of its own."""
    root = f"{bucket}/{uuid.uuid4().hex[:8]}"
    config = IngestConfig(
        kafka_brokers=topic.brokers,
        kafka_topic=topic.name,
        checkpoint_path=f"{root}/checkpoint",
        output_path=f"{root}/bronze",
        dlq_path=f"{root}/dlq",
        available_now=True,
        with_metrics=True,
    )
    return Lake(config, spark)


def check_backfill(topic: Topic, lake: Lake) -> None:
    """A backfill adds what the stream left out, once."""
    fill(topic)
    lake.ingest(starting_offsets="latest")
    assert run_backfill(lake).summary.counts.valid == 30
    assert run_backfill(lake).summary.counts.valid == 0
    assert_complete(lake, 30)


def repair(lake: Lake) -> None:
    """Make the malformed record of the DLQ a valid one, event-10, by an UPDATE of Spark."""
    repaired = f"_raw_bytes = CAST('{make_event(10).decode()}' AS BINARY)"
    lake.spark.sql(f"UPDATE delta.`{lake.config.dlq_path}` SET {repaired} WHERE _error_type = 'malformed_json'")


def check_replay(topic: Topic, lake: Lake) -> None:
    """A replay appends the record that an UPDATE of Spark has made valid."""
    topic.produce(make_events(10) + BAD)
    lake.ingest()
    repair(lake)
    report = replay(lake.configure(ReplayConfig), lake.spark)
    assert (report.counts["appended"], report.counts["still_failing"]) == (1, len(BAD) - 1)
    assert lake.bronze.where("event_id = 'event-10'").count() == 1
    assert audit(lake).is_complete


def check_kill(topic: Topic, lake: Lake, start: Callable[..., Ingestion], moment: str) -> None:
    """``kill -9`` at a moment of a batch; the next run completes it."""
    topic.produce(make_events(40) + BAD[:4])
    lake.ingest()
    topic.produce(make_events(100, first=40) + BAD)
    start(lake.config, *PAUSE, PAUSE_AT=moment).wait_for(f"Paused {moment}", LONG).kill()
    lake.ingest()
    assert_complete(lake, 144 + len(BAD))


def check_optimize_beside_a_stream(topic: Topic, lake: Lake) -> None:
    """Commits of Spark beside a stream: all are in the log, and no record is lost."""
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
    assert list_operations(lake.config.output_path).count("SET TBLPROPERTIES") == 5
