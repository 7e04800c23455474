"""Seconds and memory of an audit, and the cost of the overlap guard on a batch that does not overlap.

    python benchmarks/audit.py [--offsets 10000000] [--partitions 64]

The table holds that many positions of a topic, written by Spark with the product's DDL and without the events, which
the audit does not read. The topic itself is empty; because the table has no gaps, the audit reads nothing from Kafka.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
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
from sandbox.topics import create_topic

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


def measure_audit(offsets: int, partitions: int) -> Iterator[tuple[str, str, list[float]]]:
    """Fill a table, audit it and look up positions in it; yield figure, unit and samples."""
    with tempfile.TemporaryDirectory() as folder, KafkaSandbox(Path(folder, "kafka"), port=0) as kafka:
        create_topic(kafka.brokers, TOPIC, partitions)
        spark, path = get_session(), f"{folder}/bronze"
        fill_table(spark, path, offsets, partitions)
        config = AuditConfig(kafka_brokers=kafka.brokers, kafka_topic=TOPIC, output_path=path)
        assert run(config, spark).is_complete
        yield f"audit of {offsets:,} offsets", "s", [measure(lambda: run(config, spark))]
        for process, peak in zip(("Python", "JVM"), measure_memory(spark), strict=True):
            yield f"audit, peak memory of {process}", "MiB", [peak]
        end = offsets // partitions
        fresh = dict.fromkeys(range(partitions), (end, MAX_OFFSET))
        yield "guard, look-up after a restart", "s", [measure(lambda: find_ingested(spark, [path], TOPIC, fresh))]
        old = dict.fromkeys(range(partitions), (end - 5000, MAX_OFFSET))
        yield "guard, look-up of an overlap", "s", [measure(lambda: find_ingested(spark, [path], TOPIC, old))]
        everything = find_ingested(spark, [path], TOPIC, dict.fromkeys(range(partitions), (0, MAX_OFFSET)))
        planned = dict.fromkeys(range(partitions), (end, end + 5000))
        repeats = 1_000
        seconds = measure(lambda: [everything.clip(planned) for _ in range(repeats)])
        yield "guard, a batch that does not overlap", "s", [seconds / repeats]
        spark.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--offsets", type=int, default=10_000_000)
    parser.add_argument("--partitions", type=int, default=64)
    given = parser.parse_args()
    for name, unit, (value,) in measure_audit(given.offsets, given.partitions):
        print(f"{name}: {value:.3g} {unit}")


if __name__ == "__main__":
    main()
