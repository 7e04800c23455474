"""The style of all plots in the notebooks."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

VALID, INVALID = "#2a6f97", "#c8553d"


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


def stack_bars(axes: Axes, labels: list[str] | pd.Series, counted: pd.DataFrame) -> None:
    """Stacked bars of the columns ``valid`` and ``invalid``, with a legend."""
    axes.bar(labels, counted["valid"], color=VALID, label="valid")
    axes.bar(labels, counted["invalid"], bottom=counted["valid"], color=INVALID, label="invalid")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
