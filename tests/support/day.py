"""A day of an ingestion in minutes: what Prometheus has seen of it, as a list of alerts and as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from tests.support.prometheus import Prometheus

STEP = 5
_COLOURS = {"critical": "#9b2226", "warning": "#ee9b00", "info": "#94d2bd"}


def list_alerts(prometheus: Prometheus, start: float, end: float) -> list[tuple[str, str, float, float]]:
    """Each time that an alert has fired: its name, severity, and first and last second since the start."""
    found = []
    for series in prometheus.query_range('ALERTS{alertstate="firing"}', start, end, STEP):
        times = [float(at) - start for at, _ in series["values"]]
        begins = [t for before, t in zip([-1e9, *times], times, strict=False) if t - before > 2 * STEP]
        ends = [t for t, after in zip(times, [*times[1:], 1e9], strict=True) if after - t > 2 * STEP]
        name, severity = series["metric"]["alertname"], series["metric"]["severity"]
        found += [(name, severity, first, last) for first, last in zip(begins, ends, strict=True)]
    return sorted(found, key=lambda each: each[2])


def draw_day(prometheus: Prometheus, start: float, end: float, events: Mapping[str, tuple[float, float]], file: Path):
    """One picture: throughput, lag, invalid share, and the alerts below the events that caused them."""
    alerts = list_alerts(prometheus, start, end)
    names = list(dict.fromkeys(name for name, *_ in alerts))
    panels: list[tuple[str, dict[str, str]]] = [
        ("records/s", {"ingested": "sum(rate(bronze_records_total[1m]))", "in Kafka": _INPUT}),
        ("lag, records", {"lag": 'sum(bronze_lag_records{command="ingest"})'}),
        ("longest batch, s", {"batch": 'max(max_over_time(bronze_last_batch_duration_seconds{command="ingest"}[1m]))'}),
        ("invalid, %", {"invalid": _INVALID}),
    ]
    ratios = [2, 2, 1, 1, 0.35 * (1 + len(names))]
    figure, axes = plt.subplots(len(ratios), 1, figsize=(10, 9), sharex=True, height_ratios=ratios)
    for axis, (label, expressions) in zip(axes, panels, strict=False):
        for name, expression in expressions.items():
            points = [
                _to_point(p, start) for s in prometheus.query_range(expression, start, end, STEP) for p in s["values"]
            ]
            axis.plot(*zip(*points, strict=True) if points else ([], []), label=name, linewidth=1.5)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.legend(loc="upper right", frameon=False, fontsize=8)
        for first, last in events.values():
            axis.axvspan(first / 60, last / 60, color="#dddddd", zorder=0)
    for number, (name, (first, last)) in enumerate(events.items()):
        place = ((first + last) / 120, 1.02 + 0.08 * (number % 2))  # two lines, because events may be close
        axes[0].annotate(name, place, xycoords=("data", "axes fraction"), ha="center", fontsize=9)
    for name, severity, first, last in alerts:
        axes[-1].barh(name, max(last - first, STEP) / 60, left=first / 60, color=_COLOURS[severity])
    axes[-1].invert_yaxis()
    axes[-1].set_ylabel("alerts")
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(file, dpi=110)


_INPUT = 'sum(rate(bronze_committed_offset[1m])) + sum(deriv(bronze_lag_records{command="ingest"}[1m]))'
_INVALID = (
    '100 * sum(rate(bronze_records_total{outcome="invalid"}[1m]))'
    ' / sum(rate(bronze_records_total{outcome=~"valid|invalid"}[1m]))'
)


def _to_point(value: list[Any], start: float) -> tuple[float, float]:
    return (float(value[0]) - start) / 60, float(value[1])
