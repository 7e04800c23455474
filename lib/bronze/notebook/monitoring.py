"""The plots of the monitoring notebook: a status over time, by Kafka partition and by table partition."""

import math
from typing import Any

import matplotlib.dates as mdates
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from bronze.config import StatusConfig
from bronze.notebook.plots import INVALID, VALID, show_legend, show_thin_bars, show_time, stack_bars, start_plot
from bronze.ops.measure import choose_minutes
from bronze.ops.status import select_bronze
from bronze.ops.status_report import Status

_DELAYS = {"p50": "#89c2d9", "p95": VALID, "p99": "#012a4a"}
# Without clipping, markers at the edge are drawn in full.
_POINTS: dict[str, Any] = {"marker": "o", "markersize": 4, "clip_on": False}
_SHOWN_PARTITIONS = 40
_MB = 1024 * 1024


def plot_rows(status: Status) -> Figure:
    """Records ingested per hour, valid and invalid."""
    hours = status.rows.assign(hour=status.rows["time"].dt.floor("h")).groupby("hour")[["valid", "invalid"]].sum()
    figure, axes = start_plot(f"Records per hour, last {status.report_hours} h", "hour of the ingestion (UTC)")
    parts = {name: hours[name] for name in ("valid", "invalid")}
    stack_bars(axes, hours.index, parts, width=pd.Timedelta(50, "min"), align="edge")
    _show_report(axes, status, hours.index.to_series(), "h")
    show_thin_bars(axes)
    return figure


def plot_delays(status: Status) -> Figure:
    """Percentiles of the time from Kafka's timestamp to the start of the batch that ingested a record."""
    title = f"Ingest delay: from Kafka's timestamp to the batch, per {choose_minutes(status.report_hours)} min"
    figure, axes = start_plot(title, "time of the ingestion (UTC)", ylabel="seconds (logarithmic)")
    known = status.rows.dropna(subset="p50")
    for name, colour in _DELAYS.items():
        axes.plot(known["time"], known[name], color=colour, label=name, **_POINTS)
    if (known["p99"] > 0).any():
        _scale_delays(axes, known[list(_DELAYS)])
    show_legend(axes)
    _show_report(axes, status, known["time"])
    return figure


def _scale_delays(axes: Axes, delays: pd.DataFrame) -> None:
    """Scale logarithmically; symlog if a delay is 0, which a logarithm cannot show."""
    if (delays > 0).all(axis=None):
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        # Over more than a decade, the minor labels would overlap.
        axes.yaxis.set_minor_formatter(EngFormatter() if high < 10 * low else NullFormatter())
    else:
        smallest = delays[delays > 0].min(axis=None)
        axes.set_yscale("symlog", linthresh=10 ** math.floor(math.log10(smallest)))
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(EngFormatter())


def plot_invalid_ratio(status: Status, config: StatusConfig) -> Figure:
    """The invalid share over time, and the threshold of its alert."""
    figure, axes = start_plot("Invalid share of the records", "time of the ingestion (UTC)", ylabel="invalid share")
    ratio = status.rows["invalid"] / (status.rows["valid"] + status.rows["invalid"])
    axes.plot(status.rows["time"], ratio, color=VALID, label="invalid", **_POINTS)
    if config.alert_invalid_ratio:
        _show_threshold(axes, config.alert_invalid_ratio, "alert")
    axes.set_ylim(0, max(ratio.max() if len(ratio) else 0, config.alert_invalid_ratio, 0.001) * 1.3)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    show_legend(axes)
    _show_report(axes, status, status.rows["time"])
    return figure


def plot_lag(status: Status) -> Figure:
    """Unread records in Kafka, per partition."""
    figure, axes = start_plot("Lag per Kafka partition", "Kafka partition")
    axes.bar(status.lag.index, status.lag["lag"], color=VALID)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, max(status.lag["lag"].max(), 1) * 1.1)
    show_thin_bars(axes)
    return figure


def plot_batches(status: Status, config: StatusConfig) -> Figure:
    """How long each batch took, and the threshold of its alert."""
    figure, axes = start_plot(
        "Batch duration, from its start to its last commit", "start of the batch (UTC)", "seconds"
    )
    axes.plot(status.batches["ingested_at"], status.batches["seconds"], color=VALID, label="batch", **_POINTS)
    if config.max_batch_seconds:
        _show_threshold(axes, config.max_batch_seconds, "alert")
    axes.set_ylim(bottom=0)
    show_legend(axes)
    _show_report(axes, status, status.batches["ingested_at"])
    return figure


def plot_file_sizes(status: Status, config: StatusConfig) -> Figure:
    """Mean file size in each of bronze's newest partitions, and the limit of small files."""
    partitions = select_bronze(status.files).droplevel("table")
    shown = partitions.tail(_SHOWN_PARTITIONS)
    which = f"newest {len(shown):,} of {len(partitions):,}" if len(shown) < len(partitions) else f"{len(shown):,}"
    title = f"Mean file size in bronze, {which} partitions"
    figure, axes = start_plot(title, "hour of the event (UTC)", "MB (logarithmic)")
    axes.bar(shown.index, shown["bytes"] / shown["files"] / _MB, color=VALID, label="mean")
    _show_threshold(axes, config.small_file_mb, "small")
    axes.set_yscale("log")
    axes.tick_params(axis="x", rotation=90, labelsize=8)
    axes.grid(axis="x", visible=False)
    show_legend(axes)
    return figure


def _show_threshold(axes: Axes, value: float, label: str) -> None:
    axes.axhline(value, label=label, color=INVALID, linestyle="--", linewidth=1.2)


def _show_report(axes: Axes, status: Status, times: pd.Series, unit: str = "min") -> None:
    """Show the time from the first value until now, or until the last value: a stopped stream is visible as a gap."""
    end = pd.Timestamp(status.measured_at).ceil(unit)
    first = end - pd.Timedelta(status.report_hours, "h")
    if len(times):
        # An hour may begin before the report's hours, and a stream continues while the status is measured.
        first = times.min() - (pd.Timedelta(5, "min") if unit == "min" else pd.Timedelta(0))
        end = max(end, times.max() + pd.Timedelta(1, unit))
    axes.set_xlim(mdates.date2num(first.floor(unit)), mdates.date2num(end))
    show_time(axes)
