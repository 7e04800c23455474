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


REPEATED = ("LIST", "HEAD", "DELETE")  # the S3 clients repeat these as they repeat GET
KINDS = [pytest.param(kind, marks=pytest.mark.soak if kind in REPEATED else ()) for kind in REQUESTS]


@pytest.mark.parametrize("request_kind", KINDS)
def test_each_fault_of_a_request_is_survived(
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
