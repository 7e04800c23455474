"""OpenLineage events of real runs: valid by the specification, complete, and never in the way of a batch."""

import json
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from bronze.errors import BronzeError, ConfigError
from bronze.observe.lineage import API_KEY_VARIABLE, NAMESPACE_VARIABLE
from tests.support.events import BAD, make_events
from tests.support.ingestion import Ingestion
from tests.support.lake import Lake
from tests.support.paths import ROOT
from tests.support.receiver import Receiver, run_receiver
from tests.support.topic import Topic

SPECIFICATION = "https://openlineage.io/spec/2-0-2/OpenLineage.json"
SCHEMAS = [json.loads(file.read_text()) for file in (ROOT / "tests/monitoring/openlineage").glob("*.json")]
REGISTRY = Registry().with_resources([(each["$id"], Resource.from_contents(each)) for each in SCHEMAS])


def validate(value: dict, schema: str) -> None:
    checker = Draft202012Validator.FORMAT_CHECKER
    Draft202012Validator({"$ref": schema}, registry=REGISTRY, format_checker=checker).validate(value)


def list_facets(event: dict) -> list[tuple[str, dict]]:
    """Every facet of an event with its name."""
    holders = [event["run"], event["job"], *event["inputs"], *event["outputs"]]
    kinds = ("facets", "inputFacets", "outputFacets")
    return [named for each in holders for kind in kinds for named in each.get(kind, {}).items()]


def validate_all(events: list[dict]) -> None:
    """Each event by the specification, and each facet by its own schema."""
    for event in events:
        validate(event, event["schemaURL"])
        for _, facet in list_facets(event):
            validate(facet, facet["_schemaURL"])


@pytest.fixture
def receiver():
    with run_receiver() as found:
        yield found


def test_a_run_is_told_from_its_start_to_its_end_by_the_specification(topic: Topic, lake: Lake, receiver: Receiver):
    topic.produce(make_events(30) + BAD)
    lake.ingest(lineage_url=receiver.url)
    assert [event["eventType"] for event in receiver.events] == ["START", "RUNNING", "COMPLETE"]
    assert len({event["run"]["runId"] for event in receiver.events}) == 1
    assert set(receiver.paths) == {"/api/v1/lineage"}
    assert {event["schemaURL"].partition("#")[0] for event in receiver.events} == {SPECIFICATION}
    validate_all(receiver.events)


def test_each_kind_of_facet_is_checked_against_its_own_schema(topic: Topic, lake: Lake, receiver: Receiver):
    topic.produce(make_events(3))
    lake.ingest(lineage_url=receiver.url)
    facets = list_facets(receiver.events[-1])
    own = {"bronze_counts", "bronze_offsets"}
    assert {name for name, _ in facets} - own == {
        "jobType",
        "processing_engine",
        "inputStatistics",
        "outputStatistics",
        "schema",
        "version",
    }
    known = {each["$id"] for each in SCHEMAS}
    assert {facet["_schemaURL"].partition("#")[0] for _, facet in facets} <= known


