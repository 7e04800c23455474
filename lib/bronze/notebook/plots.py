"""How all plots of the notebooks look."""

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
_THIN = 0.006  # of the plot's width or height: two pixels or so


def start_plot(title: str, xlabel: str, ylabel: str = "records") -> tuple[Figure, Axes]:
    """An empty plot in the product's style; a cell shows the figure that it returns."""
    figure, axes = plt.subplots(figsize=(9, 3.8), layout="constrained")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    if ylabel:
        axes.yaxis.set_major_formatter(EngFormatter())
    plt.close(figure)  # the cell shows the figure that is returned; pyplot would show it again
    return figure, axes


def stack_bars(axes: Axes, positions: Sequence[Any] | pd.Series, parts: Mapping[str, pd.Series], **style: Any) -> None:
    """Bars of several parts, one upon the other, with a legend beside them that has the sum of each part.

    Args:
        axes: The plot.
        positions: Where the bars stand. Equal ones would hide one another.
        parts: Heights by what they are called in the legend; COLOURS knows them, or ``style`` has ``colours``.
        style: What else each bar gets, such as its width.
    """
    colours = {**COLOURS, **style.pop("colours", {})}
    bottom = pd.Series(0.0, index=next(iter(parts.values())).index)
    for name, heights in parts.items():
        label = f"{name} ({heights.sum():,.0f})"
        axes.bar(positions, heights, bottom=bottom, color=colours[name], label=label, **style)
        bottom = bottom + heights
    axes.use_sticky_edges = False  # those of stacked bars let the highest touch the frame
    axes.autoscale_view()
    axes.set_ylim(bottom=0)
    show_legend(axes)
    show_thin_bars(axes)


def show_legend(axes: Axes) -> None:
    """A legend beside the plot, where it hides nothing."""
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def show_thin_bars(axes: Axes) -> None:
    """Draw each bar at least as thick as a line: one record beside ten thousand, or one hour in a year, is seen.

    Call it again once the limits of the plot have changed.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for bar in (patch for patch in axes.patches if isinstance(patch, Rectangle)):
        is_thin = bar.get_width() < _THIN * (right - left) or bar.get_height() < _THIN * (top - bottom)
        if bar.get_height() > 0 and is_thin:
            bar.set(edgecolor=bar.get_facecolor(), linewidth=1.2, zorder=3, clip_on=False)


def choose_unit(span: timedelta) -> tuple[str, timedelta]:
    """The unit of time whose bars are neither too many nor one, as Spark calls it, and its width."""
    units = (
        (timedelta(hours=3), "minute", timedelta(minutes=1)),
        (timedelta(days=4), "hour", timedelta(hours=1)),
        (timedelta(days=366), "day", timedelta(days=1)),
    )
    return next(((unit, width) for longest, unit, width in units if span <= longest), ("month", timedelta(days=28)))


def show_time(axes: Axes, ticks: int = 9) -> None:
    """Label an axis of time, with its date once."""
    locator = mdates.AutoDateLocator(minticks=3, maxticks=ticks)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
