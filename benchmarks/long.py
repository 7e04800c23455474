"""Figures that need a long run: latency at a steady load, the age of a run, the size of a backlog, and an audit.

    python benchmarks/long.py [--quick] [--minutes 20]        make bench-long

Each figure is measured by its own processes, one after the other. README.md describes them. It adds its figures to
results.json, or with --quick to build/bench: tiny sizes show that everything works, and their figures mean nothing.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow.parquet as pq
from audit import measure_audit
from confluent_kafka import Producer
from report import Row, print_table, write_section
from sizes import read_sizes
from ways import BatchTimes, Source, run_ours, start_session

from sandbox.events import WINDOW, generate_events
from sandbox.kafka import KafkaSandbox
from sandbox.produce import PRODUCER_CONFIG, produce
from sandbox.topics import create_topic

HERE = Path(__file__).parent
TOPIC = "events"
PARTITIONS = 8
_SENT_AT_ONCE = 50  # records between two looks at the clock
# The heap takes its memory at the start, so that what grows with the run is seen.
FULL_HEAP = "-Xms2g -XX:+AlwaysPreTouch"
Figures = Iterator[tuple[str, str, list[float]]]


@dataclass(frozen=True)
class LongSizes:
    """The sizes of the measurements; each is an option of the command."""

    rate: int = 5_000  # records per second
    minutes: float = 20.0
    batches: int = 1_040  # of small_records
    small_records: int = 1_000
    backlog_batches: int = 10  # of the smaller backlog; the larger one has ten times as many
    backlog_records: int = 20_000  # per batch
    offsets: int = 100_000_000  # to audit


QUICK = LongSizes(500, 0.75, 60, 100, 3, 500, 100_000)


def start_ingestion(brokers: str, folder: Path, *options: str, java: str = "") -> subprocess.Popen[bytes]:
    """Start ``bronze ingest`` on TOPIC, with its log in the folder."""
    paths = [f"--{name}-path={folder / name}" for name in ("checkpoint", "output", "dlq")]
    command = [sys.executable, "-m", "bronze", "ingest", "--kafka-brokers", brokers, "--kafka-topic", TOPIC]
    folder.mkdir()
    environment = {**os.environ, "SPARK_SUBMIT_OPTS": java}
    with (folder / "log").open("w") as log:
        return subprocess.Popen([*command, *paths, *options], stderr=log, stdout=log, env=environment)


def list_commits(table: Path) -> Iterator[tuple[float, list[Path]]]:
    """Time and files of each commit that appended rows, in order."""
    for commit in sorted((table / "_delta_log").glob("*.json")):
        actions = [json.loads(line) for line in commit.read_text().splitlines()]
        if files := [table / unquote(each["add"]["path"]) for each in actions if "add" in each]:
            yield commit.stat().st_mtime, files


def read_latencies(table: Path, skipped: float) -> npt.NDArray[np.float64]:
    """Seconds from each record's Kafka timestamp to the commit of its row, without the first seconds of the run."""
    found, start = [], None
    for seen, files in list_commits(table):
        for file in files:
            stamps = pq.ParquetFile(file).read(["_kafka_timestamp"])["_kafka_timestamp"].to_numpy()
            seconds = stamps.astype("datetime64[us]").astype(np.int64) / 1e6
            start = seconds.min() if start is None else start
            found.append(seen - seconds[seconds > start + skipped])
    return np.concatenate(found)


def send_steadily(brokers: str, rate: int, seconds: float) -> None:
    """Send the same sample events again and again, so that generating them takes no time of the cores."""
    events = list(generate_events(min(rate, 20_000), 0, datetime.now(UTC) - WINDOW))
    producer = Producer(PRODUCER_CONFIG | {"bootstrap.servers": brokers})
    begun = time.monotonic()
    for number, event in zip(range(int(rate * seconds)), cycle(events), strict=False):
        if number % _SENT_AT_ONCE == 0:
            producer.poll(0)
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
        producer.produce(TOPIC, event.value, event.key)
    assert producer.flush(60) == 0


def measure_latency(sizes: LongSizes) -> Figures:
    """Latency of a stream with a trigger every second, under a steady load; the broker stamps the records."""
    seconds = sizes.minutes * 60
    with tempfile.TemporaryDirectory() as name, KafkaSandbox(Path(name, "kafka"), port=0) as kafka:
        create_topic(kafka.brokers, TOPIC, PARTITIONS, {"message.timestamp.type": "LogAppendTime"})
        ingestion = start_ingestion(kafka.brokers, Path(name, "tables"), "--trigger-interval", "1 second")
        started, used = time.monotonic(), time.process_time()
        send_steadily(kafka.brokers, sizes.rate, seconds)
        share = (time.process_time() - used) / (time.monotonic() - started) / (os.cpu_count() or 1)
        actual = seconds * sizes.rate / (time.monotonic() - started)
        time.sleep(10)
        ingestion.send_signal(signal.SIGTERM)
        assert ingestion.wait(60) == 0, Path(name, "tables/log").read_text()
        latencies = read_latencies(Path(name, "tables/output"), seconds / 20)
    yield "records produced per second", "1/s", [actual]
    yield "share of the cores that the generator used", "ratio", [share]
    yield "records with a latency", "records", [len(latencies)]
    for percent in (50, 99, 100):
        yield f"latency, {percent} %", "s", [float(np.percentile(latencies, percent))]


