"""Tables and plots for the ingestion notebook: counts and distributions. Reads only."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.config import IngestConfig
from bronze.notebook.plots import INVALID, VALID, choose_unit, show_thin_bars, show_time, stack_bars, start_plot
from bronze.observe.summary import IngestSummary
from bronze.runtime.frames import collect_frame
from bronze.runtime.session import read_table

_SHOWN_BATCHES = 40
_SHORTEST = timedelta(days=1)  # the partitions have no minutes
_BRONZE_PREVIEW = (
    "event_timestamp",
    "tenant_id",
    "request.method",
    "request.path",
    "response.status_code",
    "billing.billing_units",
    "_kafka_partition",
    "_kafka_offset",
)
_DLQ_PREVIEW = ("_error_type", "_error_detail", "_raw_value", "_kafka_partition", "_kafka_offset")


def read_rows(spark: SparkSession, config: IngestConfig, hours: int = 0) -> DataFrame:
    """The rows of both tables with their common columns, ingested in the last hours (0: all rows).

    Columns ``table`` (bronze or DLQ), ``_is_valid``, ``_error_type`` (null in bronze), ``_kafka_partition``,
    ``_ingested_at``, ``_event_date``, ``_event_hour`` (null in the DLQ).
    """
    bronze = read_table(spark, config.output_path).withColumn("_error_type", F.lit(None).cast("string"))
    rows = bronze.withColumn("table", F.lit("bronze")).select(*_SHARED)
    if config.dlq_path:
        dlq = read_table(spark, config.dlq_path)
        absent = {"_event_date": F.lit(None).cast("date"), "_event_hour": F.lit(None).cast("int")}
        dlq = dlq.withColumns({"table": F.lit("DLQ"), "_is_valid": F.lit(False), **absent}).select(*_SHARED)
        rows = rows.unionAll(dlq)
    since = datetime.now(UTC) - timedelta(hours=hours)
    return rows.where(F.col("_ingested_at") >= F.lit(since)) if hours else rows


_SHARED = (
    "table",
    "_is_valid",
    "_error_type",
    "_kafka_partition",
    "_ingested_at",
    "_event_date",
    "_event_hour",
)


def count_tables(rows: DataFrame) -> pd.DataFrame:
    """Rows, batches and the first and last ingestion of each table."""
    counted = rows.groupBy("table").agg(
        F.count("*").alias("rows"),
        F.count_if("_is_valid").alias("valid"),
        F.count_distinct("_ingested_at").alias("batches"),
        F.date_format(F.min("_ingested_at"), "yyyy-MM-dd HH:mm:ss").alias("first ingested (UTC)"),
        F.date_format(F.max("_ingested_at"), "yyyy-MM-dd HH:mm:ss").alias("last ingested (UTC)"),
    )
    return collect_frame(counted.orderBy(F.desc("table"))).set_index("table")


def plot_batches(rows: DataFrame) -> Figure:
    """Records of the latest batches, valid and invalid; the title says if there are more."""
    newest = collect_frame(_count(rows, "_ingested_at").orderBy(F.desc("_ingested_at")).limit(_SHOWN_BATCHES + 1))
    counted = newest.head(_SHOWN_BATCHES).iloc[::-1].reset_index(drop=True)
    title = "Records per batch" + (f", the newest {_SHOWN_BATCHES}" if len(newest) > _SHOWN_BATCHES else "")
    figure, axes = start_plot(title, "start of the batch (UTC)")
    # Placed by number, not by label: bars with the same label would cover each other.
    _stack_valid(axes, counted.index.to_list(), counted)
    axes.set_xticks(counted.index.to_list(), _label_batches(counted["_ingested_at"]))
    axes.tick_params(axis="x", rotation=60 if len(counted) > 8 else 0)
    return figure


def _label_batches(times: pd.Series) -> list[str]:
    """Times to the millisecond, with the date if there are several days."""
    pattern = "%H:%M:%S.%f" if times.dt.date.nunique() <= 1 else "%m-%d %H:%M:%S.%f"
    return [f"{time:{pattern}}"[:-3] for time in times]


def _stack_valid(axes: Axes, positions: Sequence[Any] | pd.Series, counted: pd.DataFrame) -> None:
    stack_bars(axes, positions, {name: counted[name] for name in ("valid", "invalid")})


def plot_error_types(rows: DataFrame) -> Figure:
    """Valid records, and invalid ones by error type (``in bronze`` if no DLQ is configured)."""
    name = F.when(F.col("_is_valid"), "valid").otherwise(F.coalesce("_error_type", F.lit("invalid, in bronze")))
    counted = collect_frame(rows.groupBy(name.alias("name")).count().orderBy("count"))
    figure, axes = start_plot("Valid records, and invalid ones by error type", "records (logarithmic)", ylabel="")
    colours = [VALID if name == "valid" else INVALID for name in counted["name"]]
    bars = axes.barh(counted["name"], counted["count"], color=colours)
    axes.bar_label(bars, labels=[f"{count:,}" for count in counted["count"]], padding=4)
    if len(counted):
        axes.set_xscale("log")
        axes.set_xlim(0.5, counted["count"].max() * 8)
    axes.grid(axis="y", visible=False)
    return figure


def plot_partitions(rows: DataFrame) -> Figure:
    """Records per Kafka partition, valid and invalid."""
    counted = collect_frame(_count(rows, "_kafka_partition").orderBy("_kafka_partition"))
    figure, axes = start_plot("Records per Kafka partition", "Kafka partition")
    _stack_valid(axes, counted["_kafka_partition"], counted)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
    return figure


def plot_hours(rows: DataFrame) -> Figure:
    """Events by event timestamp: per hour, day or month, depending on their span."""
    hour = F.expr("make_timestamp(year(_event_date), month(_event_date), day(_event_date), _event_hour, 0, 0)")
    events = rows.where("_event_date is not null").withColumn("hour", hour)
    first, last = events.agg(F.min("hour"), F.max("hour")).first() or (None, None)
    unit, width = choose_unit(max(last - first, _SHORTEST) if first else _SHORTEST)
    counted = collect_frame(events.groupBy(F.date_trunc(unit, "hour").alias("time")).count().orderBy("time"))
    figure, axes = start_plot(f"Events per {unit}", f"{unit} of the event (UTC)", ylabel="events")
    axes.bar(counted["time"], counted["count"], width=width / timedelta(days=1.2), align="edge", color=VALID)
    if len(counted):
        show_time(axes)
        show_thin_bars(axes)
    return figure


def preview_bronze(spark: SparkSession, config: IngestConfig, count: int = 5) -> pd.DataFrame:
    """Some columns of the latest bronze rows."""
    return _preview(spark, config.output_path, _BRONZE_PREVIEW, count)


def preview_dlq(spark: SparkSession, config: IngestConfig, count: int = 10) -> pd.DataFrame:
    """The latest DLQ rows, long values cut; empty if no DLQ is configured."""
    return _preview(spark, config.dlq_path, _DLQ_PREVIEW, count) if config.dlq_path else pd.DataFrame()


def summarize(summary: IngestSummary, spark: SparkSession, config: IngestConfig) -> dict[str, int | str]:
    """The records that this run ingested, the current number of rows in the tables, and their paths."""
    tables = {"bronze_rows": config.output_path, "dlq_rows": config.dlq_path}
    counts = {name: read_table(spark, path).count() if path else 0 for name, path in tables.items()}
    return {
        "records": summary.counts.total,
        "valid": summary.counts.valid,
        "invalid": summary.counts.invalid,
        "batches": summary.batch_count,
        "restarts": summary.restarts,
        **counts,
        "output_path": config.output_path,
        "dlq_path": config.dlq_path,
    }


def _preview(spark: SparkSession, path: str, columns: tuple[str, ...], count: int) -> pd.DataFrame:
    rows = read_table(spark, path).orderBy(F.desc("_ingested_at"), "_kafka_partition", "_kafka_offset")
    selected = [F.col(name).alias(name.rpartition(".")[2]) for name in columns]
    frame = collect_frame(rows.select(*selected).limit(count))
    return frame.map(lambda value: value[:200] + "…" if isinstance(value, str) and len(value) > 200 else value)


def _count(rows: DataFrame, column: str) -> DataFrame:
    return rows.groupBy(column).agg(
        F.count_if("_is_valid").alias("valid"), F.count_if(~F.col("_is_valid")).alias("invalid")
    )
