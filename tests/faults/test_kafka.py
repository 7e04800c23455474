"""Failures of Kafka: the stream continues by itself, or stops and says why; the audit proves the result."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewPartitions
from deltalake import DeltaTable

from bronze import backfill, batch
from bronze.config import BackfillConfig
from bronze.delta.tables import read_table_state
from bronze.errors import ConfigError, DataLossError, RecordUnreadableError
from bronze.ops.backfill import append_batches
from sandbox.kafka import KafkaSandbox
from sandbox.topics import create_topic
from tests.support.audit import assert_complete, audit, describe
from tests.support.backfill import run_backfill
from tests.support.events import BAD, make_event, make_events
from tests.support.ingestion import GATED, PAUSE, Ingestion
from tests.support.lake import EITHER_WRITER, Lake
from tests.support.topic import Topic, delete_records
from tests.support.waiting import wait_until

OUTAGE_SECONDS = 60


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSandbox]:
    """A separate broker for this file, because it is stopped and killed; its topics and its port stay."""
    with KafkaSandbox(tmp_path_factory.mktemp("broker"), port=0) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def started_broker(kafka: KafkaSandbox) -> None:
    """Start the broker, so that a test that failed during an outage does not fail the next one."""
    kafka.start()


@pytest.fixture
def stream(lake: Lake) -> Lake:
    """A lake whose ingestion runs until it is stopped."""
    return replace(lake, config=replace(lake.config, available_now=False, trigger_interval="1 second"))


@pytest.fixture
def impatient(tmp_path: Path) -> str:
    """Properties of clients that wait for a broker for two seconds only."""
    file = tmp_path / "impatient"
    file.write_text("default.api.timeout.ms=2000\nrequest.timeout.ms=1000\n")
    return str(file)


@contextmanager
def frozen(ingestion: Ingestion) -> Iterator[None]:
    """Run the block between two requests of the ingestion to Kafka."""
    os.killpg(ingestion.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(ingestion.process.pid, signal.SIGCONT)


def assert_stops_complete(lake: Lake, ingestion: Ingestion, records: int) -> None:
    """The same process has ingested everything, and stops as requested."""
    wait_until(lambda: lake.has_rows(records), 180)
    assert ingestion.send(signal.SIGTERM).wait() == 0, ingestion.log[-3000:]
    assert_complete(lake, records)


def assert_clear(ingestion: Ingestion, exit_code: int, *texts: str) -> None:
    """The process ended with one line that says why, without a stack trace of Python or Java."""
    assert ingestion.wait(240) == exit_code, ingestion.log[-3000:]
    (said,) = [line for line in ingestion.log.splitlines() if line.startswith("bronze: ")]
    assert all(text in said for text in texts), said
    assert "Traceback" not in ingestion.log
    assert "\tat " not in ingestion.log


@pytest.mark.soak
def test_a_minute_without_the_broker_in_the_middle_of_a_backlog(kafka, topic: Topic, stream: Lake, start):
    topic.produce(make_events(3_000))
    ingestion = start(replace(stream.config, max_offsets_per_trigger=200)).wait_for("Batch 1: total")
    kafka.stop()
    time.sleep(OUTAGE_SECONDS)
    kafka.start()
    assert_stops_complete(stream, ingestion, 3_000)
    assert f"Kafka at {kafka.brokers} does not answer, waited" in ingestion.log
    assert f"Kafka at {kafka.brokers} answers again, after" in ingestion.log


def test_a_broker_that_is_killed_and_restarted_between_batches(kafka, topic: Topic, stream: Lake, start):
    topic.produce(make_events(20))
    ingestion = start(stream.config).wait_for("Batch 0: total")
    for first in (20, 40):
        kafka.kill()
        kafka.start()
        topic.produce(make_events(20, first))
        wait_until(partial(stream.has_rows, first + 20))
    assert_stops_complete(stream, ingestion, 60)


@pytest.mark.soak
def test_a_broker_that_comes_up_within_the_startup_timeout(kafka, topic: Topic, lake: Lake, start):
    topic.produce(make_events(20))
    kafka.stop()
    ingestion = start(replace(lake.config, startup_timeout=300)).wait_for("does not answer, waited")
    kafka.start()
    assert ingestion.wait() == 0, ingestion.log[-3000:]
    assert_complete(lake, 20)


@pytest.mark.soak
def test_an_outage_that_is_longer_than_the_client_waits(kafka, topic: Topic, stream: Lake, start, impatient: str):
    topic.produce(make_events(20))
    config = replace(stream.config, kafka_config=impatient, max_restarts=0)
    ingestion = start(config).wait_for("Batch 0: total")
    kafka.stop()
    assert_clear(
        ingestion, 1, "Kafka did not answer within the timeouts of its clients: TimeoutException", "run the same"
    )
    kafka.start()
    topic.produce(make_events(20, first=20))
    stream.ingest(available_now=True)
    assert_complete(stream, 40)


def test_an_outage_that_is_longer_than_the_client_waits_restarts_the_query(
    kafka, topic: Topic, stream: Lake, start, impatient: str
):
    topic.produce(make_events(20))
    ingestion = start(replace(stream.config, kafka_config=impatient)).wait_for("Batch 0: total")
    kafka.stop()
    ingestion.wait_for("restart 1 of 5 in 2 s")
    kafka.start()
    topic.produce(make_events(20, first=20))
    wait_until(partial(stream.has_rows, 40))
    assert ingestion.send(signal.SIGTERM).wait() == 0, ingestion.log[-3000:]
    assert_complete(stream, 40)


@pytest.mark.soak
def test_a_stop_ends_the_wait_before_a_restart(kafka, topic: Topic, stream: Lake, start, impatient: str):
    topic.produce(make_events(20))
    config = replace(stream.config, kafka_config=impatient, startup_timeout=5)
    ingestion = start(config).wait_for("Batch 0: total")
    kafka.stop()
    ingestion.wait_for("restart 3 of 5 in 8 s").send(signal.SIGTERM)
    assert ingestion.wait(6) == 0, ingestion.log[-3000:]
    kafka.start()
    assert_complete(stream, 20)


def add_partitions(topic: Topic, count: int) -> None:
    admin = AdminClient({"bootstrap.servers": topic.brokers})
    for future in admin.create_partitions([NewPartitions(topic.name, count)]).values():
        future.result()


def test_partitions_that_are_added_while_the_stream_runs(topic: Topic, stream: Lake, start):
    topic.produce(make_events(20))
    ingestion = start(stream.config).wait_for("Batch 0: total")
    with frozen(ingestion):  # the records exist before the ingestion notices the partitions
        add_partitions(topic, 5)
        for partition in range(5):
            topic.produce(make_events(10), partition)
    assert_stops_complete(stream, ingestion, 70)


def test_partitions_that_are_added_while_it_is_down(topic: Topic, lake: Lake):
    topic.produce(make_events(20))
    lake.ingest()
    add_partitions(topic, 4)
    topic.produce(make_events(10), partition=3)
    assert lake.ingest().counts.present == 0
    assert_complete(lake, 30)


def delete(topic: Topic) -> None:
    admin = AdminClient({"bootstrap.servers": topic.brokers})  # a temporary object would be deleted before the answer
    admin.delete_topics([topic.name])[topic.name].result()


def recreate(topic: Topic, records: int) -> None:
    """Delete the topic, and create one with the same name and other records."""
    delete(topic)
    for attempt in range(100):
        try:
            create_topic(topic.brokers, topic.name, 3)
            break
        except KafkaException:  # the old topic still exists
            assert attempt < 99
            time.sleep(0.1)
    topic.produce(make_events(records, first=1_000), partition=0)


def read_versions(lake: Lake) -> list[int]:
    return [DeltaTable(path).version() for path in (lake.config.output_path, lake.config.dlq_path)]


@pytest.mark.parametrize("records", [5, 50], ids=["shorter", "longer"])
def test_a_topic_that_was_recreated_while_the_stream_was_down(topic: Topic, lake: Lake, records: int):
    topic.produce(make_events(20), partition=0)
    lake.ingest()
    before = read_versions(lake)
    recreate(topic, records)
    assert_refused(lake)
    shutil.rmtree(lake.config.checkpoint_path)
    assert_refused(lake)
    assert read_versions(lake) == before
    assert_cure_works(lake, records)


def assert_refused(lake: Lake) -> None:
    with pytest.raises(
        ConfigError, match="recreated since .*Use new --output-path, --dlq-path and --checkpoint-path"
    ) as refused:
        lake.ingest()
    assert refused.value.exit_code == 2


def assert_cure_works(lake: Lake, records: int) -> None:
    """With new paths, as the message says, the new topic is ingested."""
    names = ("output_path", "dlq_path", "checkpoint_path")
    renewed = replace(lake.config, available_now=True, **{name: getattr(lake.config, name) + "-new" for name in names})
    fresh = replace(lake, config=renewed)
    fresh.ingest()
    assert_complete(fresh, records)


@pytest.mark.parametrize(
    ("records", "flag"),
    [(5, "fail"), pytest.param(5, "accept", marks=pytest.mark.soak), (50, "fail")],
    ids=["shorter", "shorter-accepted", "longer"],
)
def test_a_topic_that_is_recreated_while_the_stream_runs(topic: Topic, stream: Lake, start, records: int, flag: str):
    topic.produce(make_events(20), partition=0)
    ingestion = start(replace(stream.config, fail_on_data_loss=flag == "fail")).wait_for("Batch 0: total")
    with frozen(ingestion):
        recreate(topic, records)
    assert_clear(ingestion, 2, "was deleted and recreated", "Use new --output-path")
    assert stream.positions() == [(0, offset) for offset in range(20)]


@pytest.mark.parametrize("writer", EITHER_WRITER)
def test_a_topic_that_is_recreated_between_plan_and_read(topic: Topic, lake: Lake, start, tmp_path: Path, writer: str):
    topic.produce(make_events(20), partition=0)
    ingestion = start(replace(lake.config, writer=writer), *GATED, GATE=str(tmp_path / "gate"))
    ingestion.wait_for("Gate: batch 0 is planned")
    recreate(topic, 50)
    (tmp_path / "gate").touch()
    assert_clear(ingestion, 2, "was deleted and recreated", "Use new --output-path")
    assert lake.positions() == []


def test_a_batch_that_fails_while_a_stop_waits_for_it_still_says_why(topic: Topic, lake: Lake, start, tmp_path: Path):
    topic.produce(make_events(20), partition=0)
    ingestion = start(lake.config, *GATED, GATE=str(tmp_path / "gate")).wait_for("Gate: batch 0 is planned")
    ingestion.send(signal.SIGTERM).wait_for("Stopping (requested by SIGTERM)")
    recreate(topic, 50)
    (tmp_path / "gate").touch()
    assert_clear(ingestion, 2, "was deleted and recreated", "Use new --output-path")
    assert lake.positions() == []


def find_log(kafka: KafkaSandbox, topic: Topic) -> Path:
    """The broker's file with the records of partition 0."""
    return kafka.data_dir / "kafka" / f"{topic.name}-0" / f"{0:020}.log"


