"""The status of real tables and a real Kafka: the measured values match the records produced and ingested."""

import json
import math
import time
from dataclasses import fields, replace
from typing import Any

import pytest
from confluent_kafka import Producer
from pyspark.sql import SparkSession

from bronze.config import IngestConfig, StatusConfig
from bronze.errors import ConfigError
from bronze.ops import status
from bronze.ops.status_report import Status, list_notes, summarize, to_json, to_text
from sandbox.kafka import KafkaSandbox
from sandbox.topics import create_topic
from tests.support.events import BAD, make_event, make_events
from tests.support.lake import Lake
from tests.support.plots import draw
from tests.support.topic import Topic


def describe(lake: Lake, **changes: Any) -> StatusConfig:
    """The configuration of a status of a lake."""
    shared = {f.name: getattr(lake.config, f.name) for f in fields(StatusConfig) if hasattr(lake.config, f.name)}
    return StatusConfig(**{**shared, **changes})


def measure(lake: Lake, **changes: Any) -> Status:
    return status.status(describe(lake, **changes), lake.spark)


def read_states(found: Status) -> list[str]:
    return [alert.state for alert in found.alerts]


def produce_at(topic: Topic, count: int, hours_ago: float) -> None:
    producer = Producer({"bootstrap.servers": topic.brokers})
    for value in make_events(count):
        producer.produce(topic.name, value, partition=0, timestamp=int((time.time() - hours_ago * 3600) * 1000))
    assert producer.flush(30) == 0


