"""Records that producers sent more than once: with the same ``event_id``, or with the same value.

Bronze keeps them all, because each is a Kafka record. Spark counts them in one pass over two columns.
"""

from datetime import UTC, datetime, timedelta

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from bronze.config import StatusConfig
from bronze.runtime.frames import collect_frame
from bronze.runtime.session import read_table


def count_duplicates(spark: SparkSession, config: StatusConfig) -> pd.DataFrame:
    """Valid records of bronze that share their ``event_id`` or their ``_row_hash`` with another one.

    Args:
        spark: Session.
        config: The bronze table, the topic and ``report_hours``.

    Returns:
        A row for each of the two columns, with the records that share a value (``records``), the values that they share
        (``distinct``), all records but the first of each (``surplus``), and the event ids whose records have different
        values (``with other values``).
    """
    since = F.lit(datetime.now(UTC) - timedelta(hours=config.report_hours))
    rows = read_table(spark, config.output_path).where(F.col("_kafka_topic") == config.kafka_topic)
    recent = rows.where(F.col("_is_valid") & (F.col("_ingested_at") >= since)).select("event_id", "_row_hash")
    # One shuffle is enough for both: records with the same value have the same event id.
    by_value = recent.repartition("event_id").groupBy("event_id", "_row_hash").agg(F.count("*").alias("records"))
    is_shared = F.col("records") > 1
    by_event = by_value.groupBy("event_id").agg(
        F.sum("records").alias("records"),
        F.count("*").alias("values"),
        F.count_if(is_shared).alias("shared"),
        F.sum(F.when(is_shared, F.col("records")).otherwise(0)).alias("sharing"),
    )
    totals = by_event.agg(
        F.sum(F.when(is_shared, F.col("records")).otherwise(0)).alias("records"),
        F.count_if(is_shared).alias("events"),
        F.count_if(F.col("values") > 1).alias("other"),
        F.sum("sharing").alias("sharing"),
        F.sum("shared").alias("shared"),
    )
    found = collect_frame(totals).fillna(0).astype(int).iloc[0]
    counts = {
        "event_id": (found["records"], found["events"], found["records"] - found["events"], found["other"]),
        "_row_hash": (found["sharing"], found["shared"], found["sharing"] - found["shared"], 0),
    }
    columns = ["records", "distinct", "surplus", "with other values"]
    return pd.DataFrame.from_dict(counts, orient="index", columns=columns).rename_axis("records that share")


def summarize(duplicates: pd.DataFrame) -> dict[str, int]:
    """The counts that the notebook records."""
    return {f"sharing {name}": int(count) for name, count in duplicates["records"].items()}
