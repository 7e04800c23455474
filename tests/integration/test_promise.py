"""The whole promise on one topic: whatever happened to it and to the ingestion, the audit says complete.

Bad records, transactions committed and aborted, a part that Kafka deleted; a crash, a restart from scratch, a backfill
beside a live stream, a replay of the DLQ. Then one row is taken away, and another is added twice: both are named.
"""

import shutil
import signal
import subprocess
import sys
import time

from bronze import backfill, replay
from bronze.operations import BackfillConfig, ReplayConfig
from bronze.storage_errors import CheckpointMissing
from tests.conftest import ROOT, Lake, Topic, make_events
from tests.integration.test_audit import audit, describe, list_flags, produce_transaction
from tests.integration.test_configuration import delete_records
from tests.integration.test_ingestion import BAD
from tests.integration.test_replay import wait_for_rows, wait_for_tables


def produce_history(topic: Topic, first: int) -> None:
    """Records of every kind in each partition; 28 bad ones among them."""
    for partition in range(3):
        topic.produce(make_events(50, first) + BAD, partition)
        produce_transaction(topic, make_events(5, first + 50), partition, commit=True)
        produce_transaction(topic, make_events(4, first + 55), partition, commit=False)


def start_stream(lake: Lake, *flags: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "bronze.cli",
        "ingest",
        *list_flags(lake),
        "--max-offsets-per-trigger",
        "40",
        *flags,
    ]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_the_audit_proves_the_promise_after_everything(topic: Topic, lake: Lake):
    produce_history(topic, first=0)
    crashing = start_stream(lake, "--available-now")
    wait_for_tables(lake)
    wait_for_rows(lake, 30)
    kill(crashing)
    lake.ingest()
    delete_records(topic, 1, before=20)
    shutil.rmtree(lake.config.checkpoint_path)  # restart from scratch
    produce_history(topic, first=100)
    live = start_stream(lake, "--trigger-interval", "1 second")
    given = {name: getattr(lake.config, name) for name in ("kafka_brokers", "kafka_topic", "output_path", "dlq_path")}
    backfill.run(BackfillConfig(**given, starting_offsets="earliest", max_offsets_per_trigger=30), lake.spark)
    wait_for_end(lake)
    kill(live)
    lake.ingest()
    replay.run(ReplayConfig(**{name: given[name] for name in ("kafka_topic", "output_path", "dlq_path")}), lake.spark)
    report = audit(lake)
    assert report.is_complete, report.to_text()
    assert sum(a.bronze_rows for a in report.partitions) == 2 * 3 * 55
    assert sum(a.dlq_rows for a in report.partitions) == 2 * 3 * len(BAD)
    assert sum(a.lag for a in report.partitions) == 0
    spoil(lake, "DELETE FROM {} WHERE _kafka_partition = 2 AND _kafka_offset = 7")
    assert describe(audit(lake)) == {2: {"missing": [(7, 7)]}}
    spoil(lake, "INSERT INTO {0} SELECT * FROM {0} WHERE _kafka_partition = 0 AND _kafka_offset = 9")
    assert describe(audit(lake)) == {0: {"doubled": [(9, 9)]}, 2: {"missing": [(7, 7)]}}


def spoil(lake: Lake, statement: str) -> None:
    lake.spark.sql(statement.format(f"delta.`{lake.config.output_path}`"))


def wait_for_end(lake: Lake, seconds: float = 120) -> None:
    """Until the live stream has read all that there is."""
    end = time.monotonic() + seconds
    while measure_lag(lake) != 0:
        assert time.monotonic() < end, "the live stream does not come to its end"
        time.sleep(1)


def measure_lag(lake: Lake) -> int | None:
    """What the stream has not read yet; None before its first batch is planned."""
    try:
        return sum(a.lag for a in audit(lake).partitions)
    except CheckpointMissing:
        return None