def lose_records(kafka: KafkaSandbox, topic: Topic, size: int) -> None:
    """A power cut after which the broker has only the first bytes of partition 0."""
    kafka.kill()
    os.truncate(find_log(kafka, topic), size)
    kafka.start()


def fresh(lake: Lake) -> Lake:
    """The lake with a new checkpoint."""
    return replace(lake, config=replace(lake.config, checkpoint_path=f"{lake.config.checkpoint_path}-2"))


def test_a_topic_that_lost_its_newest_records(kafka, topic: Topic, lake: Lake):
    """The start and the backfill refuse it, also after new records came, and the audit names the old ones."""
    topic.produce(make_events(10), partition=0)
    size = find_log(kafka, topic).stat().st_size
    topic.produce([*make_events(9, first=10), b"{"], partition=0)
    lake.ingest()
    lose_records(kafka, topic, size)
    runs = (lake.ingest, fresh(lake).ingest, partial(run_backfill, lake))
    for beyond, offsets in (([(10, 19)], "10-19"), ([(14, 19)], "14-19")):
        for run in runs:
            with pytest.raises(DataLossError, match=f"has lost its newest records: partition 0, offsets {offsets}"):
                run()
        for checkpoint_path in (lake.config.checkpoint_path, ""):
            assert describe(audit(lake, checkpoint_path=checkpoint_path)) == {0: {"at or beyond Kafka's end": beyond}}
        topic.produce(make_events(4, first=20), partition=0)
    assert lake.positions() == [(0, offset) for offset in range(20)]


