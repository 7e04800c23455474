"""The rule for implausible Kafka timestamps, and how times that Python cannot represent are shown."""

import pytest

from bronze.decode import MAX_AHEAD, choose_time, is_plausible
from bronze.kafka.times import format_timestamp
from tests.support.builders import KAFKA_TIME, to_micros

HOUR = 3_600_000_000
ODD = {
    "missing": None,
    "none of Kafka's": -1_000,
    "zero": 0,
    "a millisecond": 1_000,
    "in seconds": KAFKA_TIME // 1_000,
    "in 1999": to_micros("1999-12-31T23:59:59.999Z"),
    "beyond a clock's error": KAFKA_TIME + MAX_AHEAD + 1_000,
    "in microseconds": KAFKA_TIME * 1_000,
    "the last": (2**63 - 1) * 1_000,
}


@pytest.mark.parametrize("timestamp", ODD.values(), ids=ODD)
def test_an_odd_timestamp_says_nothing_and_the_batch_s_start_stands_for_it(timestamp: int | None):
    assert not is_plausible(timestamp, KAFKA_TIME)
    assert choose_time(timestamp, KAFKA_TIME) == KAFKA_TIME


@pytest.mark.parametrize("timestamp", [to_micros("2000-01-01T00:00:00Z"), KAFKA_TIME - HOUR, KAFKA_TIME])
def test_any_other_is_the_record_s_time(timestamp: int):
    assert is_plausible(timestamp, KAFKA_TIME)
    assert choose_time(timestamp, KAFKA_TIME) == timestamp


def test_a_clock_that_is_a_little_ahead_is_a_clock_but_no_record_is_of_a_time_to_come():
    assert is_plausible(KAFKA_TIME + HOUR, KAFKA_TIME)
    assert choose_time(KAFKA_TIME + HOUR, KAFKA_TIME) == KAFKA_TIME


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (KAFKA_TIME // 1_000, "2026-06-01T12:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (-1, "before 1970"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "after 9999"),
        (KAFKA_TIME, "after 9999"),
        (2**63 - 1, "after 9999"),
    ],
)
def test_a_time_is_shown_also_where_the_calendar_ends_before_it(milliseconds: int, shown: str):
    assert format_timestamp(milliseconds) == shown
