"""``bronze status``: measure the tables, the lag and the delays, and evaluate the alerts. Reads only.

The monitoring notebook shows the same in tables and plots.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from bronze.config import StatusConfig
from bronze.delta.dlq import mark_replayed
from bronze.delta.log_cleanup import measure_log
from bronze.delta.statistics import count_files, measure_batches, read_commits
from bronze.delta.tables import CheckedTable
from bronze.errors import ExitCode
from bronze.kafka.retention import Retention, fetch_retention
from bronze.kafka.times import read_next_timestamps
from bronze.observe.metrics import check_client, write_metrics
from bronze.ops.alerts import evaluate_alerts, select_firing
from bronze.ops.lag import explain_lost_end, explain_unknown_headroom, measure_lag
from bronze.ops.measure import choose_minutes, find_newest_event, find_newest_record, find_next_offsets, measure_rows
from bronze.ops.metrics import fill_status
from bronze.ops.status_report import Status, to_json, to_text
from bronze.pipeline import Pipeline
from bronze.runtime.session import read_table
from bronze.runtime.spark_errors import explain_failures


def main(config: StatusConfig) -> int:
    """The command ``bronze status``: print the status; exit code 6 if an alert fires and ``fail_on_alert`` is set."""
    found = status(config)
    print(to_json(found) if config.json else to_text(found))
    return ExitCode.ALERTS_FIRING if config.fail_on_alert and select_firing(found.alerts) else ExitCode.DONE


def status(config: StatusConfig, spark: SparkSession | None = None) -> Status:
    """Measure the status. Reads only; a stream may run at the same time.

    Args:
        config: Topic, tables and checkpoint of the ingestion, and the thresholds of the alerts.
        spark: Session to use; a new local one when not given.

    Raises:
        ConfigError: There is no bronze table. A missing DLQ counts as empty.
        BronzeError: Kafka, a table or the checkpoint cannot be read, or they do not belong together.
    """
    check_client(config.metrics_file)
    with explain_failures(), Pipeline.open(config, spark) as pipeline:
        pipeline.check_exists("output-path")
        found = _measure(pipeline, config)
    write_metrics(config.metrics_file, "status", found.topic, partial(fill_status, found))
    return found


def _measure(pipeline: Pipeline, config: StatusConfig) -> Status:
    spark, dlq = pipeline.spark, pipeline.dlq
    tables = {"bronze": pipeline.bronze} | ({"dlq": dlq} if dlq and dlq.state else {})
    paths = {name: table.path for name, table in tables.items()}
    now = datetime.now(UTC).replace(tzinfo=None)
    since = now - timedelta(hours=config.report_hours)
    lag, retention = _measure_lag(pipeline, config)
    files = _count_files(spark, config, tables)
    commits = pd.concat({name: read_commits(spark, path, since) for name, path in paths.items()}, names=["table", None])
    batches = measure_batches(commits)
    rows = measure_rows(spark, paths, pipeline.topic.name, since, choose_minutes(config.report_hours))
    totals = _read_totals(rows)
    newest_event = find_newest_event(spark, pipeline.bronze.path, select_bronze(files))
    freshness = _measure_freshness(newest_event, *_find_newest(spark, paths, files), now)
    waiting = _count_waiting(pipeline, config, paths)
    alerts = evaluate_alerts(config, _select_measured(config, batches, totals, lag, freshness, waiting))
    odd = (explain_lost_end(lag), explain_unknown_headroom(lag, retention), _explain_odd(totals))
    notes = [note for note in (retention.note, *odd, *_explain_missing(config, dlq)) if note]
    logs = {name: measure_log(spark, path) for name, path in paths.items()}
    notes += [note for log in logs.values() for note in log.notes]
    return Status(
        pipeline.topic.name,
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
        logs,
        waiting,
    )


def _measure_lag(pipeline: Pipeline, config: StatusConfig) -> tuple[pd.DataFrame, Retention]:
    # The order matters while a stream runs: Kafka holds everything that the checkpoint has read.
    next_offsets = _find_next_offsets(pipeline, config)
    available, retention = pipeline.fetch_available(), fetch_retention(pipeline.kafka)
    unread = read_next_timestamps(pipeline.kafka, next_offsets, available)
    return measure_lag(next_offsets, available, unread, retention, datetime.now(UTC)), retention


def _find_next_offsets(pipeline: Pipeline, config: StatusConfig) -> dict[int, int]:
    """Where the ingestion continues: from the checkpoint, otherwise after the highest offset in the tables."""
    checkpoint = pipeline.get_checkpoint(config.checkpoint_path).read() if config.checkpoint_path else None
    if checkpoint:
        return checkpoint.next_offsets
    tables, available = [pipeline.bronze.path, *pipeline.known.dlq_paths], pipeline.fetch_available()
    return find_next_offsets(pipeline.spark, tables, pipeline.topic.name, available)


def _count_waiting(pipeline: Pipeline, config: StatusConfig, paths: Mapping[str, str]) -> int | None:
    """Count the DLQ records that were not replayed; None if that is off, because it reads bronze's position columns."""
    if not config.max_dlq_waiting:
        return None
    if "dlq" not in paths:
        return 0
    topic = pipeline.topic.name
    rows = read_table(pipeline.spark, paths["dlq"]).where(F.col("_kafka_topic") == topic)
    positions = rows.select("_kafka_partition", "_kafka_offset")
    return mark_replayed(positions, paths["bronze"], topic).where("NOT is_replayed").count()


