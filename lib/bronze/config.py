"""The parameters of each command. CLI flag, notebook parameter and field share one name and one help text.

An empty string and 0 mean "not set", because a notebook parameter always has a value.
"""

import ipaddress
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bronze.errors import ConfigError, Hidden, InvalidOptionError, to_flag
from bronze.parsing import (
    CHECKS,
    check_paths,
    check_text,
    find_object_store,
    normalize_uri,
    parse_error_types,
    parse_offset_ranges,
    parse_offsets,
    parse_starting_offsets,
    parse_time,
    parse_timestamp,
)

WRITERS = ("auto", "direct", "delta-spark")
LOG_FORMATS = ("text", "json")
DEFAULT_STARTING_OFFSETS = "earliest"
# Secrets come from files or the environment.
TOKEN_VARIABLE = "BRONZE_HTTP_TOKEN"
METRICS_FILE_HELP = "file .prom to write the metrics to at the end, for node_exporter's textfile collector"
CHANGE_DLQ_HELP = "replace the DLQ of an existing bronze table with this one, or with none"
PATHS = ("output_path", "dlq_path", "checkpoint_path")
_TOKEN = re.compile(r"[!-~]([ -~]{0,4000}[!-~])?")  # characters that an HTTP header allows
# Limits of numbers: Java's long, one year, and a hundred years back from now, which every date type supports.
MAX_LONG, MAX_INT = 2**63 - 1, 2**31 - 1
YEAR_SECONDS = 366 * 24 * 3600
MAX_DAYS, MAX_HOURS, MAX_MINUTES = 36_500, 876_000, 52_560_000


def option(default: Any, help_text: str, **metadata: Any) -> Any:
    """A field with its help text; the metadata may be ``required``, ``choices`` and ``is_hidden`` (from messages)."""
    return field(default=default, metadata={"help": help_text, **metadata})


