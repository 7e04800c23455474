"""Seconds, bytes and memory of the ingestion, compared in one run with other ways to ingest the same records.

    python benchmarks/ingest.py [--quick] [--rounds 2]        make bench

All ways run in one process and one Spark session on two cores, in turn, for some rounds; every second round runs them
in reverse order. A run of a way is one stream that reads a whole topic of sample events in batches. Round 0, which
reads a small topic, and the first batches of each run are a warm-up and are not counted. README.md describes the ways.

It writes results.json and results.png next to this file, or with --quick to build/bench: tiny sizes show that
everything works, and their figures mean nothing.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from memory import START
from report import Row, derive, draw_plot, print_table, write_section
from sizes import read_sizes
from ways import (
    CORES,
    BatchTimes,
    Run,
    Source,
    drop_consumers,
    run_ours,
    run_plain,
    run_raw_copy,
    run_unhashed,
    run_usual,
    start_session,
)

from sandbox.kafka import KafkaSandbox
from sandbox.produce import produce

HERE = Path(__file__).parent
CLASSES = HERE.parent / ".venv/spark-classes.jsa"  # make keeps the classes that Spark loads at each start


@dataclass(frozen=True)
class Sizes:
    """Numbers of records and repetitions; each is an option of the command."""

    rounds: int = 2
    records: int = 100_000  # per batch
    batches: int = 3  # per run, the warm-up included
    small_records: int = 1_000
    small_batches: int = 16
    tiny_records: int = 12
    tiny_batches: int = 35
    memory_records: int = 140_000
    cold_records: int = 10_000


QUICK = Sizes(1, 2_000, 2, 100, 3, 12, 8, 2_000, 500)


@dataclass(frozen=True)
class Topic:
    """A topic to produce; topics of the same size have the same records."""

    name: str
    limit: int
    batches: int
    invalid_ratio: float = 0.01
    partitions: int = 8

    @property
    def records(self) -> int:
        return self.limit * self.batches


@dataclass(frozen=True)
class Way:
    """A way, the topic that it reads, and the number of batches at the start of each run that are not counted."""

    name: str
    run: Run
    topic: Topic
    warm_up: int = 1


def list_ways(sizes: Sizes) -> tuple[list[Way], list[Way]]:
    """The ways that read large batches, and those that read small ones."""
    usual = Topic("usual", sizes.records, sizes.batches)
    large = [
        Way("direct", run_ours, usual),
        Way("delta-spark", partial(run_ours, writer="delta-spark"), usual),
        Way("plain from_json", run_plain, usual),
        Way("from_json with DLQ", run_usual, usual),
        Way("raw copy", run_raw_copy, usual),
        Way("direct, all invalid", run_ours, replace(usual, name="invalid", invalid_ratio=1.0)),
        Way("direct, 64 partitions", run_ours, replace(usual, name="wide", partitions=64)),
        Way("direct, no DLQ", partial(run_ours, with_dlq=False), usual),
        Way("direct, no metrics", partial(run_ours, with_metrics=False), usual),
        Way("direct, no row hash", run_unhashed, usual),
    ]
    small = Topic("small", sizes.small_records, sizes.small_batches)
    tiny = Topic("tiny", sizes.tiny_records, sizes.tiny_batches)
    return large, [
        Way("direct, small batches", run_ours, small),
        Way("plain, small batches", run_plain, small),
        Way("direct, tiny batches", run_ours, tiny, warm_up=5),
    ]


def fill_topics(brokers: str, topics: set[Topic]) -> None:
    for topic in sorted(topics, key=lambda topic: topic.name):
        ratio, partitions = topic.invalid_ratio, topic.partitions
        print(produce(brokers, topic.name, topic.records, ratio, partitions=partitions, seed=0, start_time=START))


def measure_bytes(folder: Path, records: int) -> float:
    """Bytes per record of the Parquet files in a folder, without the checkpoints of the Delta logs."""
    files = [file for file in folder.rglob("*.parquet") if "_delta_log" not in file.parts]
    return sum(file.stat().st_size for file in files) / records


def run_process(*command: str, java: str = "") -> str:
    """Run Python with a command and options of its JVM; return its output."""
    environment = {**os.environ, "SPARK_SUBMIT_OPTS": java}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measure_cold_start(brokers: str, topic: Topic, folder: Path, java: str = "") -> float:
    """Seconds from the start of a process that ingests a topic to its first commit of records in bronze."""
    paths = {f"--{name}-path": str(folder / name) for name in ("checkpoint", "output", "dlq")}
    options = {"--kafka-brokers": brokers, "--kafka-topic": topic.name, **paths}
    started = time.time()
    command = ("-m", "bronze", "ingest", "--available-now", *(text for pair in options.items() for text in pair))
    run_process(*command, java=java)
    commits = sorted((folder / "output/_delta_log").glob("*.json"))
    first = next(commit for commit in commits if '{"add":' in commit.read_text())
    return first.stat().st_mtime - started


def measure_ways(
    ways: list[Way], first: Topic, brokers: str, folder: Path, rounds: int, cores: int = CORES
) -> Iterator[tuple[str, str, list[float]]]:
    """Run the ways in turn; yield figure, unit and samples of each run. In round 0, each way reads the first topic."""
    spark, times, tables = start_session(cores), BatchTimes(), folder / "tables"
    spark.streams.addListener(times)
    for number in range(rounds + 1):
        for way in ways[:: 1 if number % 2 else -1]:
            topic = way.topic if number else first
            source = Source(brokers, topic.name, topic.limit)
            count, seconds = times.measure(partial(way.run, spark, source, tables), topic.limit)
            assert count == topic.records, f"{way.name}: {count:,} of {topic.records:,} records"
            print(f"round {number} {way.name}: {count:,} records, batches {[round(s, 2) for s in seconds]}", flush=True)
            if number:
                yield way.name, "s", seconds[way.warm_up :]
            if number and way.name in ("direct", "plain from_json"):
                yield f"bytes on disk, {way.name.split()[0]}", "bytes per record", [measure_bytes(tables, count)]
            drop_consumers(spark)
            shutil.rmtree(tables)
    spark.stop()


def measure_processes(brokers: str, topic: Topic, folder: Path, sizes: Sizes) -> Iterator[tuple[str, str, list[float]]]:
    """Figures of separate processes, which run alone."""
    for number in range(sizes.rounds + 1):
        yield "cold start", "s", [measure_cold_start(brokers, topic, folder / f"cold-{number}")]
        if CLASSES.exists():
            seconds = measure_cold_start(brokers, topic, folder / f"kept-{number}", f"-XX:SharedArchiveFile={CLASSES}")
            yield "cold start, kept classes", "s", [seconds]
        memory = run_process(str(HERE / "memory.py"), str(sizes.memory_records))
        yield "peak memory of a task", "MiB", [float(memory)]
    for line in run_process(str(HERE / "features.py"), str(sizes.records // 2)).splitlines():
        name, microseconds = json.loads(line)
        yield f"task, {name}", "µs per record", microseconds


def main() -> None:
    sizes, results, _ = read_sizes(argparse.ArgumentParser(description=__doc__), Sizes(), QUICK)
    started, samples, units = time.monotonic(), defaultdict(list), {}
    large, small = list_ways(sizes)
    usual = large[0].topic
    cold = Topic("cold", sizes.cold_records, 1)
    with tempfile.TemporaryDirectory() as name, KafkaSandbox(Path(name, "kafka"), port=0) as kafka:
        fill_topics(kafka.brokers, {cold, *(way.topic for way in [*large, *small])})
        for measured in (
            measure_processes(kafka.brokers, cold, Path(name), sizes),
            measure_ways([*large, *small], cold, kafka.brokers, Path(name), sizes.rounds),
            measure_ways([Way("direct, one core", run_ours, usual)], cold, kafka.brokers, Path(name), sizes.rounds, 1),
        ):
            for figure, unit, values in measured:
                samples[figure] += values
                units[figure] = unit
    rows = {figure: Row(figure, units[figure], values) for figure, values in samples.items()}
    derived = derive(rows, sizes.records, sizes.tiny_records)
    write_section(results / "results.json", "ingest", asdict(sizes), list(rows.values()), derived)
    large_rows, small_rows = ([rows[way.name] for way in ways] for ways in (large, small))
    xlabel = f"seconds per batch of {sizes.small_records:,} records (small) or {sizes.tiny_records:,} (tiny)"
    draw_plot(large_rows, small_rows, sizes.records, xlabel, results / "results.png")
    print_table(list(rows.values()), derived)
    print(f"\n{results}/results.json and results.png, after {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
