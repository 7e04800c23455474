"""Lag, headroom and batch durations, computed from Kafka's offsets and the Delta log."""

import math
from datetime import UTC, datetime

import pandas as pd
import pytest

from bronze.config import StatusConfig
from bronze.delta.statistics import measure_batches
from bronze.kafka.retention import Retention
from bronze.ops.lag import explain_lost_end, explain_unknown_headroom, measure_lag
from bronze.ops.measure import choose_minutes
from bronze.ops.status import _select_measured

NOW = datetime(2026, 1, 8, tzinfo=UTC)
DAY = Retention(24.0)
STATUS = StatusConfig(kafka_brokers="broker:9092", output_path="data/bronze")


def hours_ago(hours: float) -> int:
    return int((NOW.timestamp() - hours * 3600) * 1000)


def measure(next_offset: int, held: tuple[int, int], unread: int | None, retention: Retention = DAY) -> pd.Series:
    timestamps = {} if unread is None else {0: unread}
    return measure_lag({0: next_offset}, {0: held}, timestamps, retention, NOW).loc[0]


def test_lag_is_what_kafka_holds_and_nobody_has_read():
    assert measure(40, (0, 100), hours_ago(1))["lag"] == 60
    assert measure(100, (0, 100), None)["lag"] == 0


def test_headroom_ends_when_the_next_unread_record_is_as_old_as_the_retention():
    assert measure(40, (0, 100), hours_ago(20))["headroom"] == pytest.approx(4)
    assert measure(40, (0, 100), hours_ago(30))["headroom"] == 0


def test_headroom_has_no_end_where_all_is_read_or_nothing_expires():
    assert math.isinf(measure(100, (0, 100), None)["headroom"])
    assert math.isinf(measure(40, (0, 100), hours_ago(20), Retention(math.inf))["headroom"])


def test_headroom_is_not_known_where_kafka_does_not_tell_the_retention():
    assert math.isnan(measure(40, (0, 100), hours_ago(20), Retention(None))["headroom"])


def test_a_next_record_with_a_timestamp_in_the_future_has_the_whole_retention_before_it():
    """Kafka keeps such a record longer."""
    for timestamp in (hours_ago(-0.5), hours_ago(-30), 253_402_300_800_000, 1_796_083_200_000_000, 2**63 - 1):
        assert measure(40, (0, 100), timestamp)["headroom"] == 24


@pytest.mark.parametrize("timestamp", [-1, 0, 1, 1_796_083_200])
def test_the_headroom_is_not_known_where_no_clock_could_mean_the_timestamp(timestamp: int):
    found = measure(40, (0, 100), timestamp)
    assert math.isnan(found["headroom"])
    assert pd.isna(found["next unread"])
    assert math.isinf(measure(40, (0, 100), timestamp, Retention(math.inf))["headroom"])


def test_a_note_names_the_partitions_whose_headroom_is_not_known():
    lag = measure_lag({0: 5, 1: 0}, {0: (0, 6), 1: (0, 7)}, {0: 1, 1: hours_ago(1)}, DAY, NOW)
    assert explain_unknown_headroom(lag, DAY).startswith("the headroom of partitions 0 is not known")
    assert explain_unknown_headroom(lag.loc[[1]], DAY) == ""


def test_a_note_names_the_partitions_that_end_before_what_was_read():
    """Their lag of 0 would look as if all was well."""
    lag = measure_lag({0: 5, 1: 7, 2: 8}, {0: (0, 6), 1: (0, 7), 2: (0, 7)}, {}, DAY, NOW)
    assert explain_lost_end(lag).startswith("the topic ends before the offsets that were read, in partitions 2")
    assert explain_lost_end(lag.loc[[0, 1]]) == ""


@pytest.mark.parametrize(
    ("headrooms", "measured"), [([3.0, 8.0], 3.0), ([3.0, math.nan], 3.0), ([30.0, math.nan], None), ([math.nan], None)]
)
def test_a_headroom_that_is_too_short_is_not_hidden_by_one_that_is_not_known(
    headrooms: list[float], measured: float | None
):
    lag = pd.DataFrame({"headroom": headrooms, "lag": 1})
    ages = pd.DataFrame({"age": {"Kafka timestamp": 1.0}})
    batches = pd.DataFrame({"seconds": [1.0]})
    assert _select_measured(STATUS, batches, {"valid": 1, "invalid": 0}, lag, ages, 0)["min_headroom_hours"] == measured


def test_records_that_kafka_deleted_unread_are_counted_and_leave_no_headroom():
    found = measure(40, (70, 100), hours_ago(1))
    assert (found["deleted unread"], found["lag"], found["headroom"]) == (30, 30, 0)


def test_a_partition_that_the_checkpoint_does_not_know_starts_at_its_first_record():
    lag = measure_lag({0: 5}, {0: (0, 5), 1: (0, 7)}, {1: hours_ago(1)}, DAY, NOW)
    assert lag["lag"].to_dict() == {0: 0, 1: 7}


def make_commit(operation: str, time: str, ingested_at: str | None, rows: int = 10) -> dict[str, object]:
    start = None if ingested_at is None else pd.Timestamp(ingested_at)
    return {"operation": operation, "time": pd.Timestamp(time), "ingested_at": start, "rows": rows}


def test_a_batch_lasts_from_its_start_to_its_last_commit_in_either_table():
    commits = [
        make_commit("WRITE", "2026-01-01 00:00:12", "2026-01-01 00:00:10", rows=1),
        make_commit("WRITE", "2026-01-01 00:00:15", "2026-01-01 00:00:10", rows=99),
        make_commit("WRITE", "2026-01-01 00:01:11", "2026-01-01 00:01:10"),
    ]
    batches = measure_batches(pd.DataFrame(commits))
    assert batches[["rows", "seconds"]].values.tolist() == [[100, 5.0], [10, 1.0]]


@pytest.mark.parametrize("operation", ["OPTIMIZE", "MERGE", "CREATE TABLE", "VACUUM END"])
def test_other_commits_are_no_batches(operation: str):
    assert measure_batches(pd.DataFrame([make_commit(operation, "2026-01-02", "2026-01-01")])).empty


@pytest.mark.parametrize(("hours", "minutes"), [(1, 1), (5, 1), (6, 5), (24, 5), (72, 15), (168, 60), (720, 60)])
def test_a_point_covers_more_minutes_the_longer_the_report(hours: int, minutes: int):
    assert choose_minutes(hours) == minutes
