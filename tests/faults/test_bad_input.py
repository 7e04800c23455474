"""Bad input on a real topic: each kind of value lands where it belongs, and no batch or notebook fails because of it.

The values are those of the decoder's own tests, one line each; here they go through Kafka, Spark and both writers.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import papermill
import pytest
from confluent_kafka import Producer
from pyspark.sql import Row, SparkSession

from bronze import read_result
from bronze.config import IngestConfig
from bronze.schema import ERROR_TYPES
from sandbox.kafka import KafkaSandbox
from sandbox.topics import create_topic
from tests.support.audit import assert_complete
from tests.support.builders import KAFKA_TIME, make_value
from tests.support.lake import WRITERS, Lake
from tests.support.paths import ROOT
from tests.support.values import BROKEN, INVALID_TIMES, LARGE, TIME, VALID, VALID_TIMES

TOPIC = "bad-input"


@dataclass(frozen=True)
class Case:
    """One kind of value, and its result: an error type and a part of the detail, or "valid"."""

    name: str
    value: bytes | None
    expected: str
    detail: str = ""


CASES = [
    *(Case(*case) for case in BROKEN),
    *(Case(name, make_value(event_timestamp=text), TIME, detail) for name, text, detail in INVALID_TIMES),
    *(Case(*case) for case in LARGE),
    *(Case(name, value, "valid") for name, value in VALID),
    *(Case(f"time {text}", make_value(event_timestamp=text), "valid") for text, _ in VALID_TIMES),
]


@pytest.fixture(scope="module")
def brokers(kafka: KafkaSandbox) -> str:
    """A broker whose topic holds every case, with the case's number as offset and the time of the decoder's tests."""
    create_topic(kafka.brokers, TOPIC, 1, {"max.message.bytes": "16000000"})
    producer = Producer({"bootstrap.servers": kafka.brokers, "message.max.bytes": 16_000_000})
    for case in CASES:
        producer.produce(TOPIC, case.value, key=case.name.encode(), partition=0, timestamp=KAFKA_TIME // 1_000)
    assert producer.flush(60) == 0
    return kafka.brokers


@pytest.fixture(scope="module", params=WRITERS)
def landed(
    brokers: str, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Lake:
    """The lake of one writer after it ingested all cases in one run that did not fail."""
    folder = tmp_path_factory.mktemp("landed")
    paths = {name: str(folder / name) for name in ("checkpoint_path", "output_path", "dlq_path")}
    config = IngestConfig(
        kafka_brokers=brokers, kafka_topic=TOPIC, available_now=True, writer=request.param, with_metrics=True, **paths
    )
    lake = Lake(config, spark)
    lake.ingest()
    return lake


@pytest.fixture(scope="module")
def rows(landed: Lake) -> dict[int, Row]:
    """All rows of the two tables by offset; a duplicate fails here."""
    found = [*landed.bronze.collect(), *landed.dlq.collect()]
    assert len(found) == len(CASES)
    return {row["_kafka_offset"]: row for row in found}


@pytest.mark.parametrize("offset", range(len(CASES)), ids=[case.name for case in CASES])
def test_a_value_lands_under_its_error_type_with_its_exact_bytes(rows: dict[int, Row], offset: int):
    case, row = CASES[offset], rows[offset].asDict()
    if case.expected == "valid":
        assert (row["_is_valid"], row["_raw_value"]) == (True, case.value.decode())
    else:
        assert (row["_error_type"], row["_raw_bytes"]) == (case.expected, case.value)
        assert case.detail in row["_error_detail"]
        assert len(row["_error_detail"]) < 300


def test_of_every_error_type_there_are_values_and_of_all_more_than_200():
    assert {case.expected for case in CASES} == {*ERROR_TYPES, "valid"}
    assert len({case.value for case in CASES}) > 200


def test_after_all_of_them_the_audit_is_complete(landed: Lake):
    assert_complete(landed, len(CASES))


def test_a_topic_of_invalid_records_only_goes_to_the_dlq_whole(landed: Lake, tmp_path: Path):
    broken = [case for case in CASES if case.expected != "valid"]
    names = {name: f"{tmp_path}/{name}" for name in ("checkpoint_path", "output_path", "dlq_path")}
    lake = replace(landed, config=replace(landed.config, kafka_topic=f"broken-{landed.config.writer}", **names))
    create_topic(lake.config.kafka_brokers, lake.config.kafka_topic, 1, {"max.message.bytes": "16000000"})
    producer = Producer({"bootstrap.servers": lake.config.kafka_brokers, "message.max.bytes": 16_000_000})
    for case in broken:
        producer.produce(lake.config.kafka_topic, case.value, timestamp=KAFKA_TIME // 1_000)
    assert producer.flush(60) == 0
    summary = lake.ingest()
    assert (summary.counts.valid, summary.counts.invalid) == (0, len(broken))
    assert_complete(lake, len(broken))


@pytest.fixture
def checkout() -> Iterator[None]:
    """Run notebooks in the checkout, as papermill does if it is started there."""
    with contextlib.chdir(ROOT):
        yield


def execute(lake: Lake, notebook: str, output: Path, **parameters: Any) -> dict[str, Any]:
    paths = {name: getattr(lake.config, name) for name in ("kafka_brokers", "kafka_topic", "output_path", "dlq_path")}
    given = {**paths, "use_sandbox": False, **parameters}
    papermill.execute_notebook(ROOT / "notebooks" / notebook, output, given, kernel_name="python3", progress_bar=False)
    return read_result(output)


@pytest.mark.soak
@pytest.mark.parametrize("notebook", ["ingestion", "backfill", "dlq_inspection", "table_monitoring"])
@pytest.mark.parametrize("landed", ["direct"], indirect=True)
def test_no_notebook_fails_on_reading_them(checkout: None, landed: Lake, notebook: str, tmp_path: Path):
    given = {} if notebook == "dlq_inspection" else {"checkpoint_path": landed.config.checkpoint_path}
    result = execute(landed, f"{notebook}.ipynb", tmp_path / "out.ipynb", **given)
    invalid = sum(case.expected != "valid" for case in CASES)
    expected = {
        "ingestion": ("dlq_rows", invalid),
        "backfill": ("present", len(CASES)),
        "dlq_inspection": ("open", invalid),
        "table_monitoring": ("invalid", invalid),
    }
    name, value = expected[notebook]
    assert result[name] == value
