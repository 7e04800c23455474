"""The parameters of the commands that operate what the ingestion wrote."""

import re
from dataclasses import dataclass

from bronze.config import (
    CHANGE_DLQ_HELP,
    MAX_DAYS,
    MAX_HOURS,
    MAX_INT,
    MAX_LONG,
    MAX_MINUTES,
    WRITERS,
    YEAR_SECONDS,
    KafkaConfig,
    TablesConfig,
    number,
    option,
)
from bronze.errors import InvalidOption, OptionMissing, RangeAmbiguous, RangeMissing
from bronze.parsing import parse_error_types, parse_offset_ranges, parse_offsets, parse_time, parse_timestamp

# Delta's own limit: what is younger may belong to a batch or a query that runs.
MIN_RETENTION_HOURS = 168
MAX_MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class AuditConfig(TablesConfig, KafkaConfig):
    """What to audit: the same topic, tables and checkpoint as the ingestion's."""

    checkpoint_path: str = option("", "checkpoint of the ingestion; says where it began and what it has not read yet")
    json: bool = option(False, "print the result as JSON")


@dataclass(frozen=True, kw_only=True)
class BackfillConfig(TablesConfig, KafkaConfig):
    """Which part of the topic the tables should have, where they are, and how to add what they lack."""

    starting_offsets: str = option("", "first offsets: earliest, or JSON of the partitions to backfill")
    ending_offsets: str = option("", "end offsets, exclusive: latest (the default), or JSON of the same partitions")
    start_timestamp: str = option("", "first Kafka timestamp, ISO 8601 with a zone, instead of offsets")
    end_timestamp: str = option("", "end of the Kafka timestamps, exclusive, ISO 8601 with a zone; empty is now")
    max_offsets_per_trigger: int = number(500_000, "records per batch at the most", 1, MAX_LONG)
    dry_run: bool = option(False, "show the plan and change nothing")
    allow_partial: bool = option(False, "take what Kafka still holds of the range")
    writer: str = option("auto", "auto, direct or delta-spark", choices=WRITERS)
    checkpoint_path: str = option("", "checkpoint of the ingestion; what it has not planned yet is left to it")
    change_dlq: bool = option(False, CHANGE_DLQ_HELP)

    def __post_init__(self) -> None:
        super().__post_init__()
        by_offsets, by_time = ("starting_offsets", "ending_offsets"), ("start_timestamp", "end_timestamp")
        given = [[name for name in names if getattr(self, name)] for names in (by_offsets, by_time)]
        if not any(given):
            raise RangeMissing()
        if all(given):
            raise RangeAmbiguous(*given)
        self._check_offsets()
        self._check_times()

    def _check_offsets(self) -> None:
        starts, ends = self.parse_range()
        for name, offsets in (("starting_offsets", starts), ("ending_offsets", ends)):
            if offsets == {}:
                raise InvalidOption(name, getattr(self, name), "JSON with one partition or more")
        if starts is None or ends is None:
            return
        if differing := sorted(set(starts) ^ set(ends)):
            expected = f"the partitions of --starting-offsets; in one of the two only: {', '.join(map(str, differing))}"
            raise InvalidOption("ending_offsets", self.ending_offsets, expected)
        if turned := [p for p in sorted(starts) if 0 <= ends[p] < starts[p]]:
            raise InvalidOption(
                "ending_offsets", self.ending_offsets, f"no offset below the first ones; partition {turned[0]} has"
            )

    def _check_times(self) -> None:
        start, end = (parse_timestamp(name, getattr(self, name)) for name in ("start_timestamp", "end_timestamp"))
        if start is not None and end is not None and end <= start:
            raise InvalidOption("end_timestamp", self.end_timestamp, f"a time after {self.start_timestamp}")

    def parse_range(self) -> tuple[dict[int, int] | None, dict[int, int] | None]:
        """First and end offsets of the named partitions, -2 for the earliest and -1 for the latest; None is all."""
        starts = parse_offsets("starting_offsets", self.starting_offsets, self.kafka_topic, ["earliest"])
        return starts, parse_offsets("ending_offsets", self.ending_offsets, self.kafka_topic, ["latest"])


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(TablesConfig):
    """Which checkpoint to look at, and whose it should be."""

    checkpoint_path: str = option("", "where the query keeps its progress", required=True)
    kafka_topic: str = option("api-usage-events.v1", "Kafka topic that the checkpoint is of", required=True)


