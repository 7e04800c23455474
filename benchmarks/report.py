"""Results of the benchmarks: the figures with their versions and the machine as JSON, a plot, and a table."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from ways import CORES

PACKAGES = ("pyspark", "delta-spark", "pyarrow", "msgspec", "arro3-io")


@dataclass(frozen=True)
class Row:
    """All samples of one figure."""

    name: str
    unit: str
    samples: list[float]

    @property
    def median(self) -> float:
        return median(self.samples)

    def to_json(self) -> dict[str, Any]:
        spread = {"median": self.median, "min": min(self.samples), "max": max(self.samples)}
        return {"name": self.name, "unit": self.unit, **spread, "samples": self.samples}


# The first figure divided by the second.
RATIOS = {
    "plain / direct": ("plain from_json", "direct"),
    "with DLQ / direct": ("from_json with DLQ", "direct"),
    "delta-spark / direct": ("delta-spark", "direct"),
    "direct / raw copy": ("direct", "raw copy"),
    "plain / delta-spark": ("plain from_json", "delta-spark"),
    "small batches, plain / direct": ("plain, small batches", "direct, small batches"),
    "all invalid / plain": ("direct, all invalid", "plain from_json"),
    "bytes, plain / direct": ("bytes on disk, plain", "bytes on disk, direct"),
    "64 / 8 partitions": ("direct, 64 partitions", "direct"),
    "one / two cores": ("direct, one core", "direct"),
    "without / with the DLQ": ("direct, no DLQ", "direct"),
    "without / with metrics": ("direct, no metrics", "direct"),
    "without / with the row hash": ("direct, no row hash", "direct"),
}


def derive(rows: Mapping[str, Row], records: int, tiny_records: int) -> list[dict[str, Any]]:
    """The ratios of medians, and the figures that need no other to compare with."""
    found = [
        {"name": name, "value": rows[first].median / rows[second].median, "unit": "ratio"}
        for name, (first, second) in RATIOS.items()
    ]
    rate = records / rows["direct"].median / CORES
    found.append({"name": "events per second and core, direct", "value": rate, "unit": "1/s"})
    alone = {f"batch of {tiny_records} records, direct": "direct, tiny batches"}
    alone |= {name: name for name in ("peak memory of a task", "cold start", "cold start, kept classes")}
    return found + [{"name": k, "value": rows[name].median, "unit": rows[name].unit} for k, name in alone.items()]


def describe_machine() -> dict[str, Any]:
    """CPU model, cores and memory, from Linux's ``/proc``."""
    models = [line.partition(":")[2] for line in _read_lines("/proc/cpuinfo") if line.startswith("model name")]
    (memory,) = [line.split()[1] for line in _read_lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "cpu": models[0].strip() if models else platform.machine(),
        "cores": os.cpu_count(),
        "cores_of_spark": CORES,
        "memory_gib": round(int(memory) / 2**20, 1),
    }


def _read_lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def describe_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _draw_bars(axes: Axes, rows: Sequence[Row], factor: float, xlabel: str) -> None:
    """A bar per row: the median, its value, and a line from the smallest to the largest sample."""
    names, values = [row.name for row in rows], [row.median * factor for row in rows]
    below = [(row.median - min(row.samples)) * factor for row in rows]
    above = [(max(row.samples) - row.median) * factor for row in rows]
    axes.barh(names, values, xerr=[below, above], color="#2a6f97", ecolor="#555555", capsize=3)
    for name, value, more in zip(names, values, above, strict=True):
        text = f"{value:.2f} s"
        axes.annotate(text, (value + more, name), xytext=(6, 0), textcoords="offset points", va="center")
    axes.set(xlabel=xlabel, ylabel="way", xlim=(0, 1.15 * max(v + m for v, m in zip(values, above, strict=True))))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)


def draw_plot(large: Sequence[Row], small: Sequence[Row], records: int, xlabel: str, path: Path) -> None:
    """Write the plot: seconds per 100,000 records of the large batches, and seconds per small batch (``xlabel``)."""
    heights = [len(large) + 1, len(small) + 1]
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(9, 0.6 * sum(heights)), height_ratios=heights, layout="constrained"
    )
    figure.suptitle(f"Ingestion on {CORES} cores: median, and range from the smallest to the largest sample")
    _draw_bars(top, large, 100_000 / records, f"seconds per 100,000 records, in batches of {records:,}")
    _draw_bars(bottom, small, 1, xlabel)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write_section(
    path: Path, name: str, sizes: Mapping[str, float], rows: Sequence[Row], derived: Sequence[dict[str, Any]] = ()
) -> None:
    """Write the figures of one benchmark to a JSON file, and keep those of the others."""
    found = json.loads(path.read_text()) if path.exists() else {}
    found[name] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "sizes": sizes,
        "rows": [row.to_json() for row in rows],
        "derived": list(derived),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")


def print_table(rows: Sequence[Row], derived: Sequence[dict[str, Any]] = ()) -> None:
    print(f"\n{'figure':<50} {'median':>10} {'min':>10} {'max':>10} samples unit")
    for row in rows:
        spread = f"{row.median:>10,.2f} {min(row.samples):>10,.2f} {max(row.samples):>10,.2f}"
        print(f"{row.name:<50} {spread} {len(row.samples):>7} {row.unit}")
    if derived:
        print(f"\n{'derived from the medians':<50} {'value':>10} unit")
    for each in derived:
        print(f"{each['name']:<50} {each['value']:>10,.2f} {each['unit']}")