@pytest.mark.parametrize("flag", ["fail", "accept"])
def test_a_topic_that_loses_its_newest_records_while_the_stream_runs(kafka, topic: Topic, stream: Lake, start, flag):
    topic.produce(make_events(10), partition=0)
    size = find_log(kafka, topic).stat().st_size
    topic.produce(make_events(10, first=10), partition=0)
    ingestion = start(replace(stream.config, fail_on_data_loss=flag == "fail")).wait_for("Batch 0: total")
    lose_records(kafka, topic, size)
    assert_clear(ingestion, 3, "has lost its newest records: partition 0, offsets 10-19")
    assert stream.positions() == [(0, offset) for offset in range(20)]


def test_a_topic_that_lost_the_records_of_a_half_committed_batch(kafka, topic: Topic, lake: Lake, start):
    """The DLQ has rows that bronze's ledger does not know; new records at their offsets must not be skipped."""
    topic.produce([*make_events(2), *BAD], partition=0)
    size = find_log(kafka, topic).stat().st_size
    topic.produce(BAD, partition=0)
    start(lake.config, *PAUSE, PAUSE_AT="between the commits").wait_for("Paused").kill()
    lose_records(kafka, topic, size)
    topic.produce(make_events(4), partition=0)
    for run in (fresh(lake).ingest, partial(run_backfill, lake)):
        with pytest.raises(DataLossError, match="has lost its newest records: partition 0, offsets 14-17"):
            run()
    assert describe(audit(lake, checkpoint_path=""))[0]["at or beyond Kafka's end"] == [(14, 17)]