def test_an_event_that_is_not_valid_is_found(topic: Topic, lake: Lake, receiver: Receiver):
    topic.produce(make_events(3))
    lake.ingest(lineage_url=receiver.url)
    event = receiver.events[-1]
    event["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] = "three"
    with pytest.raises(Exception, match="'three' is not of type 'integer'"):
        validate_all([event])


def test_the_end_names_topic_offsets_tables_versions_counts_and_schemas(topic: Topic, lake: Lake, receiver: Receiver):
    topic.produce(make_events(30), partition=0)
    topic.produce(BAD, partition=1)
    lake.ingest(lineage_url=receiver.url)
    end = receiver.events[-1]
    (source,), (bronze, dlq) = end["inputs"], end["outputs"]
    assert (source["namespace"], source["name"]) == (f"kafka://{topic.brokers}", topic.name)
    offsets = source["inputFacets"]["bronze_offsets"]
    assert offsets["first"] == {"0": 0, "1": 0, "2": 0}
    assert offsets["end"] == {"0": 30, "1": len(BAD), "2": 0}
    assert (bronze["namespace"], bronze["name"]) == ("file", lake.config.output_path)
    assert bronze["outputFacets"]["outputStatistics"]["rowCount"] == 30
    assert dlq["outputFacets"]["outputStatistics"]["rowCount"] == len(BAD)
    newest = lake.spark.sql(f"DESCRIBE HISTORY delta.`{lake.config.output_path}` LIMIT 1").first()
    assert bronze["facets"]["version"]["datasetVersion"] == str(newest["version"])
    assert len(bronze["facets"]["schema"]["fields"]) == 24
    assert end["run"]["facets"]["bronze_counts"]["byErrorType"]["tombstone"] == 1


def test_a_failure_has_its_message(topic: Topic, lake: Lake, receiver: Receiver):
    topic.produce(make_events(3) + BAD)
    with pytest.raises(BronzeError):
        lake.ingest(lineage_url=receiver.url, max_invalid_ratio=0.1)
    assert receiver.events[-1]["eventType"] == "FAIL"
    assert "--max-invalid-ratio" in receiver.events[-1]["run"]["facets"]["errorMessage"]["message"]
    validate_all(receiver.events)


def test_the_key_and_the_namespace_come_from_the_environment(
    topic: Topic, lake: Lake, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, bronze_log: pytest.LogCaptureFixture
):
    monkeypatch.setenv(API_KEY_VARIABLE, "s3cret-k3y")
    monkeypatch.setenv(NAMESPACE_VARIABLE, "billing")
    topic.produce(make_events(3))
    lake.ingest(lineage_url=receiver.url)
    assert {headers["Authorization"] for headers in receiver.headers} == {"Bearer s3cret-k3y"}
    assert {event["job"]["namespace"] for event in receiver.events} == {"billing"}
    assert not any("k3y" in message for message in bronze_log.messages)


def test_a_stopped_stream_is_complete(topic: Topic, lake: Lake, receiver: Receiver, start: Callable[..., Ingestion]):
    topic.produce(make_events(5))
    config = replace(lake.config, lineage_url=receiver.url, available_now=False, trigger_interval="1 second")
    assert start(config).wait_for("total=5").send(signal.SIGTERM).wait() == 0
    assert [event["eventType"] for event in receiver.events] == ["START", "RUNNING", "COMPLETE"]
    assert receiver.events[-1]["job"]["facets"]["jobType"]["processingType"] == "STREAMING"


def ingest_five_batches(topic: Topic, lake: Lake, **changes: str) -> list[float]:
    topic.produce(make_events(50), partition=0)
    summary = lake.ingest(max_offsets_per_trigger=10, **changes)
    assert (summary.batch_count, summary.counts.total) == (5, 50)
    return [batch.seconds for batch in summary.batches]


def test_a_receiver_that_hangs_delays_no_batch_and_its_run_ends(
    topic: Topic, lake: Lake, bronze_log: pytest.LogCaptureFixture
):
    with run_receiver(is_hanging=True) as hanging:
        started = time.monotonic()
        seconds = ingest_five_batches(topic, lake, lineage_url=hanging.url)
        took = time.monotonic() - started
    assert max(seconds) < 5
    assert took < 30
    assert sum(message.startswith(f"cannot send lineage to {hanging.url}") for message in bronze_log.messages) == 1


@pytest.mark.parametrize("status", [500, 404])
def test_a_receiver_that_fails_is_a_warning(
    status: int, topic: Topic, lake: Lake, bronze_log: pytest.LogCaptureFixture
):
    with run_receiver(status) as failing:
        ingest_five_batches(topic, lake, lineage_url=failing.url)
    assert sum(message.startswith("cannot send lineage to") for message in bronze_log.messages) == 1


def test_a_receiver_that_is_down_is_a_warning(topic: Topic, lake: Lake, bronze_log: pytest.LogCaptureFixture):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    ingest_five_batches(topic, lake, lineage_url=url)
    assert sum(message.startswith("cannot send lineage to") for message in bronze_log.messages) == 1


def test_without_the_package_the_run_is_refused_before_a_write(lake: Lake, topic: Topic, monkeypatch):
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    with pytest.raises(ConfigError, match=r"openlineage-python; pip install openlineage-python"):
        lake.ingest(lineage_url="http://localhost:5000")
    assert not lake.has_rows(0)
