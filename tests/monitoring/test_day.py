"""A day in twenty minutes (``make test-soak``): an outage, a bad deployment and a burst, as the alerts tell it.

DAY_RATE (records per second) and DAY_PICTURE (a file for the picture) change the run.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from bronze import audit, status
from bronze.config import AuditConfig, IngestConfig, StatusConfig
from sandbox.kafka import KafkaSandbox
from sandbox.system import find_free_port
from sandbox.topics import create_topic
from tests.support.audit import assert_complete
from tests.support.dashboard import list_expressions
from tests.support.day import draw_day, list_alerts
from tests.support.ingestion import Ingestion
from tests.support.lake import Lake
from tests.support.paths import ROOT
from tests.support.prometheus import Prometheus, run_node_exporter, run_prometheus
from tests.support.traffic import Load

pytestmark = pytest.mark.soak

RATE = int(os.environ.get("DAY_RATE") or 5_000)
BURST_RATE, MAX_LAG = 4 * RATE, 300_000
MINUTE = 60
# Minutes of each event; the burst ends earlier, once it has done what it is for.
OUTAGE, DEPLOYMENT, BURST, END = (3, 5), (6, 7), (8, 15), 20


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KafkaSandbox]:
    with KafkaSandbox(tmp_path / "broker", port=0) as sandbox:
        yield sandbox


@pytest.fixture
def day(broker: KafkaSandbox, tmp_path: Path, spark: SparkSession) -> Lake:
    """A lake for a topic whose records expire after two days, and a stream with a port and a limit.

    It may read twice what usually arrives, so that a burst exceeds it on every machine, and lag falls only afterwards.
    """
    create_topic(broker.brokers, "day", 8, {"retention.ms": str(48 * 3600 * 1000)})
    paths = {name: str(tmp_path / name) for name in ("checkpoint_path", "output_path", "dlq_path")}
    shared = {"kafka_brokers": broker.brokers, "kafka_topic": "day", "trigger_interval": "5 seconds", **paths}
    return Lake(IngestConfig(**shared, http_port=find_free_port(), max_offsets_per_trigger=10 * RATE), spark)


def sleep_until(start: float, minute: float) -> None:
    time.sleep(max(0.0, start + minute * MINUTE - time.time()))


def find_silent(prometheus: Prometheus) -> list[str]:
    """The expressions of the dashboard that return no data, by their titles."""
    expressions = list_expressions()
    return [title for title, expression in expressions.items() if not prometheus.query(f"count(({expression}))")]


def measure_tables(day: Lake, folder: Path) -> None:
    """What cron does: the status and the audit, for node_exporter."""
    status(day.configure(StatusConfig, metrics_file=str(folder / "status.prom")), day.spark)
    audit(day.configure(AuditConfig, metrics_file=str(folder / "audit.prom")), day.spark)


def read_lag(prometheus: Prometheus) -> float:
    return float(prometheus.query('sum(bronze_lag_records{command="ingest"})')[0]["value"][1])


def is_firing(prometheus: Prometheus, name: str) -> bool:
    return bool(prometheus.query(f'ALERTS{{alertname="{name}", alertstate="firing"}}'))


def test_the_alerts_tell_the_story_of_the_day(
    broker: KafkaSandbox, day: Lake, start: Callable[..., Ingestion], tmp_path: Path
):
    folder, load = tmp_path / "textfiles", Load(broker.brokers, "day", RATE, bad_share=0.002)
    folder.mkdir()
    stop_load = load.start()
    ingestion = start(day.config, SPARK_SUBMIT_OPTS="")
    ingestion.wait_for(" committed: ")
    measure_tables(day, folder)
    rules = ROOT / "monitoring" / "alerts.yml"
    with run_node_exporter(folder) as node:
        targets = {"bronze": f"127.0.0.1:{day.config.http_port}", "node": node}
        with run_prometheus(tmp_path, targets, [rules], interval="5s") as prometheus:
            begun = time.time()
            events = live_through(begun, broker, load, prometheus)
            silent = find_silent(prometheus)
            stop_load()
            assert ingestion.send(signal.SIGTERM).wait(180) == 0
            stopped = time.time()
            wait_for_alert(prometheus, "StreamGone", 120)
            gone_after = time.time() - stopped
            time.sleep(10)
            alerts = list_alerts(prometheus, begun, time.time())
            picture = Path(os.environ.get("DAY_PICTURE") or tmp_path / "monitoring.png")
            events["stop"] = (stopped - begun, time.time() - begun)
            draw_day(prometheus, begun, time.time(), events, picture)
    print(f"\n{load.sent:,} records; StreamGone after {gone_after:.0f} s; picture: {picture}")
    print(*(f"{name:20} {first / 60:5.1f} to {last / 60:5.1f} min" for name, _, first, last in alerts), sep="\n")
    assert silent == []
    check_story(alerts)
    day.ingest(available_now=True, http_port=0)
    assert_complete(replace(day, config=replace(day.config, http_port=0)), load.sent)


def live_through(
    begun: float, broker: KafkaSandbox, load: Load, prometheus: Prometheus
) -> dict[str, tuple[float, float]]:
    """The events of the day; the seconds of each."""
    sleep_until(begun, OUTAGE[0])
    broker.stop()
    sleep_until(begun, OUTAGE[1])
    broker.start()
    sleep_until(begun, DEPLOYMENT[0])
    load.bad_share = 0.3
    sleep_until(begun, DEPLOYMENT[1])
    load.bad_share = 0.002
    sleep_until(begun, BURST[0])
    while time.time() < begun + BURST[1] * MINUTE and not is_firing(prometheus, "LagGrowing"):
        # More than the ingestion can take, whatever the machine, but not so much that it needs hours to catch up.
        load.rate = RATE if read_lag(prometheus) > MAX_LAG else BURST_RATE
        time.sleep(5)
    burst_end = time.time() - begun
    load.rate = RATE
    sleep_until(begun, END)
    minutes = {"broker outage": OUTAGE, "bad deployment": DEPLOYMENT}
    seconds = {name: (first * MINUTE, last * MINUTE) for name, (first, last) in minutes.items()}
    return {**seconds, "burst": (BURST[0] * MINUTE, burst_end)}


def wait_for_alert(prometheus: Prometheus, name: str, seconds: float) -> None:
    end = time.time() + seconds
    while not is_firing(prometheus, name):
        assert time.time() < end, f"{name} does not fire within {seconds} s"
        time.sleep(2)


def check_story(alerts: list[tuple[str, str, float, float]]) -> None:
    """Each event has its alert, in order, and all but the last end; slow batches during the burst are possible."""
    story = [name for name, *_ in alerts if name != "HighProcessingTime"]
    assert story == ["KafkaDown", "InvalidRecordSpike", "LagGrowing", "StreamGone"]
    fired = {name: (first / MINUTE, last / MINUTE) for name, _, first, last in alerts}
    assert OUTAGE[0] + 1 <= fired["KafkaDown"][0] <= OUTAGE[0] + 2.5
    assert fired["KafkaDown"][1] <= OUTAGE[1] + 1.5
    assert DEPLOYMENT[0] <= fired["InvalidRecordSpike"][0] <= DEPLOYMENT[1] + 0.5
    assert fired["InvalidRecordSpike"][1] <= DEPLOYMENT[1] + 11
    assert BURST[0] + 5 <= fired["LagGrowing"][0] <= BURST[1] + 0.5
    assert fired["LagGrowing"][1] < END