@pytest.mark.parametrize("records", [5, 50], ids=["shorter", "longer"])
def test_a_topic_that_is_recreated_under_a_backfill(
    topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch, records: int
):
    topic.produce(make_events(20), partition=0)
    lake.ingest(starting_offsets="latest")

    def recreate_first(*arguments):
        recreate(topic, records)
        return append_batches(*arguments)

    monkeypatch.setattr("bronze.ops.backfill.append_batches", recreate_first)
    names = ("kafka_brokers", "kafka_topic", "output_path", "dlq_path")
    config = BackfillConfig(**{name: getattr(lake.config, name) for name in names}, starting_offsets="earliest")
    with pytest.raises(ConfigError, match="was deleted and recreated since"):
        backfill(config, lake.spark)
    assert lake.positions() == []


def test_a_topic_that_is_deleted_while_the_stream_runs(topic: Topic, stream: Lake, start):
    topic.produce(make_events(20), partition=0)
    ingestion = start(stream.config).wait_for("Batch 0: total")
    delete(topic)
    assert_clear(ingestion, 2, f"has no topic '{topic.name}'")
    assert stream.positions() == [(0, offset) for offset in range(20)]


def test_records_that_retention_deletes_unread_while_the_stream_runs(topic: Topic, stream: Lake, start):
    topic.produce(make_events(10), partition=1)
    ingestion = start(stream.config).wait_for("Batch 0: total")
    with frozen(ingestion):
        topic.produce(make_events(10, first=10), partition=1)
        delete_records(topic, 1, before=15)
    assert_clear(ingestion, 3, "deleted records before they were read: partition 1, offsets 10-14.")
    assert stream.positions() == [(1, offset) for offset in range(10)]
    stream.ingest(available_now=True, fail_on_data_loss=False)
    assert_gap_is_explained(stream)


