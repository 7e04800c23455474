"""The style of all plots in the notebooks."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter

VALID, INVALID = "#2a6f97", "#c8553d"
COLOURS = {"valid": VALID, "invalid": INVALID, "open": INVALID, "replayed": VALID}
_THIN = 0.006  # share of the plot's width or height, about two pixels


def start_plot(title: str, xlabel: str, ylabel: str = "records") -> tuple[Figure, Axes]:
    """An empty plot in the notebooks' style; a cell shows the figure that it returns."""
    figure, axes = plt.subplots(figsize=(9, 3.8), layout="constrained")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    if ylabel:
        axes.yaxis.set_major_formatter(EngFormatter())
    plt.close(figure)  # the cell shows the returned figure; pyplot would show it a second time
    return figure, axes


def stack_bars(axes: Axes, positions: Sequence[Any] | pd.Series, parts: Mapping[str, pd.Series], **style: Any) -> None:
    """Stacked bars, and a legend outside the plot with the sum of each part.

    Args:
        axes: The plot.
        positions: Positions of the bars; bars with equal positions would cover each other.
        parts: The heights of each part by its name in the legend; its colour is in COLOURS or in ``style["colours"]``.
        style: Further arguments of each bar, such as its width.
    """
    colours = {**COLOURS, **style.pop("colours", {})}
    bottom = pd.Series(0.0, index=next(iter(parts.values())).index)
    for name, heights in parts.items():
        label = f"{name} ({heights.sum():,.0f})"
        axes.bar(positions, heights, bottom=bottom, color=colours[name], label=label, **style)
        bottom = bottom + heights
    axes.use_sticky_edges = False  # with them, the highest bar would touch the frame
    axes.autoscale_view()
    axes.set_ylim(bottom=0)
    show_legend(axes)
    show_thin_bars(axes)


def show_legend(axes: Axes) -> None:
    """Add a legend outside the plot, where it covers nothing."""
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def show_thin_bars(axes: Axes) -> None:
    """Draw each bar at least as thick as a line, so that one record among ten thousand is visible.

    Call it again after the limits of the plot have changed.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for bar in (patch for patch in axes.patches if isinstance(patch, Rectangle)):
        is_thin = bar.get_width() < _THIN * (right - left) or bar.get_height() < _THIN * (top - bottom)
        if bar.get_height() > 0 and is_thin:
            bar.set(edgecolor=bar.get_facecolor(), linewidth=1.2, zorder=3, clip_on=False)


def choose_unit(span: timedelta) -> tuple[str, timedelta]:
    """The unit of time, in Spark's name, that gives a readable number of bars, and its width."""
    units = (
        (timedelta(hours=3), "minute", timedelta(minutes=1)),
        (timedelta(days=4), "hour", timedelta(hours=1)),
        (timedelta(days=366), "day", timedelta(days=1)),
    )
    return next(((unit, width) for longest, unit, width in units if span <= longest), ("month", timedelta(days=28)))


def show_time(axes: Axes, ticks: int = 9) -> None:
    """Label an axis of time, with the date once."""
    locator = mdates.AutoDateLocator(minticks=3, maxticks=ticks)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
