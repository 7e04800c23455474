"""The state of the alerts: each measured value, its threshold, and what to do. Pure, no I/O."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bronze.config import StatusConfig
from bronze.errors import AlertsFiringError


@dataclass(frozen=True)
class Alert:
    """One alert.

    Attributes:
        name: The measured quantity, with its unit.
        value: The measured value; None if unknown, infinite if there is no limit.
        threshold: The parameter's value; 0 is off.
        state: ok, firing, unknown or off.
        cure: What to do when it fires.
    """

    name: str
    value: float | None
    threshold: float
    state: str
    cure: str


# Parameter: name with its unit, what to do. A ``min_`` rule fires below its threshold, the others above.
_RULES = {
    "max_batch_seconds": (
        "slowest batch (s)",
        "lower --max-offsets-per-trigger, or give the query more cores",
    ),
    "alert_invalid_ratio": (
        "invalid share",
        "check the DLQ's error types and details: did a producer change its events? Then replay",
    ),
    "max_dlq_waiting": (
        "waiting in the DLQ (records)",
        "inspect the DLQ, and replay the records that are valid by now; bronze replay --dry-run counts them",
    ),
    "max_lag": (
        "lag (records)",
        "is the ingestion running? If so, the producers are faster: give it more cores or larger batches",
    ),
    "max_staleness_minutes": (
        "newest record's age (min)",
        "with lag: start the ingestion; without lag: the producers have sent nothing since",
    ),
    "min_headroom_hours": (
        "headroom (h)",
        "Kafka will soon delete unread records: start the ingestion, or raise the topic's retention.ms now",
    ),
}


def evaluate_alerts(config: StatusConfig, measured: Mapping[str, float | None]) -> list[Alert]:
    """The state of every alert.

    Args:
        config: The thresholds.
        measured: Values by the name of their threshold; None if a value is unknown.
    """
    alerts = []
    for parameter, (name, cure) in _RULES.items():
        threshold, value = getattr(config, parameter), measured[parameter]
        state = _compare(value, threshold, is_minimum=parameter.startswith("min_"))
        alerts.append(Alert(name, value, threshold, state, cure))
    return alerts


def _compare(value: float | None, threshold: float, is_minimum: bool) -> str:
    if not threshold:
        return "off"
    if value is None:
        return "unknown"
    return "firing" if (value < threshold if is_minimum else value > threshold) else "ok"


def list_alerts(alerts: Sequence[Alert]) -> pd.DataFrame:
    """A row per alert: value, threshold, state, and what to do if it fires."""
    rows = [
        {
            "alert": alert.name,
            "value": format_value(alert.value),
            "threshold": f"{alert.threshold:,g}",
            "state": alert.state,
            "what to do": alert.cure if alert.state == "firing" else "",
        }
        for alert in alerts
    ]
    return pd.DataFrame(rows).set_index("alert")


def format_value(value: float | None) -> str:
    """Format a value for people."""
    if value is None:
        return "unknown"
    return "unlimited" if math.isinf(value) else f"{value:,.4g}"


def select_firing(alerts: Sequence[Alert]) -> list[Alert]:
    """The alerts that fire."""
    return [alert for alert in alerts if alert.state == "firing"]


def check_alerts(alerts: Sequence[Alert], fail_on_alert: bool) -> None:
    """Fail if an alert fires, so that a scheduler notices.

    Raises:
        AlertsFiringError: Names each firing alert, its value and what to do.
    """
    firing = [f"{a.name} {format_value(a.value)}, threshold {a.threshold:g}: {a.cure}" for a in select_firing(alerts)]
    if firing and fail_on_alert:
        raise AlertsFiringError(f"{len(firing)} of the alerts are firing: " + "; ".join(firing))