def number(default: float, help_text: str, minimum: float, maximum: float) -> Any:
    """A number with limits, because Python's times, Java's numbers or a socket do not support larger values."""
    return option(default, help_text, minimum=minimum, maximum=maximum)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configurations; checks the values on creation.

    Raises:
        ConfigError: A required parameter is empty.
        InvalidOptionError: A value is invalid; the message contains the value and the expected form.
    """

    log_format: str = option("text", "text, or json with one object per line", choices=LOG_FORMATS)

    def __post_init__(self) -> None:
        for known in fields(self):
            _check_value(known.name, getattr(self, known.name), type(known.default), known.metadata)
        for name in PATHS:  # equal places compare equal
            if hasattr(self, name):
                object.__setattr__(self, name, normalize_uri(getattr(self, name)))
        check_paths({name: getattr(self, name, "") for name in PATHS})

    @property
    def object_stores(self) -> frozenset[str]:
        """The object stores of the tables and the checkpoint: ``s3``, ``azure``."""
        return frozenset(filter(None, (find_object_store(getattr(self, name, "")) for name in PATHS)))


def _check_value(name: str, value: Any, kind: type[Any], metadata: Any) -> None:
    if type(value) is not kind and (kind, type(value)) != (float, int):
        shown = Hidden() if metadata.get("is_hidden") else value
        raise InvalidOptionError(name, shown, f"a value of type {kind.__name__}")
    if metadata.get("required") and not str(value).strip():
        raise _missing_option_error(name, metadata["help"])
    if "choices" in metadata and value not in metadata["choices"]:
        raise InvalidOptionError(name, value, f"one of {', '.join(metadata['choices'])}")
    if "minimum" in metadata and not metadata["minimum"] <= value <= metadata["maximum"]:  # NaN is not in any range
        what = "a whole number" if kind is int else "a number"
        raise InvalidOptionError(name, value, f"{what} from {metadata['minimum']:,} to {metadata['maximum']:,}")
    if kind is str and value:
        CHECKS.get(name, check_text)(name, value)


def _missing_option_error(name: str, purpose: str) -> ConfigError:
    return ConfigError(f"{to_flag(name)} is required: {purpose}")


@dataclass(frozen=True, kw_only=True)
class KafkaConfig(Config):
    """The topic to read, and how to reach Kafka."""

    kafka_brokers: str = option("", "Kafka bootstrap servers, host:port, comma-separated", required=True)
    kafka_topic: str = option("api-usage-events.v1", "Kafka topic to read", required=True)
    kafka_config: str = option("", "Kafka client properties file, for security and tuning", is_hidden=True)
    startup_timeout: int = number(30, "seconds to wait for a Kafka broker at the start", 1, YEAR_SECONDS)


@dataclass(frozen=True, kw_only=True)
class TablesConfig(Config):
    """The paths of the tables."""

    output_path: str = option("", "path of the bronze Delta table, created by the first ingestion", required=True)
    dlq_path: str = option("", "path of the DLQ Delta table; empty keeps invalid records in bronze")

    @property
    def written_paths(self) -> tuple[str, ...]:
        """Names of the paths that the command writes to."""
        return ()


@dataclass(frozen=True, kw_only=True)
class IngestConfig(TablesConfig, KafkaConfig):
    """The source, the target and the settings of the ingestion."""

    checkpoint_path: str = option("", "path of the query's checkpoint; one per topic and tables", required=True)
    trigger_interval: str = option("1 minute", "time between batches, as a Spark interval", required=True)
    starting_offsets: str = option("", "earliest (the default), latest or JSON per partition; first start only")
    max_offsets_per_trigger: int = number(0, "maximum number of records per batch; 0 means no limit", 0, MAX_LONG)
    available_now: bool = option(False, "ingest the records that the topic holds now, then stop")
    with_metrics: bool = option(False, "log the counts of each batch")
    change_dlq: bool = option(False, CHANGE_DLQ_HELP)
    writer: str = option("auto", "auto, direct or delta-spark", choices=WRITERS)
    fail_on_data_loss: bool = option(True, "stop if Kafka deleted records before they were read")
    max_invalid_ratio: float = number(
        0.0, "exit with code 4 after a batch with a larger share of invalid records; 0 is off", 0, 1
    )
    stop_timeout: int = number(60, "seconds to wait for the current batch to finish when stopping", 0, YEAR_SECONDS)
    max_restarts: int = number(
        5, "restarts in a row, without a committed batch, after Kafka or the storage did not answer", 0, MAX_INT
    )
    stop_file: str = option("", "stop when this file appears on the driver's machine")
    http_port: int = number(0, "port for /metrics, /health and HTTP calls that stop the query; 0 is off", 0, 65535)
    http_host: str = option(
        "127.0.0.1", "address to listen on; any other than loopback requires a token", required=True
    )
    http_token_file: str = option("", "file with the token that stop calls must send", is_hidden=True)
    metrics_file: str = option("", METRICS_FILE_HELP)
    commit_group: str = option("", "consumer group to commit offsets to, for the lag in Kafka's tools; never read back")
    lineage_url: str = option("", "OpenLineage receiver to send events to, such as http://marquez:5000")

    @property
    def written_paths(self) -> tuple[str, ...]:
        """Names of the paths that the command writes to."""
        return ("output_path", "dlq_path", "checkpoint_path")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_starting_offsets(self.starting_offsets, self.kafka_topic)
        if self.stop_file and _exists(self.stop_file):
            raise InvalidOptionError("stop_file", self.stop_file, "a file that does not exist yet; remove it to start")
        if not read_token(self.http_token_file) and not _is_loopback(self.http_host):
            expected = f"127.0.0.1, or a token as well (--http-token-file or {TOKEN_VARIABLE})"
            raise InvalidOptionError("http_host", self.http_host, expected)


def _exists(file: str) -> bool:
    try:
        return Path(file).exists()
    except OSError as error:
        raise InvalidOptionError("stop_file", file, f"a path that can be checked ({error.strerror})") from None


def read_token(file: str) -> str:
    """The token from the file if one is given, otherwise from the environment; empty if there is none.

    Raises:
        InvalidOptionError: The file cannot be read, or the token cannot be sent in an HTTP header.
    """
    expected = "one line of ASCII characters, the token"
    if not file:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if token and not _TOKEN.fullmatch(token):
            raise InvalidOptionError("http_token_file", Hidden(), f"{TOKEN_VARIABLE} to be {expected}")
        return token
    try:
        token = Path(file).read_text(encoding="ascii").strip() if Path(file).is_file() else ""
    except (OSError, UnicodeError):
        token = ""
    if not _TOKEN.fullmatch(token):  # an empty token would let everybody in
        raise InvalidOptionError("http_token_file", Hidden(), f"a readable file that holds {expected}")
    return token


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# Delta's own limit: a running batch or query may still need younger files.
MIN_RETENTION_HOURS = 168
MAX_MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class AuditConfig(TablesConfig, KafkaConfig):
    """The topic, tables and checkpoint to audit; the same as the ingestion's."""

    checkpoint_path: str = option("", "checkpoint of the ingestion; tells where it started and how far it has read")
    metrics_file: str = option("", METRICS_FILE_HELP)
    json: bool = option(False, "print the result as JSON")