def measure_age(sizes: LongSizes) -> Figures:
    """Seconds of the early and the late batches of one run; all batches have the same size."""
    early, late = slice(5, 25), slice(sizes.batches - 40, None)
    with tempfile.TemporaryDirectory() as name, KafkaSandbox(Path(name, "kafka"), port=0) as kafka:
        count = sizes.batches * sizes.small_records
        produce(kafka.brokers, TOPIC, count, partitions=PARTITIONS, seed=0)
        spark, times = start_session(), BatchTimes()
        spark.streams.addListener(times)
        run = partial(run_ours, spark, Source(kafka.brokers, TOPIC, sizes.small_records), Path(name, "tables"))
        found, seconds = times.measure(run, sizes.small_records)
        assert found == count
        spark.stop()
    yield "batches 5 to 25 of a run", "s", seconds[early]
    yield f"batches around {sizes.batches - 40:,} of a run", "s", seconds[late]
    yield "late / early batches", "ratio", [median(seconds[late]) / median(seconds[early])]


class MemoryWatch(threading.Thread):
    """Samples the resident memory of a process and its children until the process ends."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.peak = 0.0  # MiB
        self._process = psutil.Process(pid)

    def run(self) -> None:
        with suppress(psutil.NoSuchProcess):  # the process has ended
            while self._process.status() != psutil.STATUS_ZOMBIE:
                tree = [self._process, *self._process.children(recursive=True)]
                self.peak = max(self.peak, sum(map(self._read, tree)))
                time.sleep(0.25)

    def _read(self, process: psutil.Process) -> float:
        try:
            return float(process.memory_info().rss / 2**20)
        except psutil.NoSuchProcess:
            return 0


def ingest_backlog(batches: int, records: int) -> tuple[float, float]:
    """Ingest a backlog; return the seconds per batch between the first and the last commit, and the peak memory."""
    with tempfile.TemporaryDirectory() as name, KafkaSandbox(Path(name, "kafka"), port=0) as kafka:
        produce(kafka.brokers, TOPIC, batches * records, partitions=PARTITIONS, seed=0)
        options = ("--available-now", "--max-offsets-per-trigger", str(records))
        ingestion = start_ingestion(kafka.brokers, Path(name, "tables"), *options, java=FULL_HEAP)
        watch = MemoryWatch(ingestion.pid)
        watch.start()
        assert ingestion.wait() == 0, Path(name, "tables/log").read_text()
        watch.join()
        commits = [seen for seen, _ in list_commits(Path(name, "tables/output"))]
    return (commits[-1] - commits[0]) / (len(commits) - 1), watch.peak


def measure_backlog(sizes: LongSizes) -> Figures:
    """Time and memory of a backlog, and of one that is ten times as large."""
    small = ingest_backlog(sizes.backlog_batches, sizes.backlog_records)
    large = ingest_backlog(10 * sizes.backlog_batches, sizes.backlog_records)
    for name, (seconds, peak) in {"a backlog": small, "ten times the backlog": large}.items():
        yield f"{name}, time of a batch", "s", [seconds]
        yield f"{name}, peak memory", "MiB", [peak]
    yield "ten times the backlog / a backlog, time of a batch", "ratio", [large[0] / small[0]]
    yield "ten times the backlog / a backlog, peak memory", "ratio", [large[1] / small[1]]


def run_alone(measure: Callable[[LongSizes], Figures], sizes: LongSizes) -> list[tuple[str, str, list[float]]]:
    """Run a measurement in a process of its own, with its own JVM."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(collect, measure, sizes).result()


def collect(measure: Callable[[LongSizes], Figures], sizes: LongSizes) -> list[tuple[str, str, list[float]]]:
    return list(measure(sizes))


def audit_offsets(sizes: LongSizes) -> Figures:
    """Seconds and memory of an audit."""
    yield from measure_audit(sizes.offsets, 64)


MEASUREMENTS = {
    "latency": measure_latency,
    "age": measure_age,
    "backlog": measure_backlog,
    "audit": audit_offsets,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    sizes, folder, options = read_sizes(parser, LongSizes(), QUICK)
    rows, results = [], folder / "results.json"
    for name in options.only:
        print(f"{name}: {(MEASUREMENTS[name].__doc__ or '').splitlines()[0]}", flush=True)
        found = [Row(*figure) for figure in run_alone(MEASUREMENTS[name], sizes)]
        write_section(results, name, asdict(sizes), found)
        rows += found
    print_table(rows)
    print(f"\n{results}")


if __name__ == "__main__":
    main()
