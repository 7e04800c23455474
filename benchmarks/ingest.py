"""Seconds per batch of both writers, compared in one run with a plain from_json and append of the same records.

    python benchmarks/ingest.py [--batches 3] [--records 100000] [--rounds 2]

Each method reads the same topic of sample events (1 % invalid) from a local broker, batch by batch; the last one reads
the same number of invalid records. The first batch of each run is a warm-up and is not counted. The plain method parses
with from_json and appends to a partitioned Delta table; it checks nothing, has no DLQ, and stores no Kafka positions,
only the raw value. The usual method adds counts and a DLQ for records without a required field; it persists the parsed
rows so that it parses them only once.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming import StreamingQueryListener
from ratios import print_ratios

from bronze import ingest as run
from bronze.config import IngestConfig
from bronze.runtime.session import get_session
from bronze.schema import get_event_schema
from sandbox.kafka import KafkaSandbox
from sandbox.produce import produce

TOPIC, INVALID_TOPIC = "benchmark", "benchmark-invalid"


class BatchTimes(StreamingQueryListener):
    """Collects the duration of each batch as Spark reports it, including planning and the offset log."""

    def __init__(self, records: int):
        self.seconds: list[float] = []
        self.records = records

    def onQueryStarted(self, event):  # noqa: N802
        pass

    def onQueryProgress(self, event):  # noqa: N802
        # Partitions of unequal size leave a small last batch, which is not representative.
        if event.progress.numInputRows >= self.records / 2:
            self.seconds.append(event.progress.durationMs["triggerExecution"] / 1000)

    def onQueryIdle(self, event):  # noqa: N802
        pass

    def onQueryTerminated(self, event):  # noqa: N802
        pass


def run_ours(
    spark: SparkSession, brokers: str, folder: Path, limit: int, writer: str = "direct", topic: str = TOPIC
) -> int:
    """Run the product with DLQ and metrics; return the number of records in the tables, each position once."""
    paths = {name: str(folder / name) for name in ("checkpoint_path", "output_path", "dlq_path")}
    config = IngestConfig(
        kafka_brokers=brokers,
        kafka_topic=topic,
        max_offsets_per_trigger=limit,
        available_now=True,
        with_metrics=True,
        writer=writer,
        **paths,
    )
    run(config, spark)
    tables = [spark.read.format("delta").load(paths[name]) for name in ("output_path", "dlq_path")]
    positions = [table.select("_kafka_partition", "_kafka_offset") for table in tables]
    both = positions[0].unionAll(positions[1])
    assert both.count() == both.distinct().count()
    return both.count()


def read_topic(spark: SparkSession, brokers: str, limit: int) -> DataFrame:
    """The topic as a stream."""
    options = {"kafka.bootstrap.servers": brokers, "subscribe": TOPIC, "startingOffsets": "earliest"}
    return spark.readStream.format("kafka").options(**options, maxOffsetsPerTrigger=limit).load()


def parse_events(records: DataFrame) -> DataFrame:
    """Parse with from_json, and add the partition columns."""
    text, time_of_event = F.col("value").cast("string"), F.try_to_timestamp("event_timestamp")
    parsed = records.select(F.from_json(text, get_event_schema()).alias("event"), text.alias("_raw_value"))
    return parsed.select("event.*", "_raw_value").withColumns(
        {"_event_date": F.to_date(time_of_event), "_event_hour": F.hour(time_of_event)}
    )


def run_plain(spark: SparkSession, brokers: str, folder: Path, limit: int) -> int:
    """Run from_json and a partitioned append; return the number of rows."""
    rows = read_topic(spark, brokers, limit).transform(parse_events)
    writer = rows.writeStream.format("delta").partitionBy("_event_date", "_event_hour").trigger(availableNow=True)
    writer.option("checkpointLocation", str(folder / "ck")).start(str(folder / "plain")).awaitTermination()
    return spark.read.format("delta").load(str(folder / "plain")).count()


def run_usual(spark: SparkSession, brokers: str, folder: Path, limit: int) -> int:
    """Run from_json with counts and a DLQ for records without a required field; return the number of rows."""
    is_valid = F.col("event_id").isNotNull() & F.col("tenant_id").isNotNull() & F.col("_event_date").isNotNull()

    def append(batch: DataFrame, batch_id: int) -> None:
        rows = batch.transform(parse_events).persist()
        valid, invalid = rows.where(is_valid), rows.where(~is_valid)
        print(f"batch {batch_id}: {rows.groupBy(is_valid.alias('is_valid')).count().collect()}")
        invalid.select("_raw_value").write.format("delta").mode("append").save(str(folder / "dlq"))
        writer = valid.write.format("delta").mode("append").partitionBy("_event_date", "_event_hour")
        writer.save(str(folder / "bronze"))
        rows.unpersist()

    writer = read_topic(spark, brokers, limit).writeStream.foreachBatch(append).trigger(availableNow=True)
    writer.option("checkpointLocation", str(folder / "ck")).start().awaitTermination()
    return sum(spark.read.format("delta").load(str(folder / name)).count() for name in ("bronze", "dlq"))


WAYS: dict[str, Callable[[SparkSession, str, Path, int], int]] = {
    "direct": run_ours,
    "delta-spark": partial(run_ours, writer="delta-spark"),
    "plain from_json": run_plain,
    "from_json with DLQ": run_usual,
    "direct, all invalid": partial(run_ours, topic=INVALID_TOPIC),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--records", type=int, default=100_000, help="per batch")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    times, listener, spark = defaultdict(list), BatchTimes(given.records), get_session("benchmark")
    spark.streams.addListener(listener)
    with tempfile.TemporaryDirectory() as folder, KafkaSandbox(Path(folder, "kafka"), port=0) as kafka:
        for topic, invalid_ratio in ((TOPIC, 0.01), (INVALID_TOPIC, 1.0)):
            print(produce(kafka.brokers, topic, given.batches * given.records, invalid_ratio))
        for number in range(given.rounds):
            for name, way in WAYS.items():
                listener.seconds.clear()
                target = Path(folder, f"{number}-{name.replace(' ', '-')}")
                rows = way(spark, kafka.brokers, target, given.records)
                time.sleep(1)  # the listener gets the event a moment later
                times[name] += listener.seconds[1:]
                print(f"round {number} {name}: {rows:,} rows, batches {[round(s, 1) for s in listener.seconds]}")
        spark.stop()
    print_ratios(times, "plain from_json")


if __name__ == "__main__":
    main()
