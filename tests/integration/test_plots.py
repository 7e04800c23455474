"""Plots of a Spark DataFrame show each of its records."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from matplotlib.patches import Rectangle
from pyspark.sql import DataFrame, SparkSession

from bronze.notebook import dlq, ingestion
from bronze.schema import ERROR_TYPES
from tests.support.plots import list_bars

COLUMNS = "_is_valid boolean, _kafka_partition int, _ingested_at timestamp, _event_date date, _event_hour int"
START = datetime(2026, 11, 26, 8, 2, 6, tzinfo=UTC)


def make_rows(spark: SparkSession, batches: list[datetime], **changes: Any) -> DataFrame:
    """Three valid records and an invalid one per batch."""
    row = {"_kafka_partition": 0, "_event_date": date(2026, 11, 26), "_event_hour": 8, **changes}
    names = ("_kafka_partition", "_event_date", "_event_hour")
    rows = [
        (number > 0, row["_kafka_partition"], time, *(row[name] for name in names[1:]))
        for time in batches
        for number in range(4)
    ]
    return spark.createDataFrame(rows, COLUMNS)


def test_two_batches_of_one_second_are_two_bars_with_two_labels(spark: SparkSession):
    times = [START + timedelta(milliseconds=ms) for ms in (17, 503)]
    (axes,) = ingestion.plot_batches(make_rows(spark, times)).axes
    valid, invalid = list_bars(axes)[:2], list_bars(axes)[2:]
    assert [bar.get_height() for bar in valid] == [3, 3]
    assert [bar.get_height() for bar in invalid] == [1, 1]
    assert valid[0].get_x() + valid[0].get_width() <= valid[1].get_x()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["08:02:06.017", "08:02:06.503"]


def test_batches_of_one_time_of_day_are_two_bars_too(spark: SparkSession):
    (axes,) = ingestion.plot_batches(make_rows(spark, [START, START + timedelta(days=1)])).axes
    assert len({bar.get_x() for bar in list_bars(axes)}) == 2
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["11-26 08:02:06.000", "11-27 08:02:06.000"]


@pytest.mark.parametrize(("count", "title"), [(40, "Records per batch"), (41, "Records per batch, the newest 40")])
def test_where_not_all_batches_are_shown_the_title_says_so(spark: SparkSession, count: int, title: str):
    rows = make_rows(spark, [START + timedelta(seconds=number) for number in range(count)])
    (axes,) = ingestion.plot_batches(rows).axes
    assert axes.get_title() == title
    assert len(list_bars(axes)) == 80


@pytest.mark.parametrize(
    ("day", "unit"), [(date(2026, 11, 26), "hour"), (date(2026, 11, 1), "day"), (date(2001, 1, 1), "month")]
)
def test_one_late_event_does_not_make_the_others_too_thin(spark: SparkSession, day: date, unit: str):
    rows = make_rows(spark, [START] * 500).unionAll(make_rows(spark, [START], _event_date=day, _event_hour=1))
    (axes,) = ingestion.plot_hours(rows).axes
    axes.figure.canvas.draw()
    assert axes.get_title() == f"Events per {unit}"
    assert sum(bar.get_height() for bar in list_bars(axes)) == 2_004
    first, last = axes.get_xlim()
    assert all(first <= bar.get_x() and bar.get_x() + bar.get_width() <= last for bar in list_bars(axes))
    late = min(list_bars(axes), key=Rectangle.get_x)
    assert late.get_height() == 4
    assert late.get_linewidth() > 1


def make_dlq(spark: SparkSession, rows: list[tuple[str | None, datetime]]) -> DataFrame:
    return spark.createDataFrame(rows, "_error_type string, _ingested_at timestamp")


def test_the_dlq_s_bars_of_two_minutes_do_not_touch(spark: SparkSession):
    rows = make_dlq(spark, [("empty", START), ("empty", START + timedelta(minutes=1))])
    (axes,) = dlq.plot_over_time(rows).axes
    one, other = list_bars(axes)
    assert one.get_x() + one.get_width() < other.get_x() - 0.05 * other.get_width()


def test_error_types_of_another_version_and_rows_without_one_are_shown(spark: SparkSession):
    names = [*ERROR_TYPES, "too_new", None]
    (axes,) = dlq.plot_over_time(make_dlq(spark, [(name, START) for name in names])).axes
    legend = axes.get_legend()
    assert legend is not None
    expected = [f"{name} (1)" for name in (*ERROR_TYPES, "none", "too_new")]
    assert [text.get_text() for text in legend.get_texts()] == expected
    assert sum(bar.get_height() for bar in list_bars(axes)) == len(names)
