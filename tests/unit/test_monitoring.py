"""Metrics, health, background calls and lineage of a run, without Kafka or Spark."""

import re
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bronze.config import IngestConfig
from bronze.errors import ConfigError, DataLossError, InvalidOptionError, TooManyInvalidError
from bronze.monitor.run import Monitor
from bronze.observe import metrics as metrics_module
from bronze.observe.background import Background
from bronze.observe.health import Health
from bronze.observe.lineage import name_dataset
from bronze.observe.metrics import METRICS, Metrics
from bronze.observe.run_metrics import RunMetrics, find_cause, find_exit_code
from bronze.observe.summary import Batch
from bronze.runtime.spark_errors import lost_kafka_error, lost_storage_error
from bronze.runtime.stats import BatchStats
from bronze.transforms import Counts
from tests.support.pages import read_page
from tests.support.waiting import wait_until

CHECKPOINT = "/lake/checkpoint"
BATCH = Batch(
    7,
    Counts({0: 60, 1: 40}, {"tombstone": 3, "empty": 2}, present=10, newest=1_700_000_000_000_000),
    4.5,
    BatchStats({"write": 4.0, "commit": 0.2}, {"bronze": 2, "dlq": 1}, {"bronze": 2_000, "dlq": 500}),
    {0: (0, 60), 1: (0, 40)},
)


@pytest.fixture
def run() -> RunMetrics:
    return RunMetrics(Metrics("ingest", "t"), "4.2.0", CHECKPOINT)


def read(run: RunMetrics, name: str, **labels: str) -> float | None:
    return run.metrics.registry.get_sample_value(name, {"command": "ingest", "topic": "t", **labels})


def test_a_batch_is_counted_by_outcome_error_type_phase_and_table(run: RunMetrics):
    run.on_batch(BATCH)
    run.on_batch(BATCH)
    outcomes = [read(run, "bronze_records_total", outcome=name) for name in ("valid", "invalid", "present")]
    assert outcomes == [170, 10, 20]
    assert read(run, "bronze_invalid_records_total", error_type="tombstone") == 6
    assert read(run, "bronze_batch_duration_seconds_sum", phase="write") == 8
    assert read(run, "bronze_batch_duration_seconds_bucket", phase="total", le="5.0") == 2
    assert read(run, "bronze_written_bytes_total", table="dlq") == 1_000
    assert read(run, "bronze_committed_offset", partition="1") == 40
    assert read(run, "bronze_newest_record_timestamp_seconds") == 1_700_000_000


def test_counters_exist_before_their_first_increase(run: RunMetrics):
    assert read(run, "bronze_invalid_records_total", error_type="malformed_json") == 0
    assert read(run, "bronze_query_failures_total", cause="checkpoint") == 0
    assert read(run, "bronze_batch_duration_seconds_count", phase="overlap") == 0


def test_a_batch_without_records_does_not_move_the_newest_record(run: RunMetrics):
    run.on_batch(BATCH)
    run.on_batch(Batch(8, Counts(), 0.1))
    assert read(run, "bronze_newest_record_timestamp_seconds") == 1_700_000_000


def test_the_end_of_a_run_has_its_exit_code_and_no_query(run: RunMetrics):
    run.metrics.set("bronze_query_up", 1)
    run.on_end(TooManyInvalidError("too many"))
    assert read(run, "bronze_run_exit_code") == 4
    assert read(run, "bronze_query_up") == 0
    assert read(run, "bronze_query_failures_total", cause="invalid_records") == 1


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (lost_kafka_error("TimeoutException: no"), "kafka"),
        (lost_storage_error("SlowDown"), "storage"),
        (lost_storage_error(f"Stale file handle: {CHECKPOINT}/offsets/7"), "checkpoint"),
        (DataLossError("gone"), "data_loss"),
        (ConfigError("wrong"), "configuration"),
        (ValueError("?"), "other"),
    ],
)
def test_a_failure_has_one_of_few_causes(error: Exception, cause: str):
    assert find_cause(error, CHECKPOINT) == cause


@pytest.mark.parametrize(("error", "code"), [(None, 0), (KeyboardInterrupt(), 130), (ValueError(), 1)])
def test_an_end_without_an_error_of_ours_has_an_exit_code_too(error: BaseException | None, code: int):
    assert find_exit_code(error) == code


def test_the_page_of_metrics_is_that_of_the_code():
    pattern = r"^\| `(bronze_\w+)` \| (\w+) \| [^|]+ \| ([^|]+) \| (.+) \|$"
    rows = re.findall(pattern, read_page("docs/metrics.md"), re.MULTILINE)
    assert {name: (kind, re.findall(r"`(\w+)`", labels), text) for name, kind, labels, text in rows} == {
        name: (metric.kind, list(metric.labels), metric.help) for name, metric in METRICS.items()
    }


def test_without_prometheus_client_a_file_is_refused_with_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    metrics_module.import_client.cache_clear()
    with pytest.raises(ConfigError, match=r"prometheus-client; pip install prometheus-client"):
        metrics_module.check_client("/tmp/a.prom")
    metrics_module.check_client("")


