"""No plot hides data: bars that touch, are thin or lie at or beyond the edge, and values that a scale cannot show."""

from datetime import datetime, timedelta
from typing import Any, cast

import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.dates import num2date

from bronze.config import StatusConfig
from bronze.notebook import monitoring
from bronze.notebook.ingestion import _label_batches
from bronze.notebook.plots import INVALID, choose_unit, show_thin_bars, stack_bars, start_plot
from bronze.ops.status_report import Status
from tests.support.plots import list_bars

NOW = datetime(2026, 11, 26, 8, 3, 30)
CONFIG = StatusConfig(kafka_brokers="broker:9092", output_path="bronze", report_hours=24)


def make_status(**changes: Any) -> Status:
    """A status with rows of three times: just within the report's hours, three hours ago, and after the measurement."""
    times = pd.Series([NOW - timedelta(hours=24, minutes=3), NOW - timedelta(hours=3), NOW + timedelta(minutes=70)])
    rows = {"valid": [9_999, 1, 1], "invalid": [1, 0, 0], "p50": [0.0, 0.5, 2], "p95": [1, 1, 3], "p99": [2, 20, 3e5]}
    files = pd.MultiIndex.from_product([["bronze"], [f"2026-11-26 {n:02}" for n in range(50)]], names=["table", "at"])
    values = {
        "report_hours": 24,
        "measured_at": NOW,
        "rows": pd.DataFrame({"time": times, **rows}),
        "batches": pd.DataFrame({"ingested_at": times, "seconds": [0.1, 50, 100]}),
        "lag": pd.DataFrame({"lag": [0, 1, 1_000_000]}),
        "files": pd.DataFrame({"files": 1, "bytes": 100_000}, index=files),
    }
    return cast(Status, type("FakeStatus", (), values | changes))


def test_a_bar_of_one_record_beside_a_million_has_an_edge_and_an_empty_one_has_none():
    (axes,) = monitoring.plot_lag(make_status()).axes
    nothing, one, million = list_bars(axes)
    assert one.get_linewidth() > 1
    assert colors.same_color(one.get_edgecolor(), one.get_facecolor())
    assert one.get_zorder() > million.get_zorder()
    assert not one.get_clip_on()
    assert colors.to_rgba(nothing.get_edgecolor())[3] == colors.to_rgba(million.get_edgecolor())[3] == 0


def test_a_bar_of_an_hour_among_years_has_an_edge():
    _, axes = start_plot("events", "hour")
    axes.bar([0, 9_000], [5, 6], width=1 / 24)
    show_thin_bars(axes)
    assert all(bar.get_linewidth() > 1 for bar in list_bars(axes))


def test_the_legend_of_stacked_bars_has_the_sum_of_each_part_and_the_highest_bar_ends_below_the_frame():
    _, axes = start_plot("records", "partition")
    parts = {"valid": pd.Series([1_000, 2_000]), "invalid": pd.Series([1, 0])}
    stack_bars(axes, [0, 1], parts)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["valid (3,000)", "invalid (1)"]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 2_000
    assert [bar.get_y() for bar in list_bars(axes)] == [0, 0, 1_000, 2_000]
    assert parts["valid"].to_list() == [1_000, 2_000]
    assert colors.same_color(list_bars(axes)[2].get_edgecolor(), INVALID)


@pytest.mark.parametrize("plot", [monitoring.plot_rows, monitoring.plot_delays])
def test_what_was_ingested_first_and_last_lies_within_the_plot(plot: Any):
    status = make_status()
    (axes,) = plot(status).axes
    left, right = (num2date(limit).replace(tzinfo=None) for limit in axes.get_xlim())
    assert left <= status.rows["time"].min()
    assert right >= status.rows["time"].max()
    assert all(bar.get_x() >= axes.get_xlim()[0] for bar in list_bars(axes))
    assert all(bar.get_x() + bar.get_width() <= axes.get_xlim()[1] for bar in list_bars(axes))


def test_a_batch_that_started_while_the_status_was_measured_lies_within_the_plot():
    status = make_status()
    (axes,) = monitoring.plot_batches(status, CONFIG).axes
    assert num2date(axes.get_xlim()[1]).replace(tzinfo=None) >= status.batches["ingested_at"].max()
    assert axes.get_ylim()[1] >= 100
    assert not axes.lines[0].get_clip_on()


def test_without_rows_the_plots_show_the_report_s_hours():
    status = make_status(rows=make_status().rows.head(0))
    (axes,) = monitoring.plot_rows(status).axes
    assert axes.get_xlim()[1] - axes.get_xlim()[0] == 1


def test_a_delay_of_nothing_is_drawn_beside_long_ones():
    """A logarithmic scale cannot show it."""
    (axes,) = monitoring.plot_delays(make_status()).axes
    p50 = axes.lines[0]
    y = axes.transData.transform([(0, value) for value in (0, 0.5, 2, 3e5)])[:, 1]
    bottom, top = axes.transAxes.transform([(0, 0), (0, 1)])[:, 1]
    assert p50.get_ydata()[0] == 0  # type: ignore[index]
    assert bottom <= y[0] < y[1] < y[2] < y[3] <= top
    assert y[1] - y[0] > 10


def test_delays_without_a_zero_are_logarithmic():
    rows = make_status().rows.assign(p50=0.1)
    (axes,) = monitoring.plot_delays(make_status(rows=rows)).axes
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize(("count", "title"), [(50, "newest 40 of 50 partitions"), (40, "bronze, 40 partitions")])
def test_the_title_says_how_many_partitions_are_shown(count: int, title: str):
    (axes,) = monitoring.plot_file_sizes(make_status(files=make_status().files.head(count)), CONFIG).axes
    assert title in axes.get_title()
    assert len(list_bars(axes)) == 40


@pytest.mark.parametrize(
    ("span", "unit"),
    [
        (timedelta(), "minute"),
        (timedelta(hours=3), "minute"),
        (timedelta(hours=4), "hour"),
        (timedelta(days=4), "hour"),
        (timedelta(days=5), "day"),
        (timedelta(days=366), "day"),
        (timedelta(days=9_000), "month"),
    ],
)
def test_bars_over_time_are_neither_too_many_nor_one(span: timedelta, unit: str):
    found, width = choose_unit(span)
    assert found == unit
    assert span / width < 400


def test_batches_are_labelled_to_the_millisecond_and_of_several_days_with_their_date():
    times = pd.Series(pd.to_datetime(["2026-11-25 08:00:00.001", "2026-11-25 08:00:00.501"]))
    assert _label_batches(times) == ["08:00:00.001", "08:00:00.501"]
    days = pd.concat([times, times + timedelta(days=1)])
    assert len(set(_label_batches(days))) == 4
    assert _label_batches(days)[2] == "11-26 08:00:00.001"
