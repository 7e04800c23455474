"""Spark's UI of a local stream: its address, which hosts can reach it, and what it hides."""

import json
import re
import socket
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from bronze.config import IngestConfig
from bronze.runtime.session import get_session
from sandbox.system import find_free_port
from tests.support.events import make_events
from tests.support.ingestion import SLOW, Ingestion
from tests.support.lake import Lake
from tests.support.topic import Topic
from tests.support.waiting import wait_until

SECRET = "c4nary"
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
PROPERTIES = f"""
client.id=billing
sasl.jaas.config={PLAIN} required username="u" password="{SECRET}";
ssl.keystore.key={SECRET}
"""
PAGES = ("jobs/", "stages/", "environment/", "executors/", "SQL/", "SQL/execution/?id=0", "StreamingQuery/")


def fetch(address: str, path: str) -> str:
    with urllib.request.urlopen(f"{address}/{path}", timeout=30) as answer:
        return answer.read().decode()


def read_address(ingestion: Ingestion) -> str:
    found = re.search(r"Spark's UI, on this machine only: (http://127\.0\.0\.1:\d+)/StreamingQuery/", ingestion.log)
    assert found, ingestion.log
    return found[1]


def list_own_addresses() -> list[str]:
    """The machine's addresses that others can reach; connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return [probe.getsockname()[0]]
    return []


def can_connect(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=5):
        return True
    return False


def test_a_stream_has_a_ui_on_this_machine_that_ends_nothing_and_shows_no_secret(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], tmp_path: Path
):
    """A stream whose batch takes a minute, so that there is a job to kill; a Spark setting also holds a secret."""
    topic.produce(make_events(5))
    (tmp_path / "kafka.properties").write_text(PROPERTIES)
    config = replace(lake.config, available_now=False, kafka_config=str(tmp_path / "kafka.properties"))
    settings = f"--conf spark.executorEnv.KAFKA_KEYSTORE={SECRET} --conf spark.redaction.regex=billing pyspark-shell"
    with socket.socket() as taken:
        with suppress(OSError):  # as somebody else might do
            taken.bind(("127.0.0.1", 4040))
            taken.listen()
        stream = start(config, *SLOW, PYSPARK_SUBMIT_ARGS=settings, SPARK_LOCAL_IP="0.0.0.0").wait_for("Slow: ")
    address = read_address(stream)
    port = int(address.rpartition(":")[2])
    assert port != 4040
    assert not any(can_connect(host, port) for host in list_own_addresses())

    wait_until(lambda: "Active Stages" in fetch(address, "stages/") and "Active Jobs" in fetch(address, "jobs/"))
    shown = {page: fetch(address, page) for page in PAGES}
    assert f"bronze-{topic.name}" in shown["StreamingQuery/"]
    (statistics,) = set(re.findall(r"statistics/?\?id=[0-9a-f-]+", shown["StreamingQuery/"]))
    shown[statistics] = fetch(address, f"StreamingQuery/{statistics}")
    assert "Streaming Query Statistics" in shown[statistics]
    assert not [page for page in ("jobs/", "stages/") if re.search("/kill|kill-link", shown[page])]

    (application,) = json.loads(fetch(address, "api/v1/applications"))
    for name in ("environment", "sql", "sql/0?details=true", "jobs", "stages"):
        shown[name] = fetch(address, f"api/v1/applications/{application['id']}/{name}")
    properties = dict(json.loads(shown["environment"])["sparkProperties"])
    assert properties["spark.ui.killEnabled"] == "false"
    assert properties["spark.executorEnv.KAFKA_KEYSTORE"] == "*********(redacted)"
    assert [name for name, text in shown.items() if SECRET in text] == []


def test_spark_s_ui_does_not_take_the_port_of_the_http_server(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion]
):
    port = find_free_port()
    config = replace(lake.config, available_now=False, http_port=port)
    stream = start(config, PYSPARK_SUBMIT_ARGS=f"--conf spark.ui.port={port} pyspark-shell").wait_for("To stop")
    assert read_address(stream) != f"http://127.0.0.1:{port}"
    assert set(json.loads(fetch(f"http://127.0.0.1:{port}", "health"))) >= {"status", "lag"}


def test_a_session_that_is_there_already_is_left_alone(spark: SparkSession, bronze_log: pytest.LogCaptureFixture):
    """Here, a session that was created for short runs, which has no UI."""
    paths = {"checkpoint_path": "c", "output_path": "b", "dlq_path": "d"}
    assert get_session(IngestConfig(kafka_brokers="b:9092", kafka_topic="t", **paths)) is spark
    assert spark.sparkContext.uiWebUrl is None
    assert spark.sparkContext.getConf().get("spark.ui.enabled") == "false"
    assert bronze_log.messages == []