@pytest.fixture(scope="module")
def filled(kafka: KafkaSandbox, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake of 30 valid and 8 invalid records in two batches; 5 more wait in Kafka."""
    topic, folder = Topic(kafka.brokers, "status"), tmp_path_factory.mktemp("status")
    create_topic(kafka.brokers, topic.name, 3)
    paths = {name: str(folder / name) for name in ("checkpoint_path", "output_path", "dlq_path")}
    lake = Lake(IngestConfig(kafka_brokers=kafka.brokers, kafka_topic=topic.name, available_now=True, **paths), spark)
    topic.produce(make_events(30) + BAD, partition=0)
    lake.ingest(max_offsets_per_trigger=20)
    topic.produce(make_events(5), partition=2)
    return lake


@pytest.fixture(scope="module")
def found(filled: Lake) -> Status:
    return measure(filled)


def test_counts_are_those_of_the_tables(found: Status):
    assert (found.totals["valid"], found.totals["invalid"]) == (30, 8)
    assert found.rows[["valid", "invalid"]].sum().to_dict() == {"valid": 30, "invalid": 8}
    assert found.files["rows"].groupby("table").sum().to_dict() == {"bronze": 30, "dlq": 8}


def test_lag_is_what_waits_in_kafka(found: Status):
    assert found.lag["lag"].to_dict() == {0: 0, 1: 0, 2: 5}
    assert found.lag["headroom"].to_dict() == {0: math.inf, 1: math.inf, 2: math.inf}


def test_the_tables_tell_the_lag_as_well_as_the_checkpoint(filled: Lake, found: Status):
    by_tables = measure(filled, checkpoint_path="")
    assert by_tables.lag["lag"].to_dict() == found.lag["lag"].to_dict()
    assert "lag is measured from the tables" in list_notes(by_tables)["note"].iloc[-1]


def test_batches_and_commits_are_those_of_the_delta_logs(found: Status):
    assert found.batches["rows"].tolist() == [20, 18]
    assert found.batches["seconds"].between(0.01, 300).all()
    assert found.commits["operation"].value_counts().to_dict()["CREATE TABLE"] == 2
    assert found.commits["rows"].sum() == 38


def test_the_delta_spark_writer_s_batch_has_a_duration_too(topic: Topic, lake: Lake):
    topic.produce(make_events(20) + BAD)
    lake.ingest(writer="delta-spark")
    (batch,) = measure(lake).batches.to_dict("records")
    assert batch["rows"] == 28
    assert 0 < batch["seconds"] < 300


def test_freshness_is_the_age_of_the_newest_of_each(found: Status):
    assert f"{found.freshness['time']['event']}" == "2026-01-31 22:30:00"
    assert found.freshness["age"][["Kafka timestamp", "ingestion"]].between(0, 30).all()
    assert 0 <= found.totals["p50"] <= found.totals["p99"] < 1_800


def test_a_time_in_small_letters_is_the_newest_too(topic: Topic, lake: Lake):
    topic.produce([make_event(event_timestamp="2026-01-31t22:45:00z"), *make_events(1)], partition=0)
    lake.ingest()
    assert f"{measure(lake).freshness['time']['event']}" == "2026-01-31 22:45:00"


def test_the_text_has_every_section(found: Status):
    text = to_text(found)
    for title in ("Newest in the tables", "Ingested in the last 24 h", "Lag", "small files", "commits", "Alerts"):
        assert title in text
    assert "8 (21.05%)" in text


def test_headroom_is_that_of_the_next_unread_record(make_topic: Any, lake: Lake):
    topic = make_topic(**{"retention.ms": str(4 * 3_600_000), "retention.bytes": "1000000000"})
    lake = replace(lake, config=replace(lake.config, kafka_topic=topic.name))
    produce_at(topic, 3, hours_ago=3.5)
    lake.ingest()
    produce_at(topic, 2, hours_ago=3)
    found = measure(lake)
    assert found.lag["headroom"][0] == pytest.approx(1, abs=0.1)
    assert found.lag["headroom"][1] == math.inf
    assert read_states(found)[-1] == "firing"
    assert "retention.bytes is 1,000,000,000" in found.notes[0]


@pytest.mark.parametrize(
    ("threshold", "counted", "state"),
    [(7, 8, "firing"), pytest.param(8, 8, "ok", marks=pytest.mark.soak), (0, None, "off")],
)
def test_the_records_that_wait_in_the_dlq_are_counted_unless_that_is_off(
    threshold: int, counted: int | None, state: str, topic: Topic, lake: Lake
):
    topic.produce(make_events(3) + BAD)
    lake.ingest()
    found = measure(lake, max_dlq_waiting=threshold)
    assert (found.dlq_waiting, read_states(found)[2]) == (counted, state)


def test_an_aborted_transaction_at_the_end_is_no_unread_record(topic: Topic, lake: Lake):
    topic.produce(make_events(3), partition=0)
    lake.ingest()
    producer = Producer({"bootstrap.servers": topic.brokers, "transactional.id": topic.name})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic.name, b"never mind", partition=0)
    producer.flush()
    producer.abort_transaction()
    found = measure(lake)
    assert found.lag["lag"][0] == 2
    assert found.lag["headroom"][0] == math.inf


def test_empty_tables_have_a_status_and_plots(topic: Topic, lake: Lake):
    lake.ingest()
    found = measure(lake)
    assert read_states(found) == ["unknown", "unknown", "ok", "ok", "unknown", "ok"]
    assert "(none)" in to_text(found)
    assert json.loads(to_json(found))["totals"] == {"valid": 0, "invalid": 0}
    assert summarize(found)["firing"] == "none"
    draw(found, describe(lake))


def test_a_dlq_that_is_not_there_yet_has_no_rows(topic: Topic, lake: Lake):
    topic.produce(make_events(3))
    lake.ingest(dlq_path="")
    found = measure(lake, report_hours=1)
    assert found.totals["valid"] == 3
    assert f"there is no DLQ table at file:{lake.config.dlq_path} yet" in found.notes
    draw(found, describe(lake))


def test_without_a_bronze_table_it_says_so(topic: Topic, lake: Lake):
    with pytest.raises(ConfigError, match="--output-path: there is no table at .*; ingest first"):
        measure(lake)


def test_the_command_ends_with_6_where_an_alert_fires_and_that_is_asked_for(
    filled: Lake, capsys: pytest.CaptureFixture[str]
):
    config = describe(filled, json=True)
    assert status.main(config) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [a["state"] for a in shown["alerts"] if a["alert"] == "invalid share"] == ["firing"]
    assert shown["lag"][2]["lag"] == 5
    assert status.main(replace(config, fail_on_alert=True)) == 6
