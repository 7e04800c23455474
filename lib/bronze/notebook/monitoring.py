"""The plots of the monitoring notebook: a status over time, by Kafka partition and by table partition."""

import matplotlib.dates as mdates
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from bronze.config import StatusConfig
from bronze.notebook.plots import INVALID, VALID, start_plot
from bronze.ops.status import select_bronze
from bronze.ops.status_report import Status

_DELAYS = {"p50": "#89c2d9", "p95": VALID, "p99": "#012a4a"}
_SHOWN_PARTITIONS = 40
_MB = 1024 * 1024


def plot_rows(status: Status) -> Figure:
    """Records ingested per hour, valid and invalid."""
    hours = status.rows.assign(hour=status.rows["time"].dt.floor("h")).groupby("hour")[["valid", "invalid"]].sum()
    figure, axes = start_plot(f"Records per hour, last {status.report_hours} h", "hour of the ingestion (UTC)")
    width = pd.Timedelta(minutes=50) / pd.Timedelta(days=1)
    for name, colour, bottom in (("valid", VALID, 0), ("invalid", INVALID, hours["valid"])):
        axes.bar(hours.index, hours[name], width=width, bottom=bottom, align="edge", color=colour, label=name)
    _show_legend(axes)
    _show_time(axes, status, hours.index.to_series(), "h")
    return figure


def plot_delays(status: Status) -> Figure:
    """Percentiles of the time from Kafka's timestamp to the start of the batch that ingested a record."""
    title = "Ingest delay: from Kafka's timestamp to the batch"
    figure, axes = start_plot(title, "time of the ingestion (UTC)", ylabel="seconds (logarithmic)")
    known = status.rows.dropna(subset="p50")
    for name, colour in _DELAYS.items():
        axes.plot(known["time"], known[name], color=colour, label=name, marker="o", markersize=4)
    if (known["p99"] > 0).any():
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(EngFormatter())
        # Beyond a decade, labels of all nine parts overlap.
        axes.yaxis.set_minor_formatter(EngFormatter() if high < 10 * low else NullFormatter())
    _show_legend(axes)
    _show_time(axes, status, known["time"])
    return figure


def plot_invalid_ratio(status: Status, config: StatusConfig) -> Figure:
    """The invalid share over time, and the threshold of its alert."""
    figure, axes = start_plot("Invalid share of the records", "time of the ingestion (UTC)", ylabel="invalid share")
    ratio = status.rows["invalid"] / (status.rows["valid"] + status.rows["invalid"])
    axes.plot(status.rows["time"], ratio, color=VALID, label="invalid", marker="o", markersize=4)
    if config.alert_invalid_ratio:
        _show_threshold(axes, config.alert_invalid_ratio, "alert")
    axes.set_ylim(0, max(ratio.max() if len(ratio) else 0, config.alert_invalid_ratio, 0.001) * 1.3)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _show_legend(axes)
    _show_time(axes, status, status.rows["time"])
    return figure


def plot_lag(status: Status) -> Figure:
    """Records that wait in Kafka, per partition."""
    figure, axes = start_plot("Lag per Kafka partition", "Kafka partition")
    axes.bar(status.lag.index, status.lag["lag"], color=VALID)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, max(status.lag["lag"].max(), 1) * 1.1)
    return figure


def plot_batches(status: Status, config: StatusConfig) -> Figure:
    """How long each batch took, and the threshold of its alert."""
    figure, axes = start_plot(
        "Batch duration, from its start to its last commit", "start of the batch (UTC)", "seconds"
    )
    axes.plot(
        status.batches["ingested_at"], status.batches["seconds"], color=VALID, marker="o", markersize=4, label="batch"
    )
    if config.max_batch_seconds:
        _show_threshold(axes, config.max_batch_seconds, "alert")
    axes.set_ylim(bottom=0)
    _show_legend(axes)
    _show_time(axes, status, status.batches["ingested_at"])
    return figure


def plot_file_sizes(status: Status, config: StatusConfig) -> Figure:
    """Mean size of the files in each of bronze's newest partitions, and what counts as small."""
    title = f"Mean file size in bronze, newest {_SHOWN_PARTITIONS} partitions"
    figure, axes = start_plot(title, "hour of the event (UTC)", "MB (logarithmic)")
    shown = select_bronze(status.files).droplevel("table").tail(_SHOWN_PARTITIONS)
    axes.bar(shown.index, shown["bytes"] / shown["files"] / _MB, color=VALID, label="mean")
    _show_threshold(axes, config.small_file_mb, "small")
    axes.set_yscale("log")
    axes.tick_params(axis="x", rotation=90, labelsize=8)
    axes.grid(axis="x", visible=False)
    _show_legend(axes)
    return figure


def _show_threshold(axes: Axes, value: float, label: str) -> None:
    axes.axhline(value, label=label, color=INVALID, linestyle="--", linewidth=1.2)


def _show_legend(axes: Axes) -> None:
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _show_time(axes: Axes, status: Status, times: pd.Series, unit: str = "min") -> None:
    """From the first time on, within the report's hours, until now: what stopped should be seen as a gap."""
    end = pd.Timestamp(status.measured_at).ceil(unit)
    start = end - pd.Timedelta(hours=status.report_hours)
    first = max(start, times.min() - pd.Timedelta(minutes=5)) if len(times) else start
    axes.set_xlim(mdates.date2num(first.floor(unit)), mdates.date2num(end))
    locator = mdates.AutoDateLocator(minticks=3, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
