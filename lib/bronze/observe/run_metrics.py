"""Turns the events of an ingestion into its metrics."""

import platform
import time
from collections.abc import Mapping

from bronze.errors import BronzeError, ConfigError, DataLossError, ExitCode, TooManyInvalidError, TransientError
from bronze.observe.metrics import Metrics, read_version
from bronze.observe.summary import Batch
from bronze.runtime.stats import PHASES
from bronze.schema import ERROR_TYPES

OUTCOMES = ("valid", "invalid", "present")
CAUSES = ("checkpoint", "kafka", "storage", "data_loss", "invalid_records", "configuration", "other")


def find_cause(error: BaseException, checkpoint_path: str) -> str:
    """Why a query failed, as one of CAUSES."""
    if checkpoint_path and checkpoint_path in str(error):
        return "checkpoint"
    kinds = {DataLossError: "data_loss", TooManyInvalidError: "invalid_records", ConfigError: "configuration"}
    if found := next((cause for kind, cause in kinds.items() if isinstance(error, kind)), ""):
        return found
    if isinstance(error, TransientError):
        return "kafka" if "Kafka" in error.problem else "storage"
    return "other"


def find_exit_code(error: BaseException | None) -> int:
    """The exit code of a command that ended with this error."""
    if error is None:
        return int(ExitCode.DONE)
    if isinstance(error, KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED)
    return int(error.exit_code) if isinstance(error, BronzeError) else int(ExitCode.FAILED)


class RunMetrics:
    """The metrics of one run of the ingestion. Counters start at 0, so that the first increase is seen."""

    def __init__(self, metrics: Metrics, spark_version: str, checkpoint_path: str):
        self.metrics, self._checkpoint_path = metrics, checkpoint_path
        versions = {"version": read_version(), "spark": spark_version, "python": platform.python_version()}
        metrics.set("bronze_build_info", 1, **versions)
        metrics.set("bronze_run_start_timestamp_seconds", time.time())
        metrics.set("bronze_query_up", 0)
        for outcome in OUTCOMES:
            metrics.add("bronze_records_total", 0, outcome=outcome)
        for error_type in ERROR_TYPES:
            metrics.add("bronze_invalid_records_total", 0, error_type=error_type)
        for cause in CAUSES:
            metrics.add("bronze_query_failures_total", 0, cause=cause)
        metrics.add("bronze_restarts_total", 0)
        for phase in ("total", *PHASES):
            metrics.create("bronze_batch_duration_seconds", phase=phase)

    def on_batch(self, batch: Batch) -> None:
        """Count a committed batch."""
        metrics, counts = self.metrics, batch.counts
        for outcome in OUTCOMES:
            metrics.add("bronze_records_total", getattr(counts, outcome), outcome=outcome)
        for error_type, count in counts.by_error_type.items():
            metrics.add("bronze_invalid_records_total", count, error_type=error_type)
        for phase, seconds in {"total": batch.seconds, **batch.stats.seconds}.items():
            metrics.observe("bronze_batch_duration_seconds", seconds, phase=phase)
        metrics.set("bronze_last_batch_duration_seconds", batch.seconds)
        metrics.set("bronze_last_commit_timestamp_seconds", time.time())
        for table, size in batch.stats.size.items():
            metrics.add("bronze_written_bytes_total", size, table=table)
            metrics.add("bronze_written_files_total", batch.stats.files[table], table=table)
        if counts.newest:
            metrics.set("bronze_newest_record_timestamp_seconds", counts.newest / 1e6)
        self.note_offsets(batch.ends)

    def on_failure(self, error: BronzeError) -> None:
        """Count a failure after which the query is restarted."""
        self._count_failure(error)
        self.metrics.add("bronze_restarts_total", 1)

    def on_end(self, error: BaseException | None) -> None:
        """Note how the run ended."""
        if isinstance(error, Exception):
            self._count_failure(error)
        self.metrics.set("bronze_query_up", 0)
        self.metrics.set("bronze_run_exit_code", find_exit_code(error))
        self.metrics.set("bronze_run_end_timestamp_seconds", time.time())

    def _count_failure(self, error: Exception) -> None:
        self.metrics.set("bronze_query_up", 0)
        self.metrics.add("bronze_query_failures_total", 1, cause=find_cause(error, self._checkpoint_path))

    def note_offsets(self, offsets: Mapping[int, int]) -> None:
        """Note where the ingestion continues."""
        for partition, offset in offsets.items():
            self.metrics.set("bronze_committed_offset", offset, partition=partition)

    def note_lag(self, lag: Mapping[int, int]) -> None:
        """Note the lag; Kafka has answered."""
        self.metrics.set("bronze_kafka_up", 1)
        for partition, records in lag.items():
            self.metrics.set("bronze_lag_records", records, partition=partition)

    def note_headroom(self, hours: Mapping[int, float]) -> None:
        """Note the retention headroom, in hours per partition."""
        for partition, headroom in hours.items():
            self.metrics.set("bronze_retention_headroom_seconds", headroom * 3600, partition=partition)
