"""``bronze status``: how are the tables, the lag and the delays, and which alerts fire? Reads only.

The monitoring notebook shows the same in tables and plots.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pandas as pd
from pyspark.sql import SparkSession

from bronze.checkpoint import read_checkpoint
from bronze.config import StatusConfig
from bronze.delta.binding import list_tables_with_positions
from bronze.delta.log import count_files, measure_batches, read_commits
from bronze.delta.log_files import describe_logs
from bronze.delta.tables import CheckedTable, no_table_error
from bronze.errors import ExitCode
from bronze.kafka.times import read_next_timestamps
from bronze.kafka.topic import describe_topic, list_offsets
from bronze.offsets import PlannedOffsets
from bronze.ops.alerts import Alert, evaluate_alerts, select_firing
from bronze.ops.lag import describe_unknown, measure_lag, read_retention
from bronze.ops.measure import choose_minutes, find_newest_event, find_newest_record, find_next_offsets, measure_rows
from bronze.pipeline import check_tables, open_session
from bronze.runtime.paths import qualify_path


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


def main(config: StatusConfig) -> int:
    """The command ``bronze status``: print the status; 6 where an alert fires and ``fail_on_alert`` is set."""
    from bronze.ops.status_report import to_json, to_text

    status = run(config)
    print(to_json(status) if config.json else to_text(status))
    return ExitCode.ALERTS_FIRING if config.fail_on_alert and select_firing(status.alerts) else ExitCode.DONE


def run(config: StatusConfig, spark: SparkSession | None = None) -> Status:
    """Measure; nothing is written, and a stream may run meanwhile.

    Args:
        config: Topic, tables and checkpoint of the ingestion, and the thresholds of the alerts.
        spark: Session to use; a new local one when not given.

    Raises:
        ConfigError: There is no bronze table; a DLQ that is missing only has no rows.
        BronzeError: Kafka, a table or the checkpoint cannot be read, or does not belong to the others.
    """
    spark = open_session(config, spark)
    topic = describe_topic(spark, config)
    bronze, dlq = check_tables(spark, config, topic)
    if bronze.state is None:
        raise no_table_error("output-path", bronze.path)
    tables = {"bronze": bronze} | ({"dlq": dlq} if dlq and dlq.state else {})
    paths = {name: table.path for name, table in tables.items()}
    now = datetime.now(UTC).replace(tzinfo=None)
    since = now - timedelta(hours=config.report_hours)
    # In this order: what a checkpoint says is read, Kafka has.
    next_offsets = _find_next_offsets(spark, config, bronze, dlq, list_offsets(spark, config, topic))
    held = list_offsets(spark, config, topic)
    retention = read_retention(spark, config)
    unread = read_next_timestamps(spark, config, next_offsets, held)
    lag = measure_lag(next_offsets, held, unread, retention, datetime.now(UTC))
    files = _count_files(spark, config, tables)
    commits = pd.concat({name: read_commits(spark, path, since) for name, path in paths.items()}, names=["table", None])
    batches = measure_batches(commits)
    rows = measure_rows(spark, paths, topic.name, since, choose_minutes(config.report_hours))
    totals = _read_totals(rows)
    newest = _find_newest(spark, paths, files)
    freshness = _measure_freshness(find_newest_event(spark, bronze.path, select_bronze(files)), *newest, now)
    alerts = evaluate_alerts(config, _select_measured(config, batches, totals, lag, freshness))
    odd = (describe_unknown(lag, retention), _describe_odd(totals))
    notes = [note for note in (retention.note, *odd, *_describe_missing(config, dlq)) if note]
    notes += describe_logs(spark, list(paths.values()))
    return Status(
        topic.name,
        now,
        config.report_hours,
        rows.dropna(subset="time"),
        totals,
        freshness,
        lag,
        files.drop(columns=["odd_ingested", "unmeasured"]),
        commits.droplevel(1).reset_index(),
        batches,
        alerts,
        notes,
    )


def _find_next_offsets(
    spark: SparkSession,
    config: StatusConfig,
    bronze: CheckedTable,
    dlq: CheckedTable | None,
    held: PlannedOffsets,
) -> dict[int, int]:
    """Where the ingestion goes on: as the checkpoint says, else after what the tables have."""
    if config.checkpoint_path:
        checkpoint = read_checkpoint(spark, qualify_path(spark, config.checkpoint_path), config.kafka_topic)
        if checkpoint:
            return checkpoint.starts
    tables = list_tables_with_positions(spark, bronze, dlq, config.kafka_topic)
    return find_next_offsets(spark, tables, config.kafka_topic, held)


def _count_files(spark: SparkSession, config: StatusConfig, tables: dict[str, CheckedTable]) -> pd.DataFrame:
    """The partitions of all tables, by ``table`` and ``partition`` (its date, and hour where it has one)."""
    frames = []
    for name, table in tables.items():
        counted = count_files(spark, table.path, table.spec, config.small_file_mb)
        dates = counted[list(table.spec.partition_columns)]
        labels = [_describe_partition(*values) for values in dates.itertuples(index=False)]
        frames.append(counted.assign(table=name, partition=pd.Series(labels, dtype=object)))
    return pd.concat(frames).set_index(["table", "partition"]).sort_index()


def select_bronze(files: pd.DataFrame) -> pd.DataFrame:
    """The partitions of bronze; none where it is empty."""
    return files[files.index.get_level_values("table") == "bronze"]


def _describe_partition(date: str | None, hour: str | None = None) -> str:
    if date is None:
        return "no event time"
    return date if hour is None else f"{date} {int(hour):02}:00"


def _read_totals(rows: pd.DataFrame) -> dict[str, float]:
    """The row without a time; without any rows there is none."""
    total = rows[rows["time"].isna()].drop(columns="time")
    return {"valid": 0, "invalid": 0, **({} if total.empty else total.iloc[0].to_dict())}


def _find_newest(
    spark: SparkSession, paths: dict[str, str], files: pd.DataFrame
) -> tuple[datetime | None, datetime | None]:
    """The newest record and the newest ingestion: from statistics, and from the rows of what these leave open."""
    kafka, ingested, odd = (_find_max(files[name]) for name in ("newest_kafka", "newest_ingested", "odd_ingested"))
    if odd and (kafka is None or odd > kafka):
        # The last one by itself: where its records have no usable time, its start is newer than all before it.
        kafka = _choose_newest(kafka, find_newest_record(spark, paths, odd, odd)[0])
    if files["unmeasured"].any() or (odd and kafka and odd > kafka):
        read = find_newest_record(spark, paths, kafka)
        kafka, ingested = _choose_newest(kafka, read[0]), _choose_newest(ingested, read[1])
    return kafka, ingested


def _find_max(times: pd.Series) -> datetime | None:
    return None if pd.isna(newest := times.max()) else newest.to_pydatetime()


def _choose_newest(*times: datetime | None) -> datetime | None:
    return max(filter(None, times), default=None)


def _measure_freshness(
    newest_event: datetime | None, newest_kafka: datetime | None, newest_ingested: datetime | None, now: datetime
) -> pd.DataFrame:
    """How old the newest of each is; an event's age is below 0 where a producer's clock is ahead."""
    newest = {"event": newest_event, "Kafka timestamp": newest_kafka, "ingestion": newest_ingested}
    frame = pd.DataFrame({"time": pd.to_datetime(pd.Series(newest, dtype=object))}).rename_axis("newest")
    frame["age"] = (now - frame["time"]).dt.total_seconds() / 60
    # A stream may have ingested since.
    arrived = ["Kafka timestamp", "ingestion"]
    frame.loc[arrived, "age"] = frame.loc[arrived, "age"].clip(lower=0)
    return frame


def _select_measured(
    config: StatusConfig, batches: pd.DataFrame, totals: dict[str, float], lag: pd.DataFrame, freshness: pd.DataFrame
) -> dict[str, float | None]:
    """What each alert looks at, by the name of its threshold."""
    records = totals["valid"] + totals["invalid"]
    shortest = lag["headroom"].min()
    measured = {
        "max_batch_seconds": batches["seconds"].max(),
        "alert_invalid_ratio": totals["invalid"] / records if records else math.nan,
        "max_lag": lag["lag"].sum(),
        "max_staleness_minutes": freshness["age"]["Kafka timestamp"],
        # One that is not known may be the shortest, unless a known one is short enough to alert.
        "min_headroom_hours": lag["headroom"].min(skipna=bool(shortest < config.min_headroom_hours or shortest == 0)),
    }
    return {name: None if pd.isna(value) else float(value) for name, value in measured.items()}


def _describe_odd(totals: dict[str, float]) -> str:
    if not totals.get("odd_timestamps"):
        return ""
    return (
        f"{totals['odd_timestamps']:,.0f} records have a Kafka timestamp that no clock could mean (missing, before "
        "2000 or in the future): delays and ages leave them out"
    )


def _describe_missing(config: StatusConfig, dlq: CheckedTable | None) -> list[str]:
    notes = []
    if dlq and dlq.state is None:
        notes.append(f"there is no DLQ table at {dlq.path} yet")
    if not config.checkpoint_path:
        notes.append("lag is counted from the tables; give --checkpoint-path to see what is committed")
    return notes
