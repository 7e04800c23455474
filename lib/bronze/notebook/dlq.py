"""Tables and plots of the DLQ for the inspection notebook: counts, details, samples and drift. Reads only."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial, reduce

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from bronze.config import InspectConfig
from bronze.delta.dlq import normalize_detail, read_dlq, select_dlq, select_time
from bronze.notebook.cells import cut_rows
from bronze.notebook.plots import choose_unit, show_thin_bars, show_time, stack_bars, start_plot
from bronze.ops.drift import COUNTED_DDL, count_drift
from bronze.ops.masking import Path, cut_text, parse_mask, show_value
from bronze.pipeline import open_session
from bronze.runtime.frames import collect_frame
from bronze.runtime.session import read_table
from bronze.runtime.spark_errors import explain_failures
from bronze.schema import ERROR_TYPES

_SHOWN_FIELDS = 50
_PALETTE = ("#c8553d", "#e09f3e", "#7d5ba6", "#9e2a2b", "#8d99ae", "#2a6f97", "#588157", "#bc6c8a")
_OTHER = "#333333"


def read_rows(spark: SparkSession, config: InspectConfig) -> DataFrame:
    """Read the rows of ``read_dlq`` after the checks with which each command begins.

    Raises:
        BronzeError: A table cannot be read, or the object store does not answer or refuses the credentials.
    """
    with explain_failures():
        return read_dlq(open_session(config, spark), config)


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
    """Records by error type over time of ingestion, per minute, hour, day or month, depending on their span."""
    first, last = rows.agg(F.min("_ingested_at"), F.max("_ingested_at")).first() or (None, None)
    unit, width = choose_unit(last - first if first else timedelta())
    figure, axes = start_plot(f"Invalid records per {unit}, by error type", "ingested (UTC)")
    time = F.date_trunc(unit, "_ingested_at").alias("time")
    counted = collect_frame(rows.groupBy(time, F.coalesce("_error_type", F.lit("none")).alias("type")).count())
    by_time = counted.pivot_table(index="time", columns="type", values="count", fill_value=0)
    if len(by_time):
        # A DLQ that another version of this package wrote may have other types.
        names = [*(name for name in ERROR_TYPES if name in by_time), *sorted(set(by_time) - set(ERROR_TYPES))]
        parts = {name: by_time[name] for name in names}
        colours = dict.fromkeys(names, _OTHER) | dict(zip(ERROR_TYPES, _PALETTE, strict=True))
        # Narrower than the unit, because adjacent bars would look like one.
        stack_bars(axes, by_time.index, parts, colours=colours, width=width / timedelta(days=1.1), align="edge")
        show_time(axes, ticks=8)
        axes.set_xlim(by_time.index[0] - 2 * width, by_time.index[-1] + 3 * width)
        show_thin_bars(axes)
    return figure


def plot_partitions(rows: DataFrame) -> Figure:
    """Records per Kafka partition, open and replayed."""
    counted = collect_frame(
        rows.groupBy("_kafka_partition")
        .agg(F.count_if(~F.col("is_replayed")).alias("open"), F.count_if("is_replayed").alias("replayed"))
        .orderBy("_kafka_partition")
    )
    figure, axes = start_plot("Invalid records per Kafka partition", "Kafka partition")
    stack_bars(axes, counted["_kafka_partition"], {name: counted[name] for name in ("open", "replayed")})
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
    return figure


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
    return cut_rows(collect_frame(named.limit(count + 1)), count)


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
    bronze = read_table(spark, config.output_path).where(F.col("_kafka_topic") == config.kafka_topic)
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
        Columns ``field``, ``type in the schema``, ``type found``, one column of counts per sample, and ``example``.
    """
    counted = [
        values.mapInArrow(partial(count_drift, mask=mask, length=length), COUNTED_DDL).withColumn("sample", F.lit(name))
        for name, values in samples.items()
    ]
    totals = [F.sum(F.when(F.col("sample") == name, F.col("records")).otherwise(0)).alias(name) for name in samples]
    grouped = reduce(DataFrame.unionAll, counted).groupBy("field", "expected", "found")
    named = grouped.agg(*totals, F.min("example").alias("example"), F.sum("records").alias("n"))
    frame = collect_frame(named.orderBy(F.desc("n"), "field").limit(_SHOWN_FIELDS + 1)).drop(columns="n")
    frame["field"] = frame["field"].map(lambda name: cut_text(name, 120))
    frame["expected"] = frame["expected"].replace("", "no such field")
    return cut_rows(frame.rename(columns={"expected": "type in the schema", "found": "type found"}), _SHOWN_FIELDS)
