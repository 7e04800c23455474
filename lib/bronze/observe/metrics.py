"""The metrics of a command: their names and labels, and how they are served or written to a file.

Every series has the labels ``command`` and ``topic``, so that the files of several commands can be read by one
node_exporter. The package ``prometheus-client`` (the extra ``metrics``) is imported only where metrics are asked for.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from bronze.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
# Seconds. 60 is the default of --max-batch-seconds.
BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
INSTALL = "pip install prometheus-client"


@dataclass(frozen=True)
class Metric:
    """The kind of a metric, its help text, and its labels besides ``command`` and ``topic``."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()


_PARTITION, _TABLE = ("partition",), ("table",)
METRICS = {
    "bronze_build_info": Metric(GAUGE, "Always 1; the labels have the versions", ("version", "spark", "python")),
    "bronze_run_start_timestamp_seconds": Metric(GAUGE, "Start of the run"),
    "bronze_run_end_timestamp_seconds": Metric(GAUGE, "End of the run; absent while it lasts"),
    "bronze_run_exit_code": Metric(GAUGE, "Exit code of the run; absent while it lasts"),
    # the ingestion
    "bronze_query_up": Metric(GAUGE, "1 while the streaming query runs, 0 while it does not"),
    "bronze_query_failures_total": Metric(COUNTER, "Failures of the streaming query by cause", ("cause",)),
    "bronze_restarts_total": Metric(COUNTER, "Restarts of the streaming query within the run"),
    "bronze_records_total": Metric(COUNTER, "Records read, by outcome", ("outcome",)),
    "bronze_invalid_records_total": Metric(COUNTER, "Invalid records by error type", ("error_type",)),
    "bronze_batch_duration_seconds": Metric(HISTOGRAM, "Duration of the committed batches by phase", ("phase",)),
    "bronze_last_batch_duration_seconds": Metric(GAUGE, "Duration of the newest committed batch"),
    "bronze_last_commit_timestamp_seconds": Metric(GAUGE, "Time of the newest commit"),
    "bronze_written_bytes_total": Metric(COUNTER, "Bytes of the committed files (direct writer)", _TABLE),
    "bronze_written_files_total": Metric(COUNTER, "Files that were committed (direct writer)", _TABLE),
    "bronze_newest_record_timestamp_seconds": Metric(GAUGE, "Newest Kafka timestamp in the tables"),
    "bronze_kafka_up": Metric(GAUGE, "1 if Kafka answered the last question, 0 if not"),
    "bronze_committed_offset": Metric(GAUGE, "Offset at which the ingestion continues", _PARTITION),
    "bronze_lag_records": Metric(GAUGE, "Offsets in Kafka that were not read yet", _PARTITION),
    "bronze_retention_headroom_seconds": Metric(GAUGE, "Time until Kafka may delete an unread record", _PARTITION),
    # the tables: status and audit
    "bronze_table_files": Metric(GAUGE, "Files of the newest version", _TABLE),
    "bronze_table_small_files": Metric(GAUGE, "Files below --small-file-mb", _TABLE),
    "bronze_table_bytes": Metric(GAUGE, "Bytes of the newest version", _TABLE),
    "bronze_table_rows": Metric(GAUGE, "Rows of the newest version", _TABLE),
    "bronze_log_uncheckpointed_commits": Metric(GAUGE, "Commits since the last checkpoint of the log", _TABLE),
    "bronze_log_expired_commits": Metric(GAUGE, "Commits that bronze maintain would delete from the log", _TABLE),
    "bronze_alert_firing": Metric(GAUGE, "1 if the alert of bronze status fires, 0 if not", ("alert",)),
    "bronze_dlq_waiting_records": Metric(GAUGE, "Records in the DLQ that were not replayed"),
    "bronze_audit_complete": Metric(GAUGE, "1 if the newest audit had no finding, 0 if it had"),
    "bronze_audit_findings": Metric(GAUGE, "Offsets with a finding in the newest audit"),
    "bronze_audit_timestamp_seconds": Metric(GAUGE, "Time of the newest audit"),
}


class Metrics:
    """The metrics of one run of a command for one topic. A metric appears with its first value."""

    def __init__(self, command: str, topic: str):
        """
        Args:
            command: Value of the label ``command``.
            topic: Value of the label ``topic``.

        Raises:
            ConfigError: The package prometheus-client is missing.
        """
        self._client = import_client()
        self.registry: CollectorRegistry = self._client.CollectorRegistry()
        self._shared = {"command": command, "topic": topic}
        self._collectors: dict[str, Any] = {}

    def _child(self, name: str, labels: dict[str, object]) -> Any:
        if name not in self._collectors:
            self._collectors[name] = self._create(name)
        return self._collectors[name].labels(**self._shared, **{key: str(value) for key, value in labels.items()})

    def _create(self, name: str) -> Any:
        metric = METRICS[name]
        names = (*self._shared, *metric.labels)
        if metric.kind == HISTOGRAM:
            return self._client.Histogram(name, metric.help, names, buckets=BUCKETS, registry=self.registry)
        kind = self._client.Counter if metric.kind == COUNTER else self._client.Gauge
        return kind(name, metric.help, names, registry=self.registry)

    def set(self, name: str, value: float, **labels: object) -> None:
        """Set a gauge."""
        self._child(name, labels).set(value)

    def add(self, name: str, value: float, **labels: object) -> None:
        """Add to a counter; 0 creates its series, so that the first increase is seen."""
        self._child(name, labels).inc(value)

    def create(self, name: str, **labels: object) -> None:
        """Create the series with the value 0."""
        self._child(name, labels)

    def observe(self, name: str, value: float, **labels: object) -> None:
        """Add a value to a histogram."""
        self._child(name, labels).observe(value)

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return bytes(self._client.generate_latest(self.registry))

    def write(self, file: str) -> None:
        """Replace a file in one step with the metrics; a file that cannot be written is a warning."""
        try:
            self._client.write_to_textfile(file, self.registry)
        except OSError as error:
            log.warning("cannot write --metrics-file %s: %s", file, error.strerror or error)


def write_metrics(file: str, command: str, topic: str, fill: Callable[[Metrics], None]) -> None:
    """Write the metrics of a command that has ended, if a file is given.

    Args:
        file: Value of ``--metrics-file``; empty writes nothing.
        command: The command.
        topic: Its topic.
        fill: Sets the values.
    """
    if file:
        metrics = Metrics(command, topic)
        fill(metrics)
        metrics.write(file)


def check_client(file: str) -> None:
    """Check at the start that metrics can be written at the end.

    Raises:
        ConfigError: A file is given, and the package prometheus-client is missing.
    """
    if file:
        import_client()


@cache
def import_client() -> Any:
    """Import prometheus-client, without its series of creation times.

    Raises:
        ConfigError: It is missing.
    """
    try:
        import prometheus_client
    except ImportError:
        raise ConfigError("metrics need the package prometheus-client", hint=INSTALL) from None
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    return prometheus_client


def read_version() -> str:
    """The version of this package; ``unknown`` in a plain checkout that is not installed."""
    try:
        return version("bronze-ingestion")
    except PackageNotFoundError:
        return "unknown"
