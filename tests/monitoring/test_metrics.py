"""Metrics and health of a real ingestion: what a scrape sees, and what short runs write to a file."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bronze import audit, status
from bronze.config import TOKEN_VARIABLE, AuditConfig, IngestConfig, StatusConfig
from bronze.observe.metrics import METRICS
from sandbox.kafka import KafkaSandbox
from sandbox.system import find_free_port
from sandbox.topics import create_topic
from tests.support.events import BAD, make_events
from tests.support.ingestion import Ingestion
from tests.support.lake import Lake
from tests.support.pages import read_page
from tests.support.paths import ROOT
from tests.support.prometheus import check_metrics, get, run_node_exporter
from tests.support.topic import Topic
from tests.support.waiting import wait_until


def stream_on(lake: Lake, **changes) -> IngestConfig:
    """The lake's configuration for a stream with a port."""
    values = {"available_now": False, "trigger_interval": "1 second", "http_port": find_free_port(), **changes}
    return replace(lake.config, **values)


def read_values(text: str) -> dict[str, float]:
    """The series of a page without the labels that all have."""
    found = re.findall(r"^(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE)
    return {f"{name}{_shorten(labels)}": float(value) for name, labels, value in found}


def _shorten(labels: str) -> str:
    own = [label for label in labels.split(",") if not label.startswith(("command=", "topic="))]
    return "{" + ",".join(own) + "}" if own else ""


def scrape(config: IngestConfig) -> dict[str, float]:
    status_code, text = get(f"http://127.0.0.1:{config.http_port}/metrics")
    assert status_code == 200
    return read_values(text)


def test_a_scrape_sees_what_the_stream_has_done(topic: Topic, lake: Lake, start: Callable[..., Ingestion]):
    topic.produce(make_events(90) + BAD)
    config = stream_on(lake)
    start(config).wait_for("total=")
    wait_until(lambda: scrape(config).get('bronze_lag_records{partition="0"}') == 0, 60)
    seen = scrape(config)
    assert seen['bronze_records_total{outcome="valid"}'] == 90
    assert seen['bronze_records_total{outcome="invalid"}'] == len(BAD)
    assert seen['bronze_invalid_records_total{error_type="tombstone"}'] == 1
    assert seen['bronze_batch_duration_seconds_count{phase="commit"}'] >= 1
    assert sum(seen[f'bronze_committed_offset{{partition="{p}"}}'] for p in range(3)) == 90 + len(BAD)
    assert seen['bronze_written_files_total{table="bronze"}'] >= 1
    assert seen["bronze_query_up"] == seen["bronze_kafka_up"] == 1
    assert seen["bronze_newest_record_timestamp_seconds"] <= seen["bronze_last_commit_timestamp_seconds"]


def test_promtool_finds_nothing_to_improve_in_any_metric(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], tmp_path: Path
):
    topic.produce(make_events(30) + BAD)
    config = stream_on(lake)
    start(config).wait_for("total=")
    wait_until(lambda: "bronze_retention_headroom_seconds" in get(f"http://127.0.0.1:{config.http_port}/metrics")[1])
    pages = [get(f"http://127.0.0.1:{config.http_port}/metrics")[1]]
    for command, kind in ((status, StatusConfig), (audit, AuditConfig)):
        file = tmp_path / f"{command.__name__}.prom"
        command(lake.configure(kind, metrics_file=str(file)), lake.spark)
        pages.append(file.read_text())
    lake.ingest(metrics_file=str(tmp_path / "ingest.prom"), checkpoint_path=str(tmp_path / "other-checkpoint"))
    pages.append((tmp_path / "ingest.prom").read_text())
    for page in pages:
        check_metrics(page.encode())
    named = {name for page in pages for name in re.findall(r"^# TYPE (\w+) ", page, re.MULTILINE)}
    assert named == set(METRICS)


def test_a_token_guards_the_stop_but_neither_metrics_nor_health(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion]
):
    config = stream_on(lake)
    ingestion = start(config, **{TOKEN_VARIABLE: "s3cret-t0ken"}).wait_for("To stop")
    base = f"http://127.0.0.1:{config.http_port}"
    assert get(f"{base}/api/v1/applications")[0] == 401
    assert get(f"{base}/api/v1/applications", Authorization="Bearer s3cret-t0ken")[0] == 200
    pages = [get(f"{base}{path}") for path in ("/metrics", "/health")]
    assert [code for code, _ in pages] == [200, 200]
    assert not any("t0ken" in text for _, text in pages)
    assert ingestion.process.poll() is None


def test_without_prometheus_client_the_port_still_stops_and_the_page_says_what_to_install(
    lake: Lake, topic: Topic, start: Callable[..., Ingestion], tmp_path: Path
):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "prometheus_client.py").write_text("raise ImportError('hidden')\n")
    config = stream_on(lake)
    path = f"{tmp_path / 'hidden'}:{ROOT / 'lib'}"
    ingestion = start(config, PYTHONPATH=path).wait_for("To stop")
    code, text = get(f"http://127.0.0.1:{config.http_port}/metrics")
    assert (code, "pip install prometheus-client" in text) == (501, True)
    assert get(f"http://127.0.0.1:{config.http_port}/health")[0] == 200
    (url,) = re.findall(r"curl -X POST (\S+)", ingestion.log)
    urllib.request.urlopen(urllib.request.Request(url, method="POST")).close()
    assert ingestion.wait() == 0