@dataclass(frozen=True, kw_only=True)
class BackfillConfig(TablesConfig, KafkaConfig):
    """The range of the topic to backfill, the tables, and how to append to them."""

    starting_offsets: str = option("", "first offsets: earliest, or JSON of the partitions to backfill")
    ending_offsets: str = option("", "end offsets, exclusive: latest (the default), or JSON of the same partitions")
    start_timestamp: str = option("", "first Kafka timestamp, ISO 8601 with a zone, instead of offsets")
    end_timestamp: str = option("", "end of the Kafka timestamps, exclusive, ISO 8601 with a zone; empty is now")
    max_offsets_per_trigger: int = number(500_000, "maximum number of records per batch", 1, MAX_LONG)
    dry_run: bool = option(False, "show the plan and change nothing")
    allow_partial: bool = option(False, "accept that Kafka holds only part of the range")
    writer: str = option("auto", "auto, direct or delta-spark", choices=WRITERS)
    checkpoint_path: str = option(
        "", "checkpoint of the ingestion; offsets that the ingestion has not planned yet are skipped"
    )
    change_dlq: bool = option(False, CHANGE_DLQ_HELP)

    @property
    def written_paths(self) -> tuple[str, ...]:
        """Names of the paths that the command writes to."""
        return () if self.dry_run else ("output_path", "dlq_path")

    def __post_init__(self) -> None:
        super().__post_init__()
        by_offsets, by_time = ("starting_offsets", "ending_offsets"), ("start_timestamp", "end_timestamp")
        given = [[name for name in names if getattr(self, name)] for names in (by_offsets, by_time)]
        if not any(given):
            raise ConfigError(
                "no range is given: set --starting-offsets and --ending-offsets, or --start-timestamp and "
                "--end-timestamp",
                hint="--starting-offsets earliest covers everything that Kafka holds",
            )
        if all(given):
            one, other = (", ".join(map(to_flag, names)) for names in given)
            raise ConfigError(
                f"the range is given twice, by offsets ({one}) and by time ({other})", hint="leave one of them empty"
            )
        self._check_offsets()
        self._check_times()

    def _check_offsets(self) -> None:
        starts, ends = self.parse_range()
        for name, offsets in (("starting_offsets", starts), ("ending_offsets", ends)):
            if offsets == {}:
                raise InvalidOptionError(name, getattr(self, name), "JSON with one partition or more")
        if starts is None or ends is None:
            return
        if differing := sorted(set(starts) ^ set(ends)):
            expected = f"the partitions of --starting-offsets; only one option names {', '.join(map(str, differing))}"
            raise InvalidOptionError("ending_offsets", self.ending_offsets, expected)
        if turned := [p for p in sorted(starts) if 0 <= ends[p] < starts[p]]:
            raise InvalidOptionError(
                "ending_offsets", self.ending_offsets, f"no offset below --starting-offsets (see partition {turned[0]})"
            )

    def _check_times(self) -> None:
        start, end = (parse_timestamp(name, getattr(self, name)) for name in ("start_timestamp", "end_timestamp"))
        if start is not None and end is not None and end <= start:
            raise InvalidOptionError("end_timestamp", self.end_timestamp, f"a time after {self.start_timestamp}")

    def parse_range(self) -> tuple[dict[int, int] | None, dict[int, int] | None]:
        """First and end offsets of the named partitions (-2: earliest, -1: latest); None means all partitions."""
        starts = parse_offsets("starting_offsets", self.starting_offsets, self.kafka_topic, ["earliest"])
        return starts, parse_offsets("ending_offsets", self.ending_offsets, self.kafka_topic, ["latest"])


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(TablesConfig):
    """The checkpoint to inspect, and the topic and tables that it should belong to."""

    checkpoint_path: str = option("", "path of the query's checkpoint", required=True)
    kafka_topic: str = option("api-usage-events.v1", "Kafka topic that the checkpoint belongs to", required=True)


@dataclass(frozen=True, kw_only=True)
class DlqConfig(TablesConfig):
    """The records of the DLQ that match all filters."""

    dlq_path: str = option("", "path of the DLQ Delta table", required=True)
    kafka_topic: str = option("api-usage-events.v1", "Kafka topic that the records came from", required=True)
    error_type: str = option("", "only these error types, comma-separated")
    start_timestamp: str = option("", "only records ingested at or after this time, ISO 8601 with a zone")
    end_timestamp: str = option("", "only records ingested before this time, ISO 8601 with a zone")
    offsets: str = option("", 'only these offsets, as JSON of first and last per partition: {"0": [[5, 9], [12, 12]]}')

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_error_types(self.error_type)
        parse_offset_ranges(self.offsets)
        start, end = (parse_time(name, getattr(self, name)) for name in ("start_timestamp", "end_timestamp"))
        if start and end and start >= end:
            raise InvalidOptionError("end_timestamp", self.end_timestamp, f"a time after {self.start_timestamp}")


