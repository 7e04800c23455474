"""What a user reads if S3 cannot be used: the option, the place, and what to do."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow.fs import FileSelector

from bronze.config import InspectConfig
from bronze.errors import BronzeError, ConfigError, ExitCode
from bronze.notebook import dlq
from sandbox.s3 import ACCESS_KEY, READER_KEY, SECRET_KEY, S3Sandbox
from sandbox.system import find_free_port
from tests.support.audit import audit
from tests.support.backfill import run_backfill
from tests.support.events import make_events
from tests.support.ingestion import Ingestion
from tests.support.kills import LONG
from tests.support.lake import Lake, open_table
from tests.support.topic import Topic


def end(start: Callable[..., Ingestion], lake: Lake, **environment: str) -> tuple[int, str]:
    ingestion = start(lake.config, **environment)
    return ingestion.wait(LONG), ingestion.log.strip().splitlines()[-1]


def test_a_bucket_that_does_not_exist(lake: Lake):
    with pytest.raises(ConfigError, match="--output-path: .*there is no bucket 'missing'"):
        lake.ingest(output_path="s3://missing/bronze")


def test_the_dlq_s_notebook_and_a_bucket_that_does_not_exist(lake: Lake):
    config = lake.configure(InspectConfig, dlq_path="s3://missing/dlq")
    with pytest.raises(ConfigError, match="--dlq-path: .*there is no bucket 'missing'"):
        dlq.read_rows(lake.spark, config)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key(lake: Lake, start: Callable[..., Ingestion], name: str):
    ingestion = start(lake.config, **{name: "c4nary"})
    assert ingestion.wait(LONG) == ExitCode.CONFIG
    assert "--output-path" in ingestion.log and "refuses the credentials" in ingestion.log
    assert SECRET_KEY not in ingestion.log and "c4nary" not in ingestion.log


def test_a_role_that_may_only_read(topic: Topic, lake: Lake, start: Callable[..., Ingestion]):
    topic.produce(make_events(10))
    lake.ingest()
    topic.produce(make_events(10, first=10))
    code, message = end(start, lake, AWS_ACCESS_KEY_ID=READER_KEY)
    assert code == ExitCode.CONFIG
    assert f"the object store refuses the credentials for {lake.config.checkpoint_path}: " in message
    assert "Access Denied" in message
    assert lake.bronze.count() == 10


def test_a_session_token_of_other_keys(lake: Lake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-other-keys")
    with pytest.raises(ConfigError, match="AWS_SESSION_TOKEN in the environment does not belong to the keys"):
        lake.ingest()


def test_encryption_by_the_client_is_refused(lake: Lake):
    conf = lake.spark.sparkContext._jsc.hadoopConfiguration()
    conf.set("fs.s3a.bucket.sealed.encryption.algorithm", "CSE-KMS")
    with pytest.raises(ConfigError, match="s3a://sealed/bronze cannot be used with fs.s3a.encryption.algorithm"):
        lake.ingest(output_path="s3://sealed/bronze")


def test_no_key(lake: Lake, start: Callable[..., Ingestion]):
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    code, message = end(start, lake, **nothing)
    assert code == ExitCode.CONFIG
    assert "no credentials" in message


def test_an_endpoint_that_does_not_answer_ends_the_run_soon(lake: Lake, start: Callable[..., Ingestion]):
    endpoint = f"http://127.0.0.1:{find_free_port()}"
    started = time.monotonic()
    code, message = end(start, lake, AWS_ENDPOINT_URL=endpoint)
    assert code == ExitCode.FAILED
    assert endpoint in message and "--output-path" in message
    assert time.monotonic() - started < 60  # S3A's own retries take minutes


def test_a_data_file_that_is_gone(topic: Topic, lake: Lake, s3: S3Sandbox):
    topic.produce(make_events(10))
    lake.ingest()
    for uri in open_table(lake.config.output_path).file_uris():
        s3.file_system.delete_file(uri.partition("://")[2])
    for command in (audit, run_backfill):
        with pytest.raises(BronzeError, match=r"\.parquet is missing, although its table's log refers to it") as error:
            command(lake)
        assert error.value.exit_code == ExitCode.CONFIG


def test_output_and_dlq_at_one_place_are_refused(lake: Lake):
    path = lake.config.output_path.replace("s3a://", "s3://")
    with pytest.raises(ConfigError, match="--dlq-path"):
        replace(lake.config, dlq_path=f"{path}/../bronze/dlq")


def test_no_notebook_log_plan_table_or_checkpoint_has_the_secret(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], s3: S3Sandbox, tmp_path: Path
):
    """The keys are settings of Spark, which its event log lists next to the plans."""
    topic.produce(make_events(20))
    root = lake.config.output_path.removeprefix("s3a://").rpartition("/")[0]
    settings = {"hadoop.fs.s3a.access.key": ACCESS_KEY, "hadoop.fs.s3a.secret.key": SECRET_KEY}
    settings |= {"eventLog.enabled": "true", "eventLog.compress": "false", "eventLog.dir": f"file:{tmp_path}"}
    submitted = [word for name, value in settings.items() for word in ("--conf", f"spark.{name}={value}")]
    names = ("kafka_brokers", "kafka_topic", "output_path", "dlq_path", "checkpoint_path")
    parameters = {"use_sandbox": "false"} | {name: getattr(lake.config, name) for name in names}
    command = [sys.executable, "-m", "bronze.notebook.run", "notebooks/ingestion.ipynb"]
    command += ["-o", f"s3://{root}/executed.ipynb", *(word for pair in parameters.items() for word in ("-p", *pair))]
    ingestion = start(None, *command, PYSPARK_SUBMIT_ARGS=" ".join([*submitted, "pyspark-shell"]))
    assert ingestion.wait(LONG) == 0, ingestion.log[-3000:]
    found = s3.file_system.get_file_info(FileSelector(root, recursive=True))
    contents = [s3.file_system.open_input_stream(info.path).read() for info in found if info.is_file]
    events = [file.read_bytes() for file in tmp_path.rglob("events_*")]
    assert len(contents) > 5 and b"MapInArrow" in b"".join(events)
    written = [*contents, *events, ingestion.log.encode()]
    assert [content for content in written if SECRET_KEY.encode() in content] == []
