"""Endurance in S3 (``make test-soak``): a thousand faults, kills, and writers next to each other for minutes."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest

from bronze.config import MaintainConfig
from sandbox.s3 import S3Sandbox
from tests.support.audit import assert_complete
from tests.support.backfill import run_backfill
from tests.support.commands import list_flags
from tests.support.events import BAD, make_events
from tests.support.ingestion import Ingestion
from tests.support.kills import KILLS, LONG, assert_survives_kills, wait_for_batches
from tests.support.lake import Lake, open_table
from tests.support.load import RATE, SECONDS, produce, run_until
from tests.support.maintenance import run_maintenance
from tests.support.s3_proxy import FAULTS, REQUESTS, Rule, run_proxy
from tests.support.topic import Topic

pytestmark = pytest.mark.soak

TIMES = int(os.environ.get("TIMES") or 28)  # per kind of request and fault: 1,008 in all
# So many requests of a kind are rare or frequent that each fault hits each n-th of them.
EVERY = {"commit PUT": 10, "data PUT": 12, "GET": 40, "HEAD": 40, "LIST": 25, "DELETE": 8}


def test_a_thousand_faults_are_survived(topic: Topic, lake: Lake, start: Callable[..., Ingestion], s3: S3Sandbox):
    topic.produce(make_events(100) + BAD)
    lake.ingest()
    with run_proxy(s3.port) as proxy:
        proxy.rules += [Rule(kind, fault, EVERY[kind], TIMES) for kind in REQUESTS for fault in FAULTS]
        config = replace(lake.config, available_now=False, trigger_interval="0 seconds", max_offsets_per_trigger=200)
        maintained = Counter[int]()

        def is_done() -> bool:
            topic.produce(make_events(2_000))  # the stream always has something to commit
            flags = list_flags(lake.configure(MaintainConfig, retention_hours=0, force=True, optimize_after_hours=1))
            maintenance = (sys.executable, "-m", "bronze", "maintain", *flags)
            maintained[start(None, *maintenance, AWS_ENDPOINT_URL=proxy.endpoint).wait(LONG)] += 1
            left = Counter[str]()
            for rule in proxy.rules:
                left[rule.request] += rule.times
            print(f"{proxy.faults.total()} faults; still to come: {dict(left)}", flush=True)
            return not left.total()

        ends = run_until(is_done, config, start, AWS_ENDPOINT_URL=proxy.endpoint)
    print(f"\n{proxy.faults.total()} faults: {dict(proxy.faults)}; runs that ended: {ends}; maintenance: {maintained}")
    assert proxy.faults.total() == TIMES * len(REQUESTS) * len(FAULTS)
    lake.ingest()
    assert_complete(lake, 100 + len(BAD) + 2_000 * maintained.total())


def test_many_kills_at_random_moments(topic: Topic, lake: Lake, start: Callable[..., Ingestion]):
    assert_survives_kills(lake, topic, start, KILLS)


def test_two_streams_a_backfill_maintenance_and_spark_next_to_each_other(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion]
):
    records, rounds = int(SECONDS / 3 * RATE), Counter[str]()
    config = replace(lake.config, available_now=False, trigger_interval="2 seconds")
    with produce(topic, records) as producer:
        streams = [start(replace(config, checkpoint_path=config.checkpoint_path + end)) for end in ("", "-2")]
        for stream in streams:
            wait_for_batches(stream, 1)
        for number in count():
            run_backfill(lake)
            run_maintenance(lake, optimize_after_hours=1, retention_hours=0, force=True)
            lake.spark.sql(f"ALTER TABLE delta.`{lake.config.output_path}` SET TBLPROPERTIES ('user.n' = '{number}')")
            lake.spark.sql(f"OPTIMIZE delta.`{lake.config.output_path}`").collect()
            rounds["rounds"] += 1
            if producer.poll() is not None:
                break
    assert producer.returncode == 0
    ends = [stream.send(signal.SIGTERM).wait(LONG) for stream in streams]
    print(f"\n{records:,} records, {rounds['rounds']} rounds, version {open_table(lake.config.output_path).version()}")
    assert ends == [0, 0]
    run_backfill(lake)
    assert_complete(lake, records)
