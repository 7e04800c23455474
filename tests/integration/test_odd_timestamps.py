"""Records with implausible Kafka timestamps on a real topic: ingested, measured and backfilled like any others."""

import json
import math
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Producer
from deltalake import DeltaTable, write_deltalake

from bronze import audit, replay, status
from bronze import backfill as run_backfill
from bronze import maintain as run_maintain
from bronze.config import AuditConfig, BackfillConfig, InspectConfig, MaintainConfig, ReplayConfig, StatusConfig
from bronze.decode import Invalid
from bronze.delta.dlq import read_dlq
from bronze.notebook import dlq
from bronze.ops.status_report import Status, to_json, to_text
from bronze.transforms import build_dlq
from tests.support.builders import make_records
from tests.support.events import make_event
from tests.support.lake import EITHER_WRITER, Lake
from tests.support.plots import draw
from tests.support.topic import Topic, delete_records

HOUR = 3_600_000
YEAR_2300, YEAR_10000, YEAR_58872 = 10_413_792_000_000, 253_402_300_800_000, 1_796_083_200_000_000
SECONDS = 1_796_083_200
ODD = [1, 1_000_000, SECONDS, YEAR_10000, YEAR_58872]
# One of each kind, for tests in which each takes seconds.
each_kind = pytest.mark.parametrize("odd", [SECONDS, YEAR_58872])
EACH = [SECONDS, YEAR_58872, *(pytest.param(odd, marks=pytest.mark.soak) for odd in (1, YEAR_2300, YEAR_10000))]


def now() -> int:
    return time.time_ns() // 1_000_000


def produce_at(topic: Topic, *timestamps: int, partition: int = 0, value: bytes | None = None) -> None:
    """Produce a record with each timestamp, in milliseconds; the records are valid unless a value is given."""
    producer = Producer({"bootstrap.servers": topic.brokers})
    for timestamp in timestamps:
        event = make_event(timestamp % 1000, event_timestamp=f"{datetime.now(UTC).isoformat()}")
        producer.produce(topic.name, value or event, partition=partition, timestamp=timestamp)
    assert producer.flush(30) == 0


@pytest.fixture
def topic(make_topic: Callable[..., Topic]) -> Topic:
    """A topic that accepts any timestamp, and keeps records for a day."""
    limits = {f"message.timestamp.{side}.max.ms": str(2**63 - 1) for side in ("before", "after")}
    return make_topic(1, **limits, **{"retention.ms": str(24 * HOUR)})


def measure(lake: Lake, **changes: Any) -> Status:
    config = lake.configure(StatusConfig, **changes)
    found = status(config, lake.spark)
    to_text(found)
    json.loads(to_json(found))
    draw(found, config)
    return found


def read_age(found: Status) -> float:
    return found.freshness["age"]["Kafka timestamp"]


def test_valid_events_of_now_are_valid_whatever_their_kafka_timestamps(topic: Topic, any_lake: Lake):
    produce_at(topic, *ODD, now())
    summary = any_lake.ingest()
    assert (summary.counts.valid, summary.counts.invalid) == (6, 0)
    assert audit(any_lake.configure(AuditConfig), any_lake.spark).verdict.startswith("Complete")


@pytest.mark.parametrize("odd", EACH)
def test_one_odd_record_changes_no_figure_of_the_status(topic: Topic, lake: Lake, odd: int):
    produce_at(topic, now() - 3 * HOUR, odd, now() - 2 * HOUR)
    lake.ingest()
    produce_at(topic, odd, now() - HOUR)
    found = measure(lake)
    assert found.lag["headroom"][0] == pytest.approx(23, abs=0.1)
    assert read_age(found) == pytest.approx(120, abs=5)
    assert 2 * 3600 - 5 < found.totals["p50"] < 4 * 3600
    assert found.totals["odd_timestamps"] == 1
    assert any("1 records have an implausible Kafka timestamp" in note for note in found.notes)


