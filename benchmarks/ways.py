"""The ways to ingest a topic that ``ingest.py`` compares: each runs one stream over the whole topic, then ends."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from threading import Event
from typing import Protocol
from unittest.mock import patch

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming import DataStreamWriter, StreamingQueryListener

import bronze.batch
from bronze import ingest
from bronze.batch import select_records
from bronze.config import IngestConfig
from bronze.runtime.session import apply_settings, local_settings
from bronze.schema import get_event_schema
from bronze.transforms import RECORD_COLUMNS

CORES = 2


@dataclass(frozen=True)
class Source:
    """A topic, and the number of its records that a batch reads."""

    brokers: str
    topic: str
    limit: int


class Run(Protocol):
    """Runs a stream that writes into a folder; returns the number of records in its tables."""

    def __call__(self, spark: SparkSession, source: Source, folder: Path | str) -> int: ...


class BatchTimes(StreamingQueryListener):
    """Collects the duration of each batch as Spark reports it, including planning and the offset log."""

    def __init__(self) -> None:
        self._ended = Event()
        self._batches: list[tuple[int, float]] = []

    def onQueryStarted(self, event):  # noqa: N802
        pass

    def onQueryProgress(self, event):  # noqa: N802
        self._batches.append((event.progress.numInputRows, event.progress.durationMs["triggerExecution"] / 1000))

    def onQueryIdle(self, event):  # noqa: N802
        pass

    def onQueryTerminated(self, event):  # noqa: N802
        self._ended.set()

    def measure(self, action: Callable[[], int], limit: int) -> tuple[int, list[float]]:
        """Run one stream; return what the action returns, and the seconds of the batches in order.

        Partitions of unequal size leave a small last batch, which is not representative and left out.
        """
        self._ended.clear()
        self._batches.clear()
        result = action()
        assert self._ended.wait(30), "Spark did not report the end of the stream"
        return result, [seconds for rows, seconds in self._batches if rows >= limit / 2]


def start_session(cores: int = CORES, stores: Collection[str] = ()) -> SparkSession:
    """A local session with the product's settings."""
    builder = SparkSession.builder.appName("benchmark")
    for key, value in {**local_settings(stores=stores), "spark.master": f"local[{cores},4]"}.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    apply_settings(spark)
    return spark


def drop_consumers(spark: SparkSession) -> None:
    """Close the consumers that Spark keeps for five minutes after a stream, and collect garbage.

    Each stream has a new group, so the next one cannot use them; they only take memory. Spark has no public call.
    """
    jvm = spark._jvm
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    holder = loader.loadClass("org.apache.spark.sql.kafka010.consumer.KafkaDataConsumer$")
    for name in ("consumerPool", "fetchedDataPool"):
        pool = holder.getDeclaredField(name)
        pool.setAccessible(True)
        pool.get(None).reset()
    jvm.java.lang.System.gc()


def run_ours(
    spark: SparkSession,
    source: Source,
    folder: Path | str,
    writer: str = "direct",
    with_dlq: bool = True,
    with_metrics: bool = True,
) -> int:
    """Run the product; return the number of records in the tables, each position once."""
    paths = {name: f"{folder}/{name}" for name in ("checkpoint_path", "output_path", *["dlq_path"] * with_dlq)}
    config = IngestConfig(
        kafka_brokers=source.brokers,
        kafka_topic=source.topic,
        max_offsets_per_trigger=source.limit,
        available_now=True,
        with_metrics=with_metrics,
        writer=writer,
        **paths,
    )
    ingest(config, spark)
    tables = [spark.read.format("delta").load(paths[name]) for name in paths if name != "checkpoint_path"]
    positions = reduce(DataFrame.unionAll, [table.select("_kafka_partition", "_kafka_offset") for table in tables])
    assert positions.count() == positions.distinct().count()
    return positions.count()


def run_unhashed(spark: SparkSession, source: Source, folder: Path | str) -> int:
    """Run the product with a constant as the hash of each record."""

    def select(batch: DataFrame) -> DataFrame:
        return select_records(batch).withColumn(RECORD_COLUMNS[-1], F.lit(0).cast("long"))

    with patch.object(bronze.batch, "select_records", select):
        return run_ours(spark, source, folder)


def read_topic(spark: SparkSession, source: Source) -> DataFrame:
    """The topic as a stream, with the default settings of Spark's source."""
    options = {"kafka.bootstrap.servers": source.brokers, "subscribe": source.topic, "startingOffsets": "earliest"}
    return spark.readStream.format("kafka").options(**options, maxOffsetsPerTrigger=source.limit).load()


def parse_events(records: DataFrame) -> DataFrame:
    """Parse with from_json, and add the partition columns."""
    text, time_of_event = F.col("value").cast("string"), F.try_to_timestamp("event_timestamp")
    parsed = records.select(F.from_json(text, get_event_schema()).alias("event"), text.alias("_raw_value"))
    return parsed.select("event.*", "_raw_value").withColumns(
        {"_event_date": F.to_date(time_of_event), "_event_hour": F.hour(time_of_event)}
    )


def run_plain(spark: SparkSession, source: Source, folder: Path | str) -> int:
    """Run from_json and a partitioned append."""
    rows = read_topic(spark, source).transform(parse_events)
    return _append(spark, rows.writeStream.partitionBy("_event_date", "_event_hour"), folder)


def run_raw_copy(spark: SparkSession, source: Source, folder: Path | str) -> int:
    """Append only the values, unparsed, to a table without partitions."""
    return _append(spark, read_topic(spark, source).select("value").writeStream, folder)


def _append(spark: SparkSession, writer: DataStreamWriter, folder: Path | str) -> int:
    writer = writer.format("delta").trigger(availableNow=True).option("checkpointLocation", f"{folder}/ck")
    writer.start(f"{folder}/table").awaitTermination()
    return spark.read.format("delta").load(f"{folder}/table").count()


def run_usual(spark: SparkSession, source: Source, folder: Path | str) -> int:
    """Run from_json with counts and a DLQ for records without a required field."""
    is_valid = F.col("event_id").isNotNull() & F.col("tenant_id").isNotNull() & F.col("_event_date").isNotNull()

    def append(batch: DataFrame, batch_id: int) -> None:
        rows = batch.transform(parse_events).persist()
        valid, invalid = rows.where(is_valid), rows.where(~is_valid)
        rows.groupBy(is_valid.alias("is_valid")).count().collect()
        invalid.select("_raw_value").write.format("delta").mode("append").save(f"{folder}/dlq")
        writer = valid.write.format("delta").mode("append").partitionBy("_event_date", "_event_hour")
        writer.save(f"{folder}/bronze")
        rows.unpersist()

    writer = read_topic(spark, source).writeStream.foreachBatch(append).trigger(availableNow=True)
    writer.option("checkpointLocation", f"{folder}/ck").start().awaitTermination()
    return sum(spark.read.format("delta").load(f"{folder}/{name}").count() for name in ("bronze", "dlq"))