def test_64_partitions_have_as_many_series_as_the_page_says(
    make_topic: Callable[..., Topic], lake: Lake, tmp_path: Path
):
    wide = make_topic(64)
    wide.produce(make_events(500) + BAD)
    file = tmp_path / "ingest.prom"
    lake.ingest(kafka_topic=wide.name, metrics_file=str(file))
    series = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    (said,) = re.findall(r"A stream of 64 partitions has (\d+) series", (ROOT / "docs/metrics.md").read_text())
    # The exit code and the end of a run are not there while it lasts.
    assert len(series) - 2 == int(said)


def test_short_runs_leave_files_that_node_exporter_reads_together(topic: Topic, lake: Lake, tmp_path: Path):
    topic.produce(make_events(40) + BAD)
    folder = tmp_path / "textfiles"
    folder.mkdir()
    lake.ingest(metrics_file=str(folder / "ingest.prom"))
    status(lake.configure(StatusConfig, metrics_file=str(folder / "status.prom")), lake.spark)
    audit(lake.configure(AuditConfig, metrics_file=str(folder / "audit.prom")), lake.spark)
    with run_node_exporter(folder) as address:
        _, text = get(f"http://{address}/metrics")
    values = read_values(text)
    assert re.search(r"^node_textfile_scrape_error 0$", text, re.MULTILINE)
    assert values["bronze_audit_complete"] == 1
    assert values["bronze_run_exit_code"] == 0
    assert values["bronze_dlq_waiting_records"] == len(BAD)
    assert values['bronze_table_rows{table="dlq"}'] == len(BAD)
    assert text.count("bronze_lag_records{") == 3 * 3  # partitions, commands


def run_crontab(places: dict[str, object]) -> list[int]:
    """Run the jobs of the page as cron does, with these places instead of its own; returns their exit codes."""
    (crontab,) = re.findall(r"```crontab\n(.*?)```", read_page("docs/operations.md"), re.DOTALL)
    for written, used in places.items():
        assert written in crontab
        crontab = crontab.replace(written, str(used))
    kept = {name: os.environ[name] for name in ("HOME", "PYTHONPATH", "JAVA_HOME") if name in os.environ}
    env = {"PATH": "/usr/bin:/bin", **kept, **dict(re.findall(r"^ *(\w+)=(.+)$", crontab, re.MULTILINE))}
    jobs = re.findall(r"^ *[*/\d]+ [*/\d]+ \* \* \* (.+)$", crontab, re.MULTILINE)
    return [subprocess.run(["/bin/sh", "-c", job], env=env).returncode for job in jobs]


def test_the_crontab_of_the_page_writes_both_files(topic: Topic, lake: Lake, tmp_path: Path):
    topic.produce(make_events(10))
    lake.ingest()
    folders = dict.fromkeys(("/var/lib/prometheus/node-exporter", "/var/log/bronze"), tmp_path)
    source = {"broker-1:9092": topic.brokers, "api-usage-events.v1": topic.name}
    paths = {
        "/lake/checkpoints/api-usage-events": lake.config.checkpoint_path,
        "/lake/bronze/api_usage_events": lake.config.output_path,
        "/lake/dlq/api_usage_events": lake.config.dlq_path,
    }
    bronze = {"/opt/bronze/.venv/bin/bronze": Path(sys.executable).parent / "bronze"}
    without = {" --kafka-config /etc/bronze/kafka.properties": ""}
    assert run_crontab(bronze | source | without | paths | folders) == [0, 0]
    assert {file.name for file in tmp_path.glob("*.prom")} == {"status.prom", "audit.prom"}


def test_a_run_that_fails_says_so_in_its_file(topic: Topic, lake: Lake, tmp_path: Path, bronze):
    topic.produce(make_events(10) + BAD)
    file = tmp_path / "ingest.prom"
    code, _ = bronze("--metrics-file", str(file), "--max-invalid-ratio", "0.01")
    values = read_values(file.read_text())
    assert code == values["bronze_run_exit_code"] == 4
    assert values['bronze_query_failures_total{cause="invalid_records"}'] == 1


def test_a_file_that_cannot_be_written_does_not_fail_the_run(
    topic: Topic, lake: Lake, tmp_path: Path, bronze_log: pytest.LogCaptureFixture
):
    topic.produce(make_events(10))
    (tmp_path / "ingest.prom").mkdir()
    assert lake.ingest(metrics_file=str(tmp_path / "ingest.prom")).counts.total == 10
    assert any(message.startswith("cannot write --metrics-file") for message in bronze_log.messages)


def test_health_is_bad_while_kafka_is_silent_and_good_again_afterwards(
    tmp_path: Path, lake: Lake, start: Callable[..., Ingestion]
):
    with KafkaSandbox(tmp_path / "kafka", port=0) as broker:
        create_topic(broker.brokers, "outage", 2, {})
        topic = Topic(broker.brokers, "outage")
        topic.produce(make_events(20))
        config = stream_on(lake, kafka_brokers=broker.brokers, kafka_topic="outage")
        start(config).wait_for("total=")
        url = f"http://127.0.0.1:{config.http_port}/health"
        wait_until(lambda: get(url)[0] == 200 and json.loads(get(url)[1])["lag"] == 0, 60)
        broker.stop()
        wait_until(lambda: get(url)[0] == 503, 60)
        (reason,) = json.loads(get(url)[1])["reasons"]
        assert reason.startswith("Kafka has not answered for ")
        broker.start()
        wait_until(lambda: get(url)[0] == 200, 90)
