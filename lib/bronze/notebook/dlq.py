"""Tables and plots of the DLQ for the inspection notebook: counts, details, samples and drift. Reads only."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial, reduce

import matplotlib.dates as mdates
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from bronze.config import InspectConfig
from bronze.delta.dlq import normalize_detail, select_dlq, select_time
from bronze.notebook.plots import INVALID, VALID, start_plot
from bronze.ops.drift import COUNTED_DDL, count_drift
from bronze.ops.masking import Path, cut_text, parse_mask, show_value
from bronze.runtime.frames import collect_frame
from bronze.schema import ERROR_TYPES

_DAY = timedelta(days=1)
_SHOWN_FIELDS = 50
_PALETTE = ("#c8553d", "#e09f3e", "#7d5ba6", "#9e2a2b", "#8d99ae", "#2a6f97", "#588157", "#bc6c8a")


def count_error_types(rows: DataFrame) -> pd.DataFrame:
    """Records of each error type: all, open, replayed, and when the first and last were ingested."""
    counted = rows.groupBy(F.col("_error_type").alias("error type")).agg(
        F.count("*").alias("records"),
        F.count_if(~F.col("is_replayed")).alias("open"),
        F.count_if("is_replayed").alias("replayed"),
        F.date_format(F.min("_ingested_at"), "yyyy-MM-dd HH:mm:ss").alias("first ingested (UTC)"),
        F.date_format(F.max("_ingested_at"), "yyyy-MM-dd HH:mm:ss").alias("last ingested (UTC)"),
    )
    return collect_frame(counted.orderBy(F.desc("records"), "error type")).set_index("error type")


def plot_over_time(rows: DataFrame) -> Figure:
    """Records by error type over time of ingestion, per minute, hour or day, depending on their span."""
    first, last = rows.agg(F.min("_ingested_at"), F.max("_ingested_at")).first() or (None, None)
    unit, width = _choose_unit(last - first if first else timedelta())
    figure, axes = start_plot(f"Invalid records per {unit}, by error type", "ingested (UTC)")
    time = F.date_trunc(unit, "_ingested_at").alias("time")
    counted = collect_frame(rows.groupBy(time, "_error_type").count())
    by_time = counted.pivot_table(index="time", columns="_error_type", values="count", fill_value=0)
    bottom = pd.Series(0.0, index=by_time.index)
    for name, colour in zip(ERROR_TYPES, _PALETTE, strict=True):
        if name in by_time:
            axes.bar(by_time.index, by_time[name], width / _DAY, bottom, align="edge", label=name, color=colour)
            bottom += by_time[name]
    if len(by_time):
        locator = mdates.AutoDateLocator(minticks=2, maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
        _leave_headroom(axes)
        axes.set_xlim(by_time.index[0] - 2 * width, by_time.index[-1] + 3 * width)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _choose_unit(span: timedelta) -> tuple[str, timedelta]:
    """The unit of time that gives a readable number of bars, and its width."""
    if span <= timedelta(hours=3):
        return "minute", timedelta(minutes=1)
    return ("hour", timedelta(hours=1)) if span <= timedelta(days=4) else ("day", timedelta(days=1))


def plot_partitions(rows: DataFrame) -> Figure:
    """Records per Kafka partition, open and replayed."""
    counted = collect_frame(
        rows.groupBy("_kafka_partition")
        .agg(F.count_if(~F.col("is_replayed")).alias("open"), F.count_if("is_replayed").alias("replayed"))
        .orderBy("_kafka_partition")
    )
    figure, axes = start_plot("Invalid records per Kafka partition", "Kafka partition")
    axes.bar(counted["_kafka_partition"], counted["open"], color=INVALID, label="open")
    axes.bar(counted["_kafka_partition"], counted["replayed"], bottom=counted["open"], color=VALID, label="replayed")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
    _leave_headroom(axes)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _leave_headroom(axes: Axes) -> None:
    axes.use_sticky_edges = False  # with them, the highest bar would touch the frame
    axes.autoscale_view()
    axes.set_ylim(bottom=0)


def list_details(rows: DataFrame, count: int = 20) -> pd.DataFrame:
    """The most frequent error details, without their values, and the position of the newest such record."""
    newest = F.max_by(F.struct("_kafka_partition", "_kafka_offset"), "_ingested_at").alias("newest")
    counted = rows.groupBy("_error_type", normalize_detail(F.col("_error_detail")).alias("detail")).agg(
        F.count("*").alias("records"), F.count_if(~F.col("is_replayed")).alias("open"), newest
    )
    named = counted.orderBy(F.desc("records"), "detail").select(
        F.col("_error_type").alias("error type"),
        F.substring("detail", 1, 300).alias("detail"),
        "records",
        "open",
        F.col("newest._kafka_partition").alias("partition"),
        F.col("newest._kafka_offset").alias("offset"),
    )
    return collect_frame(named.limit(count))


def list_samples(spark: SparkSession, config: InspectConfig) -> pd.DataFrame:
    """The newest records of each error type, values masked and cut."""
    newest = Window.partitionBy("_error_type").orderBy(F.desc("_ingested_at"), "_kafka_partition", "_kafka_offset")
    rows = select_dlq(spark, config).withColumn("rank", F.row_number().over(newest))
    frame = collect_frame(
        rows.where(F.col("rank") <= config.sample_count)
        .orderBy("_error_type", "rank")
        .select(
            F.col("_error_type").alias("error type"),
            normalize_detail(F.col("_error_detail")).alias("detail"),
            F.col("_kafka_partition").alias("partition"),
            F.col("_kafka_offset").alias("offset"),
            F.coalesce(F.length("_raw_bytes"), F.lit(0)).alias("bytes"),
            F.col("_raw_bytes").alias("value"),
        )
    )
    mask = parse_mask(config.mask_fields)
    shown = [show_value(value, mask, config.sample_length) for value in frame["value"]]
    return frame.assign(value=pd.Series(shown, dtype=object))


def report_drift(spark: SparkSession, config: InspectConfig) -> pd.DataFrame:
    """Fields that the schema lacks or has with another type, in the newest records of the DLQ and of bronze."""
    bronze = spark.read.format("delta").load(config.output_path).where(F.col("_kafka_topic") == config.kafka_topic)
    sources = {
        "DLQ": (select_dlq(spark, config), F.col("_raw_bytes")),
        "bronze": (select_time(bronze, config), F.encode("_raw_value", "utf-8")),
    }
    samples = {}
    for name, (rows, value) in sources.items():
        newest = _select_newest(rows, config.drift_records).select(value.alias("value"))
        samples[f"of {newest.count():,} in {'the ' if name == 'DLQ' else ''}{name}"] = newest
    return collect_drift(samples, parse_mask(config.mask_fields), config.sample_length)


def _select_newest(rows: DataFrame, count: int) -> DataFrame:
    """Approximately the newest records. It never sorts values, which may be large, and reads no more than requested."""
    times = rows.select("_ingested_at").orderBy(F.desc("_ingested_at")).limit(count)
    since = times.agg(F.unix_micros(F.min("_ingested_at"))).first()
    assert since is not None
    return rows.where(F.col("_ingested_at") >= F.timestamp_micros(F.lit(since[0]).cast("bigint"))).limit(count)


def collect_drift(samples: dict[str, DataFrame], mask: Sequence[Path], length: int) -> pd.DataFrame:
    """Drift in samples of values, the most frequent first.

    Args:
        samples: DataFrames with the binary column ``value``, by the name of their column in the result.
        mask: Fields whose examples are hidden.
        length: Maximum number of characters of an example.

    Returns:
        Columns ``field``, ``the schema has``, ``came as``, one column of counts per sample, and ``example``.
    """
    counted = [
        values.mapInArrow(partial(count_drift, mask=mask, length=length), COUNTED_DDL).withColumn("sample", F.lit(name))
        for name, values in samples.items()
    ]
    totals = [F.sum(F.when(F.col("sample") == name, F.col("records")).otherwise(0)).alias(name) for name in samples]
    grouped = reduce(DataFrame.unionAll, counted).groupBy("field", "expected", "found")
    named = grouped.agg(*totals, F.min("example").alias("example"), F.sum("records").alias("n"))
    frame = collect_frame(named.orderBy(F.desc("n"), "field").limit(_SHOWN_FIELDS)).drop(columns="n")
    frame["field"] = frame["field"].map(lambda name: cut_text(name, 120))
    frame["expected"] = frame["expected"].replace("", "no such field")
    return frame.rename(columns={"expected": "the schema has", "found": "came as"})