@dataclass(frozen=True, kw_only=True)
class InspectConfig(DlqConfig):
    """How much the DLQ inspection shows of the records' values."""

    sample_count: int = number(2, "number of the newest records to show per error type", 0, MAX_INT)
    sample_length: int = number(300, "maximum number of characters to show of a value", 1, MAX_INT)
    mask_fields: str = option("", "fields whose values are hidden, as comma-separated paths")
    drift_records: int = number(10_000, "number of the newest records per table to check for drift", 0, MAX_INT)


@dataclass(frozen=True, kw_only=True)
class ReplayConfig(DlqConfig):
    """The DLQ records to decode again, and how to append them to bronze."""

    dry_run: bool = option(False, "show what would be replayed and what still fails, and write nothing")
    max_records: int = number(100_000, "maximum number of records per transaction", 1, MAX_LONG)
    writer: str = option("auto", "auto, direct or delta-spark", choices=WRITERS)

    @property
    def written_paths(self) -> tuple[str, ...]:
        """Names of the paths that the command writes to."""
        return () if self.dry_run else ("output_path",)


@dataclass(frozen=True, kw_only=True)
class StatusConfig(TablesConfig, KafkaConfig):
    """The tables and topic to measure, the period, and the alert thresholds."""

    checkpoint_path: str = option("", "checkpoint of the ingestion; if empty, lag is measured from the tables")
    report_hours: int = number(24, "hours that counts, delays and plots look back, by ingestion time", 1, MAX_HOURS)
    max_batch_seconds: float = number(60.0, "alert when a batch took longer than this; 0 is off", 0, YEAR_SECONDS)
    alert_invalid_ratio: float = number(0.01, "alert when a larger share of the records is invalid; 0 is off", 0, 1)
    max_lag: int = number(100_000, "alert when more records wait in Kafka; 0 is off", 0, MAX_LONG)
    max_staleness_minutes: float = number(
        60.0, "alert when the newest record in the tables is older; 0 is off", 0, MAX_MINUTES
    )
    min_headroom_hours: float = number(
        24.0, "alert when Kafka would delete unread records sooner; 0 is off", 0, MAX_HOURS
    )
    small_file_mb: int = number(
        32, "files below this size in MB are small; partitions with two or more are compacted", 0, MAX_MB
    )
    max_dlq_waiting: int = number(10_000, "alert when more records wait in the DLQ; 0 is off", 0, MAX_LONG)
    fail_on_alert: bool = option(False, "exit with code 6 if an alert fires")
    metrics_file: str = option("", METRICS_FILE_HELP)
    json: bool = option(False, "print the result as JSON")


@dataclass(frozen=True, kw_only=True)
class MaintainConfig(TablesConfig):
    """The tables to maintain, and the steps to run."""

    optimize_after_hours: int = number(
        2, "compact partitions whose hour ended this many hours ago; 0 compacts none", 0, MAX_HOURS
    )
    small_file_mb: int = number(
        32, "files below this size in MB are small; partitions with two or more are compacted", 0, MAX_MB
    )
    delete_replayed_days: int = number(
        0, "ignored: the DLQ keeps all its records because the audit reads them", 0, MAX_DAYS
    )
    retention_hours: int = number(
        0, "hours that VACUUM keeps unreferenced files; 0 uses the table's setting, 7 days", 0, MAX_HOURS
    )
    vacuum: bool = option(False, "delete the files that VACUUM finds instead of only listing them")
    force: bool = option(False, "allow a retention below the table's; use it only if no batch or query runs longer")
    max_minutes: float = number(0.0, "ignored: a run can be stopped at any moment and run again", 0, MAX_MINUTES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.retention_hours < MIN_RETENTION_HOURS and not self.force:
            expected = f"at least {MIN_RETENTION_HOURS} (7 days), or --force: a running batch may need younger files"
            raise InvalidOptionError("retention_hours", self.retention_hours, expected)


@dataclass(frozen=True, kw_only=True)
class CreateTablesConfig(TablesConfig):
    """The tables to create."""

    bronze_table: str = option("", "catalog name of the bronze table; if empty, only its path identifies it")
    dlq_table: str = option("", "catalog name of the DLQ table; if empty, only its path identifies it")
    execute: bool = option(False, "run the statements instead of printing them")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bronze_table", "dlq_table"):
            if not re.fullmatch(r"(?!.*\b\d+\b)(\w+(\.\w+){0,2})?", getattr(self, name), re.ASCII):
                raise InvalidOptionError(name, getattr(self, name), "a name such as catalog.schema.table")
        if self.dlq_table and not self.dlq_path:
            raise _missing_option_error("dlq_path", "--dlq-table names the table there")