@dataclass(frozen=True, kw_only=True)
class DlqConfig(TablesConfig):
    """Which records of the DLQ; those that all filters leave."""

    dlq_path: str = option("", "path of the DLQ Delta table", required=True)
    kafka_topic: str = option("api-usage-events.v1", "Kafka topic that the records came from", required=True)
    error_type: str = option("", "only these error types, comma-separated")
    start_timestamp: str = option("", "only what was ingested at or after this time, ISO 8601 with zone")
    end_timestamp: str = option("", "only what was ingested before this time, ISO 8601 with zone")
    offsets: str = option("", 'only these offsets, as JSON of first and last per partition: {"0": [[5, 9], [12, 12]]}')

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_error_types(self.error_type)
        parse_offset_ranges(self.offsets)
        start, end = (parse_time(name, getattr(self, name)) for name in ("start_timestamp", "end_timestamp"))
        if start and end and start >= end:
            raise InvalidOption("end_timestamp", self.end_timestamp, f"a time after {self.start_timestamp}")


@dataclass(frozen=True, kw_only=True)
class InspectConfig(DlqConfig):
    """What the DLQ's inspection shows of the records' values."""

    sample_count: int = number(2, "newest records to show of each error type", 0, MAX_INT)
    sample_length: int = number(300, "characters to show of a value at the most", 1, MAX_INT)
    mask_fields: str = option("", "fields whose values are hidden, as comma-separated paths")
    drift_records: int = number(10_000, "newest records of each table to look for drift in", 0, MAX_INT)


@dataclass(frozen=True, kw_only=True)
class ReplayConfig(DlqConfig):
    """Which records of the DLQ to decode again, and how to append them to bronze."""

    dry_run: bool = option(False, "say what would be replayed and what still fails, and write nothing")
    max_records: int = number(100_000, "records to append in one transaction at the most", 1, MAX_LONG)
    writer: str = option("auto", "auto, direct or delta-spark", choices=WRITERS)


@dataclass(frozen=True, kw_only=True)
class StatusConfig(TablesConfig, KafkaConfig):
    """What to look at, how far back, and when to raise an alert."""

    checkpoint_path: str = option("", "checkpoint of the ingestion; says what it has not read, else the tables do")
    report_hours: int = number(24, "hours back that counts, delays and plots look, by ingestion", 1, MAX_HOURS)
    max_batch_seconds: float = number(60.0, "alert when a batch took more seconds; 0 is off", 0, YEAR_SECONDS)
    alert_invalid_ratio: float = number(0.01, "alert when a larger share of the records is invalid; 0 is off", 0, 1)
    max_lag: int = number(100_000, "alert when more records wait in Kafka; 0 is off", 0, MAX_LONG)
    max_staleness_minutes: float = number(
        60.0, "alert when the newest record in the tables is older; 0 is off", 0, MAX_MINUTES
    )
    min_headroom_hours: float = number(24.0, "alert when Kafka deletes an unread record sooner; 0 is off", 0, MAX_HOURS)
    small_file_mb: int = number(
        32, "files below this many MB are small; two in a partition are worth compacting", 0, MAX_MB
    )
    fail_on_alert: bool = option(False, "end with exit code 6 when an alert fires")
    json: bool = option(False, "print the result as JSON")


@dataclass(frozen=True, kw_only=True)
class MaintainConfig(TablesConfig):
    """What to compact, what to delete, and for how long."""

    optimize_after_hours: int = number(
        2, "compact partitions whose hour ended this long ago; 0 leaves them", 0, MAX_HOURS
    )
    small_file_mb: int = number(
        32, "files below this many MB are small; two in a partition are worth compacting", 0, MAX_MB
    )
    delete_replayed_days: int = number(
        0, "is ignored: the DLQ keeps all of its records, the audit reads them", 0, MAX_DAYS
    )
    retention_hours: int = number(
        0, "VACUUM keeps files for this many hours; 0 is the table's own setting, 7 days", 0, MAX_HOURS
    )
    vacuum: bool = option(False, "delete the files that VACUUM finds; without it they are only listed")
    force: bool = option(False, "let VACUUM keep files for less; no batch or query may last longer than that")
    max_minutes: float = number(
        60.0, "begin no further partition after this many minutes; 0 is no limit", 0, MAX_MINUTES
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.retention_hours < MIN_RETENTION_HOURS and not self.force:
            expected = f"at least {MIN_RETENTION_HOURS} (7 days), or --force: a running batch may need younger files"
            raise InvalidOption("retention_hours", self.retention_hours, expected)


@dataclass(frozen=True, kw_only=True)
class CreateTablesConfig(TablesConfig):
    """Which tables to create."""

    bronze_table: str = option("", "catalog name of the bronze table; empty knows it by its path alone")
    dlq_table: str = option("", "catalog name of the DLQ table; empty knows it by its path alone")
    execute: bool = option(False, "run the statements; without it they are only printed")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bronze_table", "dlq_table"):
            if not re.fullmatch(r"(?!.*\b\d+\b)(\w+(\.\w+){0,2})?", getattr(self, name), re.ASCII):
                raise InvalidOption(name, getattr(self, name), "a name such as catalog.schema.table")
        if self.dlq_table and not self.dlq_path:
            raise OptionMissing("dlq_path", "--dlq-table names the table there")
