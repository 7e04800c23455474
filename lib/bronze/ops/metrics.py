"""The metrics of ``bronze status`` and ``bronze audit``, for ``--metrics-file``."""

import math
import time

from bronze.observe.metrics import Metrics
from bronze.ops.audit_report import AuditReport, count_offsets
from bronze.ops.status_report import Status

_FILES = {"files": "files", "small": "small_files", "bytes": "bytes", "rows": "rows"}


def fill_status(status: Status, metrics: Metrics) -> None:
    """Set the metrics of a status. A value that is unknown has no series."""
    metrics.set("bronze_run_end_timestamp_seconds", time.time())
    for partition, row in status.lag.iterrows():
        metrics.set("bronze_committed_offset", row["next offset"], partition=partition)
        metrics.set("bronze_lag_records", row["lag"], partition=partition)
        if not math.isnan(row["headroom"]):
            metrics.set("bronze_retention_headroom_seconds", row["headroom"] * 3600, partition=partition)
    for table, sums in status.files.groupby(level="table")[list(_FILES)].sum().iterrows():
        for column, name in _FILES.items():
            metrics.set(f"bronze_table_{name}", sums[column], table=table)
    for table, log in status.logs.items():
        metrics.set("bronze_log_uncheckpointed_commits", log.pending, table=table)
        metrics.set("bronze_log_expired_commits", log.expired, table=table)
    for alert in status.alerts:
        if alert.state in ("ok", "firing"):
            metrics.set("bronze_alert_firing", int(alert.state == "firing"), alert=alert.name)
    _fill_times(status, metrics)
    if status.dlq_waiting is not None:
        metrics.set("bronze_dlq_waiting_records", status.dlq_waiting)


def _fill_times(status: Status, metrics: Metrics) -> None:
    newest = status.freshness["time"].dropna()
    if "Kafka timestamp" in newest:
        metrics.set("bronze_newest_record_timestamp_seconds", newest["Kafka timestamp"].tz_localize("UTC").timestamp())
    if len(status.batches):
        newest_batch = status.batches.iloc[-1]
        end = newest_batch["ingested_at"].tz_localize("UTC").timestamp() + newest_batch["seconds"]
        metrics.set("bronze_last_batch_duration_seconds", newest_batch["seconds"])
        metrics.set("bronze_last_commit_timestamp_seconds", end)


def fill_audit(report: AuditReport, metrics: Metrics) -> None:
    """Set the metrics of an audit: its verdict, and the DLQ records that it found waiting."""
    now = time.time()
    metrics.set("bronze_run_end_timestamp_seconds", now)
    metrics.set("bronze_audit_timestamp_seconds", now)
    metrics.set("bronze_audit_complete", int(report.is_complete))
    metrics.set("bronze_audit_findings", sum(audit.finding_count for audit in report.partitions))
    replayed = sum(count_offsets(a.in_both) - count_offsets(a.contradicting) for a in report.partitions)
    waiting = sum(a.dlq_rows for a in report.partitions) - replayed
    metrics.set("bronze_dlq_waiting_records", waiting)
    for audit in report.partitions:
        metrics.set("bronze_lag_records", audit.lag, partition=audit.partition)
