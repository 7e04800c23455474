"""A status as tables, as text, as JSON and as a notebook's recorded result."""

import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from bronze.ops.alerts import Alert, list_alerts, select_firing

_SHOWN = 10
_MB = 1024 * 1024


@dataclass(frozen=True)
class Status:
    """What was measured; all times are naive UTC, the report covers rows by their ingestion.

    Attributes:
        topic: Kafka topic.
        measured_at: When.
        report_hours: Hours back that ``rows``, ``commits`` and ``batches`` look.
        rows: Counts and delays over time, as ``measure_rows`` has them; ``totals`` is its last row.
        totals: ``valid``, ``invalid`` and delays (``p50``, ``p95``, ``p99``, seconds) of the report's hours.
        freshness: Newest event, Kafka timestamp and ingestion in the tables, and their age in minutes. A Kafka
            timestamp that no clock could mean does not count; of a batch that has no other, the start does.
        lag: Lag and headroom of each Kafka partition, as ``measure_lag`` has them.
        files: Files of each partition of the tables, as ``count_files`` has them, by ``table`` and ``partition``.
        commits: Commits of both tables, as ``read_commits`` has them, by ``table``.
        batches: Duration of each batch, as ``measure_batches`` has it.
        alerts: The state of each alert.
        notes: What a reader should know beside the figures.
    """

    topic: str
    measured_at: datetime
    report_hours: int
    rows: pd.DataFrame
    totals: dict[str, float]
    freshness: pd.DataFrame
    lag: pd.DataFrame
    files: pd.DataFrame
    commits: pd.DataFrame
    batches: pd.DataFrame
    alerts: list[Alert]
    notes: list[str]


def to_text(status: Status) -> str:
    """All of it, as a person reads it in a terminal."""
    sections = {
        "Newest in the tables": list_freshness(status),
        f"Ingested in the last {status.report_hours} h": list_totals(status),
        "Lag": list_lag(status),
        "Partitions with the most small files": list_small_files(status),
        "Latest commits": list_commits(status),
        "Alerts": list_alerts(status.alerts),
    }
    texts = [f"{title}\n{_to_lines(frame)}" for title, frame in sections.items()]
    head = f"{status.topic} at {status.measured_at:%Y-%m-%d %H:%M:%S} UTC"
    return "\n\n".join([head, *texts, *(f"Note: {note}" for note in status.notes)])


def _to_lines(frame: pd.DataFrame) -> str:
    return "(none)" if frame.empty else frame.reset_index().to_string(index=False, na_rep="-")


def list_freshness(status: Status) -> pd.DataFrame:
    """The newest event, Kafka timestamp and ingestion, and their age."""
    ages = status.freshness["age"].map(lambda age: "-" if pd.isna(age) else f"{age:,.1f}")
    times = status.freshness["time"].map(_format_time)
    return pd.DataFrame({"time (UTC)": times, "age (min)": ages})


def list_totals(status: Status) -> pd.DataFrame:
    """Records, invalid share, delays and batches of the report's hours."""
    totals, seconds = status.totals, status.batches["seconds"]
    records = totals["valid"] + totals["invalid"]
    values = {
        "records": f"{records:,.0f}",
        "records per hour": f"{records / status.report_hours:,.0f}",
        "invalid": f"{totals['invalid']:,.0f}" + (f" ({totals['invalid'] / records:.2%})" if records else ""),
        "ingest delay p50, p95, p99 (s)": ", ".join(_format_number(totals.get(p)) for p in ("p50", "p95", "p99")),
        "batches": f"{len(seconds):,}",
        "batch duration median, longest (s)": f"{_format_number(seconds.median())}, {_format_number(seconds.max())}",
    }
    return pd.DataFrame({"value": values}).rename_axis("measure")


def list_lag(status: Status) -> pd.DataFrame:
    """Lag and headroom of each Kafka partition."""
    headroom = status.lag["headroom"].map(_format_headroom)
    times = status.lag["next unread"].map(_format_time)
    frame = status.lag.drop(columns=["next unread", "headroom"])
    return frame.assign(**{"next unread (UTC)": times, "headroom (h)": headroom})


def list_files(status: Status) -> pd.DataFrame:
    """Files and sizes of each table."""
    summed = status.files.groupby(level="table")[["files", "small", "rows", "bytes"]].sum()
    counted = status.files.groupby(level="table").size().rename("partitions")
    return _to_megabytes(summed).join(counted)


def list_small_files(status: Status) -> pd.DataFrame:
    """The partitions with two small files or more, those with the most first: what ``bronze maintain`` compacts."""
    worth = status.files[status.files["small"] >= 2].sort_values("small", ascending=False).head(_SHOWN)
    return _to_megabytes(worth[["files", "small", "rows", "bytes"]])


def list_commits(status: Status, shown: int = _SHOWN) -> pd.DataFrame:
    """The latest commits of both tables."""
    commits = status.commits.sort_values("time", ascending=False).head(shown)
    frame = commits[["table", "version", "operation", "rows", "files", "removed", "bytes"]]
    frame = _to_megabytes(frame.assign(**{"time (UTC)": commits["time"].map(_format_time)}))
    return frame.rename(columns={"files": "files added", "removed": "files removed"}).set_index(["table", "version"])


def list_notes(status: Status) -> pd.DataFrame:
    """What a reader should know beside the figures."""
    return pd.DataFrame({"note": status.notes or ["none"]})


def _to_megabytes(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(MB=(frame["bytes"] / _MB).astype(float).round(2)).drop(columns="bytes")


def _format_time(value: Any) -> str:
    return "-" if pd.isna(value) else f"{value:%Y-%m-%d %H:%M:%S}"


def _format_number(value: float | None) -> str:
    return "-" if value is None or pd.isna(value) else f"{value:,.1f}"


def _format_headroom(hours: float) -> str:
    if math.isnan(hours):
        return "unknown"
    return "unlimited" if math.isinf(hours) else f"{hours:,.1f}"


def to_json(status: Status) -> str:
    """All of it, for programs; null is what is not known, and what has no end."""
    frames = ("rows", "freshness", "lag", "files", "commits", "batches")
    tables = {name: json.loads(_to_records(getattr(status, name))) for name in frames}
    alerts = [
        {"alert": a.name, "value": _to_finite(a.value), "threshold": a.threshold, "state": a.state}
        for a in status.alerts
    ]
    totals = {name: _to_finite(value) for name, value in status.totals.items()}
    head = {"topic": status.topic, "measured_at": status.measured_at.isoformat(timespec="milliseconds") + "Z"}
    return json.dumps({**head, "alerts": alerts, "totals": totals, **tables, "notes": status.notes})


def _to_records(frame: pd.DataFrame) -> str:
    plain = frame.reset_index() if frame.index.names[0] else frame
    return str(plain.to_json(orient="records", date_format="iso"))


def _to_finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def summarize(status: Status) -> dict[str, int | float | str]:
    """What a notebook records: the alerts that fire, and what each alert looks at."""
    measured = {a.name: "unknown" if a.value is None else a.value for a in status.alerts}
    return {
        "records": int(status.totals["valid"] + status.totals["invalid"]),
        "invalid": int(status.totals["invalid"]),
        "batches": len(status.batches),
        **{name: "unlimited" if value == math.inf else value for name, value in measured.items()},
        "firing": ", ".join(alert.name for alert in select_firing(status.alerts)) or "none",
    }