def test_a_run_is_healthy_until_something_is_wrong():
    health = Health(patience=900)
    assert health.list_reasons() == []
    health.failure = "Kafka did not answer"
    assert health.list_reasons() == ["the query does not run: Kafka did not answer"]
    health.note_progress()
    assert health.list_reasons() == []


def test_a_query_without_lag_is_never_stuck_and_one_with_lag_after_its_patience():
    health = Health(patience=0)
    health.note_lag(0)
    assert health.list_reasons() == []
    health.note_lag(1_234)
    (reason,) = health.list_reasons()
    assert reason.endswith("and 1,234 records wait")


def test_a_silent_kafka_is_unhealthy_from_its_first_silence():
    health = Health()
    health.note_silence("TimeoutException: no")
    since = health.silent_since
    health.note_silence("TimeoutException: no")
    assert health.silent_since == since
    assert health.describe()["status"] == "unhealthy"
    health.note_lag(5)
    assert health.describe()["status"] == "ok"


def list_warnings(log: pytest.LogCaptureFixture) -> list[str]:
    """Each record once, although two loggers may hand it to the handler."""
    return [record.getMessage() for record in {id(record): record for record in log.records}.values()]


def test_a_call_that_hangs_holds_nobody_up_and_the_newest_replaces_those_that_wait():
    made, released = [], threading.Event()
    calls = Background("test", waiting=1)
    started = time.monotonic()
    for call in (lambda: released.wait(10), lambda: made.append("old"), lambda: made.append("new")):
        calls.submit(call)
        time.sleep(0.05)
    assert time.monotonic() - started < 5
    released.set()
    calls.close(10)
    assert made == ["new"]


def test_calls_that_fail_warn_once_and_the_others_are_made(bronze_log: pytest.LogCaptureFixture):
    made: list[int] = []
    calls = Background("send", waiting=10)
    for value in (0, 1, 0, 1):
        calls.submit(lambda value=value: made.append(1 // value))
    calls.close(10)
    assert made == [1, 1]
    assert list_warnings(bronze_log) == ["cannot send: integer division or modulo by zero"]


def test_a_close_gives_up_on_a_call_that_hangs(bronze_log: pytest.LogCaptureFixture):
    calls = Background("send", waiting=1)
    released = threading.Event()
    calls.submit(lambda: released.wait(30))
    calls.close(0.1)
    released.set()
    assert list_warnings(bronze_log) == ["cannot send: it did not end within 0.1 s"]


def test_a_part_that_fails_fails_neither_the_run_nor_the_other_parts(bronze_log: pytest.LogCaptureFixture):
    seen: list[Any] = []

    def fail(*_: object) -> None:
        raise ValueError("bad")

    broken = SimpleNamespace(on_start=fail, on_batch=fail, on_failure=fail, on_end=fail)
    sound = SimpleNamespace(on_start=lambda: seen.append("start"), on_batch=seen.append, on_end=seen.append)
    with Monitor([broken, sound], {}) as monitor:
        monitor.on_batch(BATCH)
    assert seen == ["start", BATCH, None]
    assert bronze_log.messages[0] == "monitoring failed, the ingestion continues: ValueError: bad"


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("file:/lake/bronze", ("file", "/lake/bronze")),
        ("/lake/bronze", ("file", "/lake/bronze")),
        ("s3a://lake/bronze/api", ("s3://lake", "bronze/api")),
        ("hdfs://nn:8020/lake/bronze", ("hdfs://nn:8020", "/lake/bronze")),
    ],
)
def test_a_table_has_the_name_that_openlineage_gives_it(path: str, named: tuple[str, str]):
    assert name_dataset(path) == named


GIVEN = {"kafka_brokers": "a:1", "checkpoint_path": "/lake/checkpoint", "output_path": "/lake/bronze"}


@pytest.mark.parametrize("url", ["marquez:5000", "ftp://a", "http://user:s3cret@a:5000", "http://a?key=s3cret"])
def test_an_address_for_lineage_has_a_scheme_and_no_credentials(url: str):
    with pytest.raises(InvalidOptionError, match="^--lineage-url: expected an address without credentials") as caught:
        IngestConfig(**GIVEN, lineage_url=url)
    assert "s3cret" not in str(caught.value)


def test_a_metrics_file_is_one_that_node_exporter_reads(tmp_path: Path):
    assert IngestConfig(**GIVEN, metrics_file=f"{tmp_path}/a.prom").metrics_file
    for file in (f"{tmp_path}/a.txt", f"{tmp_path}/missing/a.prom"):
        with pytest.raises(InvalidOptionError, match="--metrics-file: expected a file that ends in .prom"):
            IngestConfig(**GIVEN, metrics_file=file)


def test_the_thread_of_a_background_call_does_not_keep_the_process_alive():
    calls, released = Background("send", waiting=1), threading.Event()
    calls.submit(lambda: released.wait(5))
    wait_until(lambda: any(thread.name == "send" and thread.daemon for thread in threading.enumerate()), 5)
    released.set()
    calls.close(5)
