"""Every record of a real topic is in bronze once or in the DLQ once, with either writer and either trigger."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from confluent_kafka import Producer
from deltalake import DeltaTable
from pyspark.sql import functions as F

from bronze.columns import BRONZE_ARROW
from bronze.errors import TooManyInvalidError
from bronze.observe import progress
from bronze.schema import ERROR_TYPES
from sandbox.events import generate_events
from tests.support.commands import list_flags
from tests.support.events import BAD, START, make_event, make_events
from tests.support.lake import WRITERS, Lake, with_both
from tests.support.paths import ROOT
from tests.support.topic import Topic
from tests.support.waiting import wait_until


@with_both
def test_each_record_is_in_one_of_the_two_tables(topic: Topic, any_lake: Lake):
    topic.produce(make_events(50) + BAD)
    summary = any_lake.ingest()
    assert (summary.counts.total, summary.counts.valid, summary.counts.invalid) == (58, 50, 8)
    assert len(any_lake.positions()) == len(set(any_lake.positions())) == 58
    assert any_lake.bronze.count() == 50


@with_both
def test_each_kind_of_bad_value_has_its_error_type(topic: Topic, any_lake: Lake):
    topic.produce(BAD, partition=0)
    any_lake.ingest()
    rows = any_lake.dlq.orderBy("_kafka_offset").collect()
    assert [row["_error_type"] for row in rows] == list(ERROR_TYPES)
    assert [row["_raw_bytes"] for row in rows] == BAD
    assert rows[2]["_raw_value"] == "\\xff"
    assert rows[0]["_kafka_key"] == b"tenant-0"


def test_sample_events_arrive_as_what_they_were_made_as(topic: Topic, any_lake: Lake):
    records = list(generate_events(1_000, 1, START, invalid_ratio=0.1))
    topic.produce([record.value for record in records], partition=0)
    any_lake.ingest()
    found = {row["_kafka_offset"]: row["_error_type"] for row in any_lake.dlq.collect()}
    assert found == {offset: r.error_type for offset, r in enumerate(records) if r.error_type}


def test_parsed_columns_hold_what_the_raw_value_holds(topic: Topic, any_lake: Lake):
    topic.produce([record.value for record in generate_events(200, 2, START, invalid_ratio=0)])
    any_lake.ingest()
    for row in any_lake.bronze.collect():
        event, raw = row.asDict(recursive=True), json.loads(row["_raw_value"])
        parsed = {name: event[name] for name in BRONZE_ARROW.names if not name.startswith("_")}
        assert parsed == {name: raw[name] for name in parsed}


def test_hash_and_origin_are_those_of_the_record(topic: Topic, any_lake: Lake):
    topic.produce(make_events(3), partition=2)
    any_lake.ingest()
    rows = any_lake.bronze.withColumn("expected", F.xxhash64(F.encode("_raw_value", "utf-8")))
    for row in rows.orderBy("_kafka_offset").collect():
        assert row["_row_hash"] == row["expected"]
        assert (row["_kafka_topic"], row["_kafka_partition"]) == (topic.name, 2)
        assert row["_kafka_timestamp"] <= row["_ingested_at"]


def test_event_date_and_hour_are_in_utc(topic: Topic, any_lake: Lake):
    topic.produce([make_event(event_timestamp="2026-03-01T00:30:00+02:00")])
    any_lake.ingest()
    row = any_lake.bronze.select("_event_date", "_event_hour").first()
    assert tuple(row) == (date(2026, 2, 28), 22)


@with_both
def test_without_a_dlq_invalid_records_stay_in_bronze(topic: Topic, any_lake: Lake):
    topic.produce(make_events(2) + BAD)
    any_lake.ingest(dlq_path="")
    invalid = any_lake.bronze.where("not _is_valid")
    assert invalid.where("event_id is null and request is null and _event_date is null").count() == 8
    assert any_lake.bronze.where("_is_valid").count() == 2


def test_a_second_run_adds_only_what_is_new(topic: Topic, any_lake: Lake):
    topic.produce(make_events(10) + BAD)
    any_lake.ingest()
    assert any_lake.ingest().counts.total == 0
    topic.produce(make_events(5, first=10))
    assert any_lake.ingest().counts.total == 5
    assert len(set(any_lake.positions())) == len(any_lake.positions()) == 23


def test_a_deleted_checkpoint_doubles_nothing(topic: Topic, any_lake: Lake):
    topic.produce(make_events(20) + BAD)
    any_lake.ingest()
    topic.produce(make_events(5, first=20))
    summary = any_lake.ingest(checkpoint_path=any_lake.config.checkpoint_path + "-new")
    assert (summary.counts.present, summary.counts.valid) == (28, 5)
    assert len(set(any_lake.positions())) == len(any_lake.positions()) == 33


def test_batches_are_bounded_by_max_offsets_per_trigger(topic: Topic, any_lake: Lake):
    topic.produce(make_events(90))
    summary = any_lake.ingest(max_offsets_per_trigger=30)
    assert max(batch.counts.total for batch in summary.batches) <= 30
    assert summary.counts.total == any_lake.bronze.count() == 90
    assert any_lake.bronze.select("_ingested_at").distinct().count() == summary.batch_count >= 3


def test_latest_starts_behind_what_is_there(topic: Topic, lake: Lake):
    topic.produce(make_events(10))
    assert lake.ingest(starting_offsets="latest").counts.total == 0
    topic.produce(make_events(3, first=10))
    assert lake.ingest().counts.total == 3


def test_json_offsets_start_each_partition_where_they_say(topic: Topic, lake: Lake):
    for partition in range(3):
        topic.produce(make_events(10), partition)
    lake.ingest(starting_offsets=json.dumps({topic.name: {"0": 8, "1": -2, "2": -1}}))
    assert lake.positions() == [(0, 8), (0, 9)] + [(1, offset) for offset in range(10)]


def test_an_empty_topic_makes_empty_tables(lake: Lake):
    assert lake.ingest().counts.total == 0
    assert lake.bronze.count() == lake.dlq.count() == 0


def test_records_of_aborted_transactions_are_left_out(topic: Topic, lake: Lake):
    producer = Producer({"bootstrap.servers": topic.brokers, "transactional.id": topic.name})
    producer.init_transactions(30)
    for number, end in enumerate([producer.commit_transaction, producer.abort_transaction]):
        producer.begin_transaction()
        producer.produce(topic.name, make_event(number), partition=0)
        end(30)
    lake.ingest()
    assert [row["event_id"] for row in lake.bronze.collect()] == ["event-0"]


@pytest.mark.soak
def test_a_batch_may_hold_5000_distinct_hours(topic: Topic, lake: Lake):
    hours = [datetime(2015, 1, 1, tzinfo=UTC) + timedelta(hours=number) for number in range(5_000)]
    topic.produce([make_event(event_timestamp=hour.isoformat()) for hour in hours])
    lake.ingest()
    table = DeltaTable(lake.config.output_path)
    assert len(table.partitions()) == 5_000
    assert table.count() == 5_000


def test_a_large_partition_is_shared_by_the_tasks_of_all_cores(make_topic: Callable[..., Topic], lake: Lake):
    single, cores = make_topic(1), lake.spark.sparkContext.defaultParallelism
    single.produce(make_events(10_001))  # three parts of at most 5,000, all of one hour
    lake.ingest(kafka_topic=single.name)
    assert len(DeltaTable(lake.config.output_path).file_uris()) == min(cores, 3)
    assert lake.bronze.count() == 10_001


def test_single_records_of_10_megabytes_pass(make_topic: Callable[..., Topic], lake: Lake):
    big = make_topic(**{"max.message.bytes": "16000000"})
    values = [make_event(n, custom_attributes={"blob": "x" * 10_000_000}) for n in range(3)] + [b"\xff" * 10_000_000]
    big.produce(values)
    lake.ingest(kafka_topic=big.name)
    assert lake.bronze.select(F.max(F.length("_raw_value"))).first()[0] > 10_000_000
    assert lake.dlq.select(F.max(F.length("_raw_bytes"))).first()[0] == 10_000_000


def test_a_batch_of_invalid_records_only_leaves_bronze_empty(topic: Topic, any_lake: Lake):
    topic.produce(BAD * 100)
    assert any_lake.ingest().counts.invalid == 800
    assert any_lake.bronze.count() == 0
    assert any_lake.dlq.count() == 800


def test_both_writers_write_the_same_rows(topic: Topic, lake: Lake, tmp_path):
    topic.produce([record.value for record in generate_events(500, 3, START, invalid_ratio=0.05)])
    paths = {w: {n: f"{tmp_path}/{w}/{n}" for n in ("output_path", "dlq_path", "checkpoint_path")} for w in WRITERS}
    for writer in WRITERS:
        lake.ingest(writer=writer, **paths[writer])
    for table in ("output_path", "dlq_path"):
        # Maps cannot be compared by exceptAll; as JSON they can.
        first, second = (lake.read(paths[w][table]).drop("_ingested_at", "_dlq_date") for w in WRITERS)
        assert first.schema == second.schema
        rows = [frame.select(F.to_json(F.struct("*"), {"ignoreNullFields": "false"})) for frame in (first, second)]
        assert rows[0].exceptAll(rows[1]).count() == rows[1].exceptAll(rows[0]).count() == 0
        assert rows[0].count() == rows[1].count() > 0


def test_metrics_are_logged_in_their_exact_form(topic: Topic, any_lake: Lake, bronze_log: pytest.LogCaptureFixture):
    for partition in (0, 2):
        topic.produce(make_events(4) + [b"{"], partition)
    any_lake.ingest()
    assert "Batch 0: total=10, valid=8, invalid=2" in bronze_log.messages
    assert "Batch 0 partition distribution: [(0, 5), (2, 5)]" in bronze_log.messages


def test_too_many_invalid_records_stop_the_run_behind_their_batch(topic: Topic, any_lake: Lake):
    topic.produce([*make_events(20), *BAD[:2], *make_events(4), *BAD, *make_events(50)], partition=0)
    limits = {"max_offsets_per_trigger": 12, "max_invalid_ratio": 0.5}
    with pytest.raises(TooManyInvalidError, match="8 of the 12 records of batch 2 are invalid, 66.7%.* allows 0.5"):
        any_lake.ingest(**limits)
    assert len(any_lake.positions()) == 36
    summary = any_lake.ingest(**limits)
    assert (summary.batches[0].batch_id, summary.counts.present, summary.counts.valid) == (3, 0, 48)
    assert len(any_lake.positions()) == len(set(any_lake.positions())) == 84


def test_an_empty_batch_is_said_to_be_empty(topic: Topic, lake: Lake, bronze_log: pytest.LogCaptureFixture):
    producer = Producer({"bootstrap.servers": topic.brokers, "transactional.id": topic.name})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic.name, make_event())
    producer.abort_transaction(30)
    lake.ingest()
    assert "Batch 0: empty" in bronze_log.messages


def test_metrics_cost_no_spark_job(topic: Topic, any_lake: Lake):
    topic.produce(make_events(10))
    tracker = any_lake.spark.sparkContext._jsc.sc().statusTracker()
    jobs = {}
    for with_metrics in (False, True):
        before = set(tracker.getJobIdsForGroup(None))
        name = f"{any_lake.config.output_path}-{with_metrics}"
        any_lake.ingest(output_path=name, dlq_path=name + "d", checkpoint_path=name + "c", with_metrics=with_metrics)
        jobs[with_metrics] = len(set(tracker.getJobIdsForGroup(None)) - before)
    assert jobs[True] == jobs[False]


def test_a_stream_in_intervals_goes_on_until_it_is_interrupted(topic: Topic, lake: Lake):
    topic.produce(make_events(30))
    live = replace(lake.config, available_now=False, trigger_interval="1 second")
    command = [sys.executable, "-m", "bronze.cli", "ingest", *list_flags(live)]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        try:
            wait_until(lambda: lake.has_rows(30))
            topic.produce(make_events(20, first=30))
            wait_until(lambda: lake.has_rows(50))
            process.send_signal(signal.SIGINT)
            printed, log = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "Stopping (requested by SIGINT)" in log
    assert re.search(r"50 records in \d+ batches: 50 valid, 0 invalid", printed)
    assert lake.ingest().counts.total == 0


def test_a_large_backlog_says_how_much_is_left_and_one_batch_nothing(
    topic: Topic, any_lake: Lake, bronze_log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Log at every check, once a second, instead of every ten seconds."""
    monkeypatch.setattr(progress, "_INTERVAL", 0)
    topic.produce(make_events(400))
    assert any_lake.ingest(max_offsets_per_trigger=20).batch_count >= 20
    pattern = r"Progress: (\d+) batch(?:es)? done, (\d+) of 400 records; (\d+) left at \d+ records/s, about [\da-z ]+"
    lines = [line for line in bronze_log.messages if line.startswith("Progress")]
    found = [re.fullmatch(pattern, line) for line in lines]
    assert lines, bronze_log.messages
    assert all(found), lines
    batches, done, left = zip(*([int(text) for text in match.groups()] for match in found if match), strict=True)
    assert [one + other for one, other in zip(done, left, strict=True)] == [400] * len(found)
    assert list(batches) == sorted(set(batches))
    assert list(left) == sorted(set(left), reverse=True)
    bronze_log.clear()
    topic.produce(make_events(30))
    assert any_lake.ingest().batch_count == 1
    assert [line for line in bronze_log.messages if line.startswith("Progress")] == []
