"""Faults of the network and of S3: whatever request fails, no record is lost or duplicated."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from sandbox.s3 import S3Sandbox
from tests.support.audit import assert_complete
from tests.support.events import BAD, make_events
from tests.support.ingestion import Ingestion
from tests.support.kills import LONG
from tests.support.lake import Lake
from tests.support.s3_proxy import FAULTS, REQUESTS, Proxy, Rule, run_proxy
from tests.support.topic import Topic


@pytest.fixture
def proxy(s3: S3Sandbox) -> Iterator[Proxy]:
    with run_proxy(s3.port) as running:
        yield running


KINDS = [(request, fault) for request in REQUESTS for fault in FAULTS]
KINDS.remove(("HEAD", "half a body"))  # its answer has no body


def test_each_fault_of_each_kind_of_request_is_survived(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], proxy: Proxy
):
    topic.produce(make_events(20))
    lake.ingest()
    topic.produce(make_events(200, first=20) + BAD)
    config = replace(lake.config, max_offsets_per_trigger=20)
    ingestion = start(config, AWS_ENDPOINT_URL=proxy.endpoint).wait_for("Batch 1: total", LONG)  # a start may fail
    proxy.rules += [Rule(request, fault, every=FAULTS.index(fault) + 1) for request, fault in KINDS]
    assert ingestion.wait(LONG) == 0, ingestion.log[-3000:]
    assert proxy.faults == dict.fromkeys(KINDS, 1)
    assert_complete(lake, 220 + len(BAD))


def test_a_fault_that_outlasts_the_repetitions_of_the_clients_restarts_the_query(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], proxy: Proxy
):
    topic.produce(make_events(20))
    lake.ingest()
    topic.produce(make_events(40, first=20) + BAD)
    proxy.rules.append(Rule("data PUT", "503", times=10_000))
    ingestion = start(lake.config, AWS_ENDPOINT_URL=proxy.endpoint).wait_for("restart 1 of 5 in 2 s", LONG)
    proxy.rules.clear()
    assert ingestion.wait(LONG) == 0, ingestion.log[-3000:]
    assert ", 1 restarts" in ingestion.log
    assert_complete(lake, 60 + len(BAD))


@pytest.mark.soak
@pytest.mark.parametrize("request_kind", REQUESTS)
def test_several_faults_of_a_request_in_a_row_are_survived(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], proxy: Proxy, request_kind: str
):
    topic.produce(make_events(20))
    lake.ingest()
    topic.produce(make_events(200, first=20) + BAD)
    proxy.rules += [Rule(request_kind, fault, every=3) for fault in FAULTS]
    config = replace(lake.config, max_offsets_per_trigger=20)
    for _ in range(5):  # a fault may end a run, and the next one continues
        if start(config, AWS_ENDPOINT_URL=proxy.endpoint).wait(LONG) == 0:
            break
    else:
        pytest.fail("no run has come to its end")
    assert sum(proxy.faults.values()) > 0
    assert_complete(lake, 220 + len(BAD))


def test_a_commit_whose_answer_was_lost_is_not_repeated(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], proxy: Proxy
):
    topic.produce(make_events(20))
    lake.ingest()
    topic.produce(make_events(40, first=20))
    proxy.rules.append(Rule("commit PUT", "lost answer", times=3))
    ingestion = start(lake.config, AWS_ENDPOINT_URL=proxy.endpoint)
    assert ingestion.wait(LONG) == 0, ingestion.log
    assert proxy.faults["commit PUT", "lost answer"] == 3
    assert "total=40, valid=40" in ingestion.log
    assert "already in the tables" not in ingestion.log
    assert_complete(lake, 60)
