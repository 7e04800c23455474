"""Seconds per batch of the ways to ingest into S3, and of the direct writer on a local disk.

    python benchmarks/s3.py [--quick]        make bench-s3

The S3 server runs on the same machine, and its CPU time is measured apart. All ways run in one process and one Spark
session on two cores, in turn, for some rounds; every second round runs them in reverse order. It adds its figures to
results.json, or with --quick to build/bench.
"""

import argparse
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import psutil
from report import Row, print_table, write_section
from sizes import read_sizes
from ways import BatchTimes, Run, Source, drop_consumers, run_ours, run_plain, start_session

from sandbox.kafka import KafkaSandbox
from sandbox.produce import produce
from sandbox.s3 import S3Sandbox

WAYS: dict[str, Run] = {
    "direct": run_ours,
    "delta-spark": partial(run_ours, writer="delta-spark"),
    "plain from_json": run_plain,
}
RATIOS = {
    "in S3, direct / plain": ("S3, direct", "S3, plain from_json"),
    "in S3, direct / delta-spark": ("S3, direct", "S3, delta-spark"),
    "direct, S3 / local": ("S3, direct", "local, direct"),
}


@dataclass(frozen=True)
class S3Sizes:
    """Numbers of records and repetitions."""

    rounds: int = 2
    records: int = 100_000  # per batch
    batches: int = 3  # per run, the warm-up included


QUICK = S3Sizes(1, 2_000, 2)


def read_cpu(pid: int | None) -> float:
    """CPU seconds of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def measure_ways(kafka: KafkaSandbox, s3: S3Sandbox, folder: Path, sizes: S3Sizes) -> dict[str, list[float]]:
    """Run the ways in turn; return the seconds of each batch but the first, by place and way."""
    spark, times, samples = start_session(stores=["s3"]), BatchTimes(), defaultdict(list)
    spark.streams.addListener(times)
    runs = [("S3", name) for name in WAYS] + [("local", "direct")]
    source, count = Source(kafka.brokers, "events", sizes.records), sizes.records * sizes.batches
    for number in range(sizes.rounds + 1):
        for place, name in runs[:: 1 if number % 2 else -1]:
            target = f"s3a://bronze/{number}-{name.replace(' ', '-')}" if place == "S3" else folder / "tables"
            used = read_cpu(s3.pid)
            run: Callable[[], int] = partial(WAYS[name], spark, source, target)
            found, seconds = times.measure(run, sizes.records)
            assert found == count, f"{place} {name}: {found:,} of {count:,} records"
            print(f"round {number} {place}, {name}: batches {[round(s, 2) for s in seconds]}", flush=True)
            if number:  # round 0 is a warm-up
                samples[f"{place}, {name}"] += seconds[1:]
                samples[f"{place}, {name}, CPU of the S3 server per batch"].append(
                    (read_cpu(s3.pid) - used) / sizes.batches
                )
            drop_consumers(spark)
            shutil.rmtree(folder / "tables", ignore_errors=True)
    spark.stop()
    return samples


def main() -> None:
    sizes, folder, _ = read_sizes(argparse.ArgumentParser(description=__doc__), S3Sizes(), QUICK)
    with (
        tempfile.TemporaryDirectory() as scratch,
        KafkaSandbox(Path(scratch, "kafka"), port=0) as kafka,
        S3Sandbox(Path(scratch, "s3"), port=0) as s3,
    ):
        os.environ.update(s3.environment)
        produce(kafka.brokers, "events", sizes.records * sizes.batches, seed=0)
        samples = measure_ways(kafka, s3, Path(scratch), sizes)
    rows = {
        figure: Row(figure, "s", values) for figure, values in samples.items() if "local, direct, CPU" not in figure
    }
    derived = [
        {"name": name, "value": rows[one].median / rows[other].median, "unit": "ratio"}
        for name, (one, other) in RATIOS.items()
    ]
    write_section(folder / "results.json", "s3", asdict(sizes), list(rows.values()), derived)
    print_table(list(rows.values()), derived)


if __name__ == "__main__":
    main()
