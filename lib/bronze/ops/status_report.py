"""A status as tables, as text, as JSON and as the result that a notebook records."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pandas as pd

from bronze.delta.log_cleanup import LogState
from bronze.ops.alerts import Alert, list_alerts, select_firing

_SHOWN = 10
_MB = 1024 * 1024


@dataclass(frozen=True)
class Status:
    """The measured values. All times are naive UTC; rows are selected by their time of ingestion.

    Attributes:
        topic: Kafka topic.
        measured_at: Time of the measurement.
        report_hours: Hours that ``rows``, ``commits`` and ``batches`` look back.
        rows: Counts and delays over time, from ``measure_rows``.
        totals: ``valid``, ``invalid`` and delays (``p50``, ``p95``, ``p99``, seconds) of the report's hours.
        freshness: Newest event, Kafka timestamp and ingestion in the tables, and their age in minutes. An
            implausible Kafka timestamp does not count; if a batch has no other, its start counts.
        lag: Lag and headroom of each Kafka partition, from ``measure_lag``.
        files: Files of each partition of the tables, from ``count_files``, by ``table`` and ``partition``.
        commits: Commits of both tables, from ``read_commits``, by ``table``.
        batches: Duration of each batch, from ``measure_batches``.
        alerts: The state of each alert.
        notes: Remarks on the values.
        logs: How long the log of each table is.
        dlq_waiting: Records in the DLQ that were not replayed; None if they were not counted.
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
    logs: Mapping[str, LogState] = field(default_factory=dict)
    dlq_waiting: int | None = None


def to_text(status: Status) -> str:
    """The whole status, for a terminal."""
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
    """The partitions with two or more small files, which ``bronze maintain`` compacts, those with the most first."""
    worth = status.files[status.files["small"] >= 2].sort_values("small", ascending=False).head(_SHOWN)
    return _to_megabytes(worth[["files", "small", "rows", "bytes"]])


def list_commits(status: Status, shown: int = _SHOWN) -> pd.DataFrame:
    """The latest commits of both tables."""
    commits = status.commits.sort_values("time", ascending=False).head(shown)
    frame = commits[["table", "version", "operation", "rows", "files", "removed", "bytes"]]
    frame = _to_megabytes(frame.assign(**{"time (UTC)": commits["time"].map(_format_time)}))
    return frame.rename(columns={"files": "files added", "removed": "files removed"}).set_index(["table", "version"])


def list_notes(status: Status) -> pd.DataFrame:
    """The remarks on the values."""
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
    """The whole status, for programs; unknown and infinite values are null."""
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
    """The result that a notebook records: the firing alerts, and the measured value of each alert."""
    measured = {a.name: "unknown" if a.value is None else a.value for a in status.alerts}
    return {
        "records": int(status.totals["valid"] + status.totals["invalid"]),
        "invalid": int(status.totals["invalid"]),
        "batches": len(status.batches),
        **{name: "unlimited" if value == math.inf else value for name, value in measured.items()},
        "firing": ", ".join(alert.name for alert in select_firing(status.alerts)) or "none",
    }
