"""Plots: draw those of a status, and read their bars."""

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from bronze.config import StatusConfig
from bronze.notebook import monitoring
from bronze.ops.status_report import Status


def draw(found: Status, config: StatusConfig) -> None:
    """Draw every plot."""
    monitoring.plot_rows(found).canvas.draw()
    monitoring.plot_delays(found).canvas.draw()
    monitoring.plot_lag(found).canvas.draw()
    for plot in (monitoring.plot_invalid_ratio, monitoring.plot_batches, monitoring.plot_file_sizes):
        plot(found, config).canvas.draw()


def list_bars(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]