@pytest.mark.soak
def test_accepted_loss_while_the_stream_runs(topic: Topic, stream: Lake, start):
    topic.produce(make_events(10), partition=1)
    ingestion = start(replace(stream.config, fail_on_data_loss=False)).wait_for("Batch 0: total")
    with frozen(ingestion):
        topic.produce(make_events(10, first=10), partition=1)
        delete_records(topic, 1, before=15)
    ingestion.wait_for("Warning: data loss is accepted, Kafka no longer has partition 1, offsets 10-14")
    topic.produce(make_events(5, first=20), partition=1)
    wait_until(lambda: stream.has_rows(20))
    assert ingestion.send(signal.SIGTERM).wait() == 0
    assert_gap_is_explained(stream, end=25)


@pytest.mark.parametrize("writer", EITHER_WRITER)
def test_accepted_loss_between_the_plan_of_a_batch_and_its_read(
    topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch, writer: str
):
    topic.produce(make_events(10), partition=1)
    lake.ingest()
    topic.produce(make_events(10, first=10), partition=1)
    original = batch.append_batch

    def append(*arguments, **named):
        delete_records(topic, 1, before=15)
        return original(*arguments, **named)

    monkeypatch.setattr(batch, "append_batch", append)
    lake.ingest(fail_on_data_loss=False, writer=writer)
    assert_gap_is_explained(lake)


def assert_gap_is_explained(lake: Lake, end: int = 20) -> None:
    """Offsets 10 to 14 of partition 1 are recorded as lost in bronze, and all other records are in the tables once."""
    assert lake.positions() == [(1, offset) for offset in [*range(10), *range(15, end)]]
    state = read_table_state(lake.config.output_path, "output-path")
    assert state is not None
    assert state.note.ledger[lake.config.kafka_topic].lost == {1: [(10, 14)]}
    report = audit(lake)
    assert report.is_complete, report.to_text()
    assert [ranges for p in report.partitions for ranges in p.explained.values()] == [[(10, 14)]]


def test_a_record_that_spark_cannot_read_is_what_the_audit_finds(make_topic: Callable[..., Topic], lake: Lake):
    topic = make_topic(1, **{"message.timestamp.after.max.ms": str(2**63 - 1)})
    topic.produce(make_events(2))
    producer = Producer({"bootstrap.servers": topic.brokers})
    producer.produce(topic.name, make_event(2), timestamp=2**63 - 1)
    assert producer.flush(30) == 0
    topic.produce(make_events(2, first=3))
    lake = replace(lake, config=replace(lake.config, kafka_topic=topic.name))
    with pytest.raises(RecordUnreadableError, match="partition 0, offset 2"):
        lake.ingest()
    (before, behind) = (
        replace(lake, config=replace(lake.config, checkpoint_path=f"{lake.config.checkpoint_path}-{number}"))
        for number in range(2)
    )
    with pytest.raises(RecordUnreadableError):
        before.ingest(max_offsets_per_trigger=1)
    behind.ingest(starting_offsets=json.dumps({topic.name: {"0": 3}}))
    (partition,) = audit(behind).partitions
    assert partition.findings == {"missing": [(2, 2)]}
    assert lake.positions() == [(0, 0), (0, 1), (0, 3), (0, 4)]


@pytest.mark.soak
def test_records_of_10_megabytes_with_the_settings_that_the_readme_names(
    make_topic: Callable[..., Topic], lake: Lake, start, tmp_path: Path
):
    topic = make_topic(**{"max.message.bytes": "16000000"})
    topic.produce([make_event(0, custom_attributes={"blob": "x" * 10_000_000}), b"\xff" * 10_000_000, make_event(1)])
    (tmp_path / "large").write_text("fetch.max.bytes=67108864\nmax.partition.fetch.bytes=16777216\n")
    config = replace(lake.config, kafka_topic=topic.name, kafka_config=str(tmp_path / "large"))
    ingestion = start(config)
    assert ingestion.wait() == 0, ingestion.log[-3000:]
    assert_complete(replace(lake, config=config), 3)