@pytest.mark.soak
@each_kind
def test_an_odd_record_alone_in_its_file_hides_no_age(topic: Topic, lake: Lake, odd: int):
    """One record in the DLQ, whose batch has others in bronze; and a file of an earlier batch with a later time."""
    produce_at(topic, now() - 2 * HOUR)
    lake.ingest()
    produce_at(topic, now() - 3 * HOUR)
    produce_at(topic, odd, value=b"broken")
    lake.ingest()
    assert read_age(measure(lake)) == pytest.approx(120, abs=5)


@pytest.mark.soak
@each_kind
def test_producers_that_all_stamp_oddly_have_not_fallen_silent(topic: Topic, lake: Lake, odd: int):
    produce_at(topic, now() - 2 * HOUR)
    lake.ingest()
    produce_at(topic, odd, odd)
    lake.ingest()
    assert 0 <= read_age(measure(lake)) < 5


def test_a_record_of_a_clock_that_is_ahead_has_an_age_and_a_delay_of_nothing(topic: Topic, lake: Lake):
    produce_at(topic, now() + HOUR // 2)
    lake.ingest()
    found = measure(lake)
    assert 0 <= read_age(found) < 5
    assert (found.totals["p99"], found.totals["odd_timestamps"]) == (0, 0)


@pytest.mark.parametrize("writer", EITHER_WRITER)
def test_the_newest_record_s_age_is_known_where_no_file_has_a_statistic_of_it(topic: Topic, lake: Lake, writer: str):
    produce_at(topic, YEAR_58872)
    lake.ingest(writer=writer)
    assert 0 <= read_age(measure(lake)) < 5
    for file in Path(lake.config.output_path, "_delta_log").glob("*.json"):
        remove_statistics(file)
    assert 0 <= read_age(measure(lake)) < 5


def remove_statistics(file: Path) -> None:
    """As if a writer had not collected any."""
    actions = [json.loads(line) for line in file.read_text().splitlines()]
    for action in actions:
        if "add" in action:
            action["add"]["stats"] = json.dumps({"numRecords": json.loads(action["add"]["stats"])["numRecords"]})
    file.write_text("\n".join(map(json.dumps, actions)))
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)


def test_the_next_unread_record_alone_is_not_blind(topic: Topic, lake: Lake):
    """The records before it show roughly when it was produced."""
    produce_at(topic, now() - 4 * HOUR)
    lake.ingest()
    produce_at(topic, 1)
    assert measure(lake).lag["headroom"][0] == pytest.approx(20, abs=0.1)


def test_where_all_timestamps_are_odd_the_headroom_is_neither_zero_nor_without_end(topic: Topic, lake: Lake):
    lake.ingest()
    produce_at(topic, 1, 2)
    found = measure(lake)
    assert math.isnan(found.lag["headroom"][0])
    assert any("the headroom of partitions 0 is not known" in note for note in found.notes)
    assert "unknown" in to_text(found)


def test_where_all_timestamps_are_in_the_future_the_headroom_is_the_retention(topic: Topic, lake: Lake):
    lake.ingest()
    produce_at(topic, YEAR_58872, YEAR_10000)
    assert measure(lake).lag["headroom"][0] == pytest.approx(24, abs=0.1)


@pytest.mark.soak
def test_maintenance_leaves_tables_with_odd_timestamps_readable(topic: Topic, lake: Lake):
    for _ in range(3):
        produce_at(topic, YEAR_58872, 1, now())
        produce_at(topic, YEAR_10000, value=b"broken")
        lake.ingest()
    run_maintain(lake.configure(MaintainConfig, optimize_after_hours=0), lake.spark)
    lake.spark.sql(f"OPTIMIZE delta.`{lake.config.output_path}`").collect()
    lake.spark.sql(f"OPTIMIZE delta.`{lake.config.dlq_path}`").collect()
    produce_at(topic, YEAR_58872, 1, now())
    assert lake.ingest().counts.valid == 3
    assert 0 <= read_age(measure(lake)) < 5
    assert DeltaTable(lake.config.output_path).count() == 12
    assert audit(lake.configure(AuditConfig), lake.spark).verdict.startswith("Complete")


def plan(lake: Lake, **times: Any) -> tuple[list[tuple[int, int]], list[str]]:
    """The offsets that a dry run would add, and why Kafka may not hold all of them."""
    config = lake.configure(BackfillConfig, max_offsets_per_trigger=1000, checkpoint_path="", dry_run=True, **times)
    found = run_backfill(config, lake.spark).plan
    return list(found.requested.values()), found.outside


