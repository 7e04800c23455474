"""Seconds and memory of an audit, and the cost of the overlap guard on a batch that does not overlap.

    python benchmarks/audit.py [--offsets 10000000] [--partitions 64]

The table holds that many positions of a topic, written by Spark with the product's DDL and without the events, which
the audit does not read. The topic itself is empty; because the table has no gaps, the audit reads nothing from Kafka.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from bronze import audit as run
from bronze.config import AuditConfig
from bronze.delta.ddl import create_table_statement
from bronze.delta.positions import find_ingested
from bronze.offsets import MAX_OFFSET
from bronze.runtime.session import get_session
from bronze.schema import get_bronze_schema, get_bronze_spec
from sandbox.kafka import KafkaSandbox

TOPIC = "benchmark"


def fill_table(spark: SparkSession, path: str, offsets: int, partitions: int) -> None:
    """Write positions in the order of ingestion: each file has a span of offsets of all partitions."""
    spark.sql(create_table_statement(get_bronze_spec(), path))
    number = F.col("id")
    columns = {
        "_kafka_topic": F.lit(TOPIC),
        "_kafka_partition": (number % partitions).cast("int"),
        "_kafka_offset": F.floor(number / partitions).cast("long"),
        "_ingested_at": F.current_timestamp(),
        "_event_date": F.lit("2026-01-31").cast("date"),
        "_event_hour": F.lit(7),
    }
    nothing = {f.name: F.lit(None).cast(f.dataType) for f in get_bronze_schema() if f.name not in columns}
    rows = spark.range(0, offsets, 1, max(4, offsets // 500_000)).withColumns({**columns, **nothing})
    rows.select(get_bronze_schema().fieldNames()).write.format("delta").mode("append").save(path)


def measure(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def measure_memory(spark: SparkSession) -> tuple[float, float]:
    """Peak resident memory of the driver's Python and of the JVM, in MiB."""
    jvm_pid = spark._jvm.java.lang.ProcessHandle.current().pid()
    status = Path(f"/proc/{jvm_pid}/status").read_text()
    (peak,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, int(peak) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--offsets", type=int, default=10_000_000)
    parser.add_argument("--partitions", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, KafkaSandbox(Path(folder, "kafka"), port=0) as kafka:
        kafka.create_topic(TOPIC, given.partitions)
        spark, path = get_session(), f"{folder}/bronze"
        fill_table(spark, path, given.offsets, given.partitions)
        config = AuditConfig(kafka_brokers=kafka.brokers, kafka_topic=TOPIC, output_path=path)
        assert run(config, spark).is_complete
        print(f"audit of {given.offsets:,} offsets: {measure(lambda: run(config, spark)):.1f} s")
        print("peak memory: Python {:.0f} MiB, JVM {:.0f} MiB".format(*measure_memory(spark)))
        end = given.offsets // given.partitions
        fresh = dict.fromkeys(range(given.partitions), (end, MAX_OFFSET))
        print(f"guard, look-up after a restart: {measure(lambda: find_ingested(spark, [path], TOPIC, fresh)):.2f} s")
        old = dict.fromkeys(range(given.partitions), (end - 5000, MAX_OFFSET))
        print(f"guard, look-up of an overlap: {measure(lambda: find_ingested(spark, [path], TOPIC, old)):.2f} s")
        everything = find_ingested(spark, [path], TOPIC, dict.fromkeys(range(given.partitions), (0, MAX_OFFSET)))
        planned = dict.fromkeys(range(given.partitions), (end, end + 5000))
        repeats = 1_000
        seconds = measure(lambda: [everything.clip(planned) for _ in range(repeats)])
        print(f"guard, a batch that does not overlap: {seconds / repeats * 1e6:.0f} µs")


if __name__ == "__main__":
    main()