def _count_files(spark: SparkSession, config: StatusConfig, tables: dict[str, CheckedTable]) -> pd.DataFrame:
    """The partitions of all tables, by ``table`` and ``partition`` (its date, and its hour if it has one)."""
    frames = []
    for name, table in tables.items():
        counted = count_files(spark, table.path, table.spec, config.small_file_mb)
        dates = counted[list(table.spec.partition_columns)]
        labels = [_format_partition(*values) for values in dates.itertuples(index=False)]
        frames.append(counted.assign(table=name, partition=pd.Series(labels, dtype=object)))
    return pd.concat(frames).set_index(["table", "partition"]).sort_index()


def select_bronze(files: pd.DataFrame) -> pd.DataFrame:
    """The partitions of bronze; empty if it has no rows."""
    return files[files.index.get_level_values("table") == "bronze"]


def _format_partition(date: str | None, hour: str | None = None) -> str:
    if date is None:
        return "no event time"
    return date if hour is None else f"{date} {int(hour):02}:00"


def _read_totals(rows: pd.DataFrame) -> dict[str, float]:
    """The totals from the row without a time, which is absent if there are no rows."""
    total = rows[rows["time"].isna()].drop(columns="time")
    return {"valid": 0, "invalid": 0, **({} if total.empty else total.iloc[0].to_dict())}


def _find_newest(
    spark: SparkSession, paths: dict[str, str], files: pd.DataFrame
) -> tuple[datetime | None, datetime | None]:
    """The newest record and ingestion, from file statistics, and from rows if the statistics do not suffice."""
    kafka, ingested, odd = (_find_max(files[name]) for name in ("newest_kafka", "newest_ingested", "odd_ingested"))
    if odd and (kafka is None or odd > kafka):
        # Read the last batch separately: if its records have no usable time, its start is the newest time of all.
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
    """The age of the newest event, record and ingestion; an event's age is negative if a producer's clock is ahead."""
    newest = {"event": newest_event, "Kafka timestamp": newest_kafka, "ingestion": newest_ingested}
    frame = pd.DataFrame({"time": pd.to_datetime(pd.Series(newest, dtype=object))}).rename_axis("newest")
    frame["age"] = (now - frame["time"]).dt.total_seconds() / 60
    # A stream may have ingested more since ``now``.
    arrived = ["Kafka timestamp", "ingestion"]
    frame.loc[arrived, "age"] = frame.loc[arrived, "age"].clip(lower=0)
    return frame


def _select_measured(
    config: StatusConfig,
    batches: pd.DataFrame,
    totals: dict[str, float],
    lag: pd.DataFrame,
    freshness: pd.DataFrame,
    waiting: int | None,
) -> dict[str, float | None]:
    """The measured value of each alert, by the name of its threshold."""
    records = totals["valid"] + totals["invalid"]
    shortest = lag["headroom"].min()
    measured = {
        "max_batch_seconds": batches["seconds"].max(),
        "alert_invalid_ratio": totals["invalid"] / records if records else math.nan,
        "max_lag": lag["lag"].sum(),
        "max_staleness_minutes": freshness["age"]["Kafka timestamp"],
        # An unknown headroom may be the shortest one, unless a known one is short enough to fire the alert.
        "min_headroom_hours": lag["headroom"].min(skipna=bool(shortest < config.min_headroom_hours or shortest == 0)),
        "max_dlq_waiting": waiting,
    }
    return {name: None if pd.isna(value) else float(value) for name, value in measured.items()}


def _explain_odd(totals: dict[str, float]) -> str:
    if not totals.get("odd_timestamps"):
        return ""
    return (
        f"{totals['odd_timestamps']:,.0f} records have an implausible Kafka timestamp (missing, before 2000 or in the "
        "future); delays and ages ignore them"
    )


def _explain_missing(config: StatusConfig, dlq: CheckedTable | None) -> list[str]:
    notes = []
    if dlq and dlq.state is None:
        notes.append(f"there is no DLQ table at {dlq.path} yet")
    if not config.checkpoint_path:
        notes.append("lag is measured from the tables; set --checkpoint-path to measure it from the checkpoint")
    return notes
