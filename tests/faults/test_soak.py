"""Endurance (``make test-soak``): minutes of load with restarts, memory that stays flat, many kills, a million records.

SOAK_MINUTES, SOAK_RATE (records per second) and KILLS set the load; SEED repeats the random moments.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import psutil
import pytest
from pyspark.sql import SparkSession

from bronze.config import IngestConfig
from bronze.delta.ddl import create_table_statement
from bronze.schema import get_bronze_spec
from sandbox.topics import create_topic
from tests.support.audit import assert_complete
from tests.support.delta_log import check_commits_in_turn
from tests.support.events import BAD, make_events
from tests.support.ingestion import Ingestion
from tests.support.kafka_proxy import run_behind_proxy
from tests.support.kills import KILLS, LONG, SEED, assert_survives_kills, wait_for_batches
from tests.support.lake import Lake
from tests.support.load import RATE, SECONDS, produce, run_until
from tests.support.topic import Topic

pytestmark = pytest.mark.soak

SAMPLE_SECONDS = 3
# A JVM takes memory up to its heap limit in steps, and Python's allocator keeps the memory that one large batch needed.
# Both level off in the first quarter. A leak does not: if it adds three quarters of the healthy size during the whole
# run, the median of the last quarter exceeds that of the second by this factor.
MAX_GROWTH = 1.3


def restart_until(
    end: float, config: IngestConfig, start: Callable[..., Ingestion], chance: random.Random
) -> Counter[str]:
    """One run after another, each ended after some batches: half of them by a stop request, half by kill -9."""
    ends: Counter[str] = Counter()
    while time.monotonic() < end:
        ingestion = start(config)
        wait_for_batches(ingestion, 1)
        time.sleep(chance.uniform(0, 15))
        if chance.random() < 0.5:
            ingestion.kill()
            ends["SIGKILL"] += 1
        else:
            assert ingestion.send(signal.SIGTERM).wait(LONG) == 0, ingestion.log[-3000:]
            ends["SIGTERM"] += 1
    return ends


@dataclass
class Watch:
    """Memory and batches of an undisturbed run: MB of Python and of its JVM, seconds of each batch."""

    python: list[float] = field(default_factory=list)
    jvm: list[float] = field(default_factory=list)
    batches: dict[int, float] = field(default_factory=dict)

    def run_until(self, end: float, lake: Lake, ingestion: Ingestion) -> None:
        python = psutil.Process(ingestion.process.pid)
        (jvm,) = [child for child in python.children() if child.name() == "java"]
        begun = time.time()
        while time.monotonic() < end:
            assert ingestion.process.poll() is None, ingestion.log[-3000:]
            self.python.append(python.memory_info().rss / 1e6)
            self.jvm.append(jvm.memory_info().rss / 1e6)
            with suppress(FileNotFoundError):  # Spark deletes old files meanwhile
                self._time_batches(lake, begun)
            time.sleep(SAMPLE_SECONDS)

    def _time_batches(self, lake: Lake, begun: float) -> None:
        """Spark writes the offsets of a batch before it and the commit after it, and keeps the latest hundred."""
        planned, committed = (
            {f.name: f.stat().st_mtime for f in lake.list_checkpoint(folder) if f.name.isdigit()}
            for folder in ("offsets", "commits")
        )
        for name in committed.keys() & planned.keys():
            if planned[name] > begun:
                self.batches[int(name)] = committed[name] - planned[name]


def split_quarters(samples: list[float]) -> list[float]:
    """The median of each quarter."""
    size = len(samples) // 4
    return [median(samples[number * size : (number + 1) * size]) for number in range(4)]


def describe(records: int, ends: Counter[str], watch: Watch) -> str:
    """A row for docs/reliability.md."""
    memory = [" / ".join(f"{mb:,.0f}" for mb in split_quarters(samples)) for samples in (watch.python, watch.jvm)]
    batches = f"{len(watch.batches)}, {median(watch.batches.values()):.1f} s, {max(watch.batches.values()):.1f} s"
    return (
        "| records | records/s | minutes | stops by SIGTERM | kills | Python's memory by quarter of the calm run, MB "
        "| the JVM's, MB | its batches, median, longest |\n|---|---|---|---|---|---|---|---|\n"
        f"| {records:,} | {RATE} | {SECONDS / 60:g} | {ends['SIGTERM']} | {ends['SIGKILL']} "
        f"| {' | '.join(memory)} | {batches} |"
    )


def test_a_stream_under_load_survives_restarts_and_its_memory_is_flat(
    make_topic: Callable[..., Topic], lake: Lake, start: Callable[..., Ingestion]
):
    topic, chance, records = make_topic(8), random.Random(SEED), int(SECONDS * RATE)
    lake = replace(lake, config=replace(lake.config, kafka_topic=topic.name))
    config = replace(lake.config, available_now=False, trigger_interval="3 seconds")
    begun, watch = time.monotonic(), Watch()
    with produce(topic, records) as producer:
        ends = restart_until(begun + SECONDS / 4, config, start, chance)
        calm = start(config, SPARK_SUBMIT_OPTS="")  # as a user runs it
        wait_for_batches(calm, 1)
        watch.run_until(time.monotonic() + SECONDS / 2, lake, calm)
        assert calm.send(signal.SIGTERM).wait(LONG) == 0
        ends = ends + Counter(["SIGTERM"]) + restart_until(begun + SECONDS, config, start, chance)
        assert producer.wait(600) == 0
    lake.ingest()
    assert_complete(lake, records)
    print(f"\nSEED={SEED}\n{describe(records, ends, watch)}")
    for samples in (watch.python, watch.jvm):
        _, second, _, last = split_quarters(samples)
        assert last <= second * MAX_GROWTH


def test_many_kills_at_random_moments(topic: Topic, lake: Lake, start: Callable[..., Ingestion]):
    assert_survives_kills(lake, topic, start, KILLS)


def test_a_broken_network_to_kafka_is_survived(lake: Lake, start: Callable[..., Ingestion], tmp_path: Path):
    with run_behind_proxy(tmp_path / "kafka") as proxy:
        create_topic(proxy.brokers, "events", 3)
        topic = Topic(proxy.brokers, "events")
        topic.produce(make_events(100))
        lake = replace(lake, config=replace(lake.config, kafka_brokers=proxy.brokers, kafka_topic="events"))
        lake.ingest()
        produced = Counter({"records": 100})
        proxy.plan(25)
        config = replace(lake.config, available_now=False, trigger_interval="0 seconds", max_offsets_per_trigger=200)

        def is_done() -> bool:
            topic.produce(make_events(9) + BAD[:1])  # so few that each batch has to fetch them
            produced["records"] += 10
            if produced["records"] % 1_000 == 0:
                print(f"{proxy.faults.total()} faults; still to come: {dict(proxy.left)}", flush=True)
            return not proxy.left.total()

        ends = run_until(is_done, config, start)
        print(f"\n{proxy.faults.total()} faults: {dict(proxy.faults)}; runs that ended: {ends}")
        lake.ingest()
        assert_complete(lake, produced["records"])


def test_one_invalid_record_in_a_million(topic: Topic, lake: Lake):
    values = make_events(1_000_000)
    values.insert(567_890, b'{"event_id": ')
    topic.produce(values, **{"queue.buffering.max.messages": 2_000_000})
    summary = lake.ingest(max_offsets_per_trigger=250_000)
    assert (summary.counts.valid, summary.counts.by_error_type) == (1_000_000, {"malformed_json": 1})
    assert lake.dlq.count() == 1
    assert_complete(lake, 1_000_001)


def test_1000_commits_of_two_writers_in_turn_are_short_to_open_and_cleaned_by_maintain_alone(
    spark: SparkSession, tmp_path: Path
):
    path = str(tmp_path / "bronze")
    spark.sql(create_table_statement(get_bronze_spec(), path))
    check_commits_in_turn(spark, path, 1_000)
