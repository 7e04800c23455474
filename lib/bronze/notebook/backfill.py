"""The plan and the result that the backfill notebook shows."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bronze.notebook.plots import INVALID, VALID, stack_bars, start_plot
from bronze.ops.backfill import BackfillResult
from bronze.ops.backfill_plan import BackfillPlan

_PARTS = {"in the tables": "#89c2d9", "to do": VALID, "lost in Kafka": INVALID, "not in Kafka yet": "#bbbbbb"}


def plot_plan(plan: BackfillPlan) -> Figure:
    """The requested offsets per Kafka partition: in the tables, to do, and not available."""
    frame = plan.to_frame()
    figure, axes = start_plot("The range per Kafka partition", "Kafka partition", ylabel="offsets")
    stack_bars(axes, frame.index.to_list(), {name: frame[name] for name in _PARTS}, colours=_PARTS)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
    return figure


def summarize_backfill(result: BackfillResult, dry_run: bool) -> dict[str, int | float | bool]:
    """The number of offsets that were requested, that the tables had, and that this run added."""
    return {
        "planned": result.plan.planned,
        "present": result.plan.present,
        "lost": result.plan.lost.count,
        "valid": result.summary.counts.valid,
        "invalid": result.summary.counts.invalid,
        "added_by_others": result.added_by_others,
        "without_record": result.without_record,
        "batches": result.summary.batch_count,
        "seconds": round(result.seconds, 1),
        "interrupted": result.is_interrupted,
        "dry_run": dry_run,
    }