def at(hours_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours_ago)).isoformat()


@each_kind
def test_a_backfill_by_time_has_the_records_of_that_time(topic: Topic, lake: Lake, odd: int):
    """Offsets 0 to 9, one per hour; offset 2 is the odd one."""
    hours = [now() - hour * HOUR for hour in range(9, 0, -1)]
    produce_at(topic, *hours[:2], odd, *hours[2:])
    assert plan(lake, start_timestamp=at(7.5), end_timestamp=at(3.5)) in (([(2, 7)], []), ([(3, 7)], []))
    assert plan(lake, start_timestamp=at(4.5)) == ([(6, 10)], [])
    assert plan(lake, end_timestamp=at(4.5)) == ([(0, 6)], [])
    always = {"start_timestamp": "2026-01-01T00:00:00Z", "end_timestamp": "9999-12-31T23:59:59Z"}
    assert plan(lake, **always) == ([(0, 10)], [])


@each_kind
def test_a_range_without_records_names_the_times_that_there_are(topic: Topic, lake: Lake, odd: int):
    produce_at(topic, now() - 2 * HOUR, odd, now() - HOUR)
    (outside,) = plan(lake, start_timestamp=at(0.5))[1]
    assert re.fullmatch(f"its records are from {at(2)[:13]}.*Z to {at(1)[:13]}.*Z", outside)


def test_times_that_are_all_odd_are_shown_as_they_are(topic: Topic, lake: Lake):
    produce_at(topic, 1_000, YEAR_10000)
    (outside,) = plan(lake, end_timestamp="1970-01-01T00:00:00Z")[1]
    assert outside == "its records are from 1970-01-01T00:00:01.000Z to after 9999"


@each_kind
def test_what_kafka_deleted_of_a_time_is_noticed_behind_an_odd_record(topic: Topic, lake: Lake, odd: int):
    produce_at(topic, now() - 5 * HOUR, odd, now() - 4 * HOUR, now() - 3 * HOUR)
    delete_records(topic, 0, before=1)
    (outside,) = plan(lake, start_timestamp=at(4.5))[1]
    assert outside.startswith(f"partition 0 holds 1 to 3, from {at(4)[:13]}")
    assert plan(lake, start_timestamp=at(3.5)) == ([(3, 4)], [])


def test_a_topic_of_odd_timestamps_alone_is_backfilled_whole(topic: Topic, lake: Lake):
    produce_at(topic, *[YEAR_58872 + n for n in range(300)])
    assert plan(lake, start_timestamp=at(2), end_timestamp=at(1))[0] == [(0, 300)]


@pytest.mark.soak
@each_kind
def test_an_event_that_only_its_kafka_timestamp_made_invalid_is_replayed(topic: Topic, lake: Lake, odd: int):
    """The state that earlier releases left behind: a current event is more than a day after 1970."""
    produce_at(topic, odd)
    lake.ingest()
    write_deltalake(lake.config.dlq_path, make_waiting(lake, odd), mode="append")
    DeltaTable(lake.config.output_path).delete()
    rows = read_dlq(lake.spark, lake.configure(InspectConfig))
    assert dlq.count_error_types(rows)["open"].to_dict() == {"invalid_timestamp": 1}
    dlq.plot_over_time(rows).canvas.draw()
    assert replay(lake.configure(ReplayConfig), lake.spark).counts["appended"] == 1
    assert lake.bronze.count() == 1


def make_waiting(lake: Lake, timestamp: int) -> pa.Table:
    (value,) = [row["_raw_value"].encode() for row in lake.bronze.select("_raw_value").collect()]
    records = make_records([value], timestamps=[timestamp * 1000])
    names = pa.array([lake.config.kafka_topic], pa.string())
    records = records.set_column(records.schema.get_field_index("topic"), "topic", names)
    detail = "Expected a time from 2000-01-01 to 1970-01-22T00:00:00.000+00:00, a day after the record, got '…'"
    return build_dlq(records, [Invalid("invalid_timestamp", detail)], 0, now() * 1000)
