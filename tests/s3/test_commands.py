"""Every command on tables and checkpoint in S3."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import boto3
import nbformat
import obstore
import pytest
from deltalake import DeltaTable
from pyarrow.fs import FileSelector

from bronze import status
from bronze.config import CheckpointConfig, CreateTablesConfig, MaintainConfig, StatusConfig
from bronze.delta.own_table import TableLog
from bronze.notebook.cells import RESULT_MIME, find_result
from bronze.notebook.run import main as run_notebook
from bronze.ops.checkpoint import inspect_checkpoint
from bronze.ops.create_tables import create_tables
from bronze.runtime.object_store import find_storage
from bronze.storage import _open_store
from sandbox.s3 import S3Sandbox
from tests.support.audit import assert_complete
from tests.support.aws_credentials import Issuer, assume_role
from tests.support.commands import list_flags
from tests.support.delta_log import append, read_anew, set_properties
from tests.support.events import BAD, make_events
from tests.support.ingestion import Ingestion
from tests.support.kills import LONG
from tests.support.lake import Lake, open_table
from tests.support.maintenance import run_maintenance
from tests.support.object_store import check_backfill, check_replay
from tests.support.s3_proxy import run_proxy
from tests.support.topic import Topic

MAINTAIN = (sys.executable, "-m", "bronze", "maintain")
EXPIRING = "software.amazon.awssdk.auth.credentials.ContainerCredentialsProvider"


def test_each_record_is_in_one_of_the_two_tables(topic: Topic, any_lake: Lake):
    topic.produce(make_events(50) + BAD)
    assert any_lake.ingest().counts.valid == 50
    topic.produce(make_events(30, first=50))
    assert any_lake.ingest().counts.total == 30
    assert_complete(any_lake, 80 + len(BAD))


def test_a_bucket_and_a_folder_with_a_marker_are_places_for_tables(topic: Topic, lake: Lake, s3: S3Sandbox):
    s3.create_bucket(topic.name)
    boto3.client("s3").put_object(Bucket="bronze", Key=f"{topic.name}/dlq/", Body=b"")
    paths = {"output_path": f"s3://{topic.name}", "dlq_path": f"s3://bronze/{topic.name}/dlq"}
    topic.produce(make_events(20) + BAD)
    lake.ingest(writer="direct", **paths)
    assert_complete(replace(lake, config=replace(lake.config, **paths)), 20 + len(BAD))


def test_the_direct_writer_is_chosen(topic: Topic, lake: Lake, bronze_log: pytest.LogCaptureFixture):
    topic.produce(make_events(5))
    lake.ingest()
    assert "Using the direct writer (no restrictions found)" in bronze_log.messages


@pytest.mark.parametrize("scheme", ["s3", "s3a", pytest.param("s3n", marks=pytest.mark.soak)])
def test_one_place_is_one_place_whatever_its_spelling(topic: Topic, lake: Lake, scheme: str):
    topic.produce(make_events(20))
    lake.ingest()
    names = ("output_path", "dlq_path", "checkpoint_path")
    other = {n: getattr(lake.config, n).replace("s3a://bronze/", f"{scheme}://bronze//x/../") + "/" for n in names}
    topic.produce(make_events(10, first=20))
    assert lake.ingest(**other).counts.total == 10
    assert_complete(replace(lake, config=replace(lake.config, **other)), 30)


def test_a_backfill_adds_what_the_stream_left_out(topic: Topic, any_lake: Lake):
    check_backfill(topic, any_lake)


def test_a_replay_appends_what_is_valid_now(topic: Topic, lake: Lake):
    check_replay(topic, lake)


def test_maintenance_compacts_and_deletes_what_no_version_needs(topic: Topic, lake: Lake, s3: S3Sandbox):
    for number in range(4):
        topic.produce(make_events(20, first=number * 20), partition=0)
        lake.ingest()
    find_storage(lake.config.output_path).write("_event_date=2026-01-31/stray.parquet", memoryview(b"PAR1"))
    set_properties(lake.spark, lake.config.output_path, delta__deletedFileRetentionDuration="interval 0 seconds")
    summary = run_maintenance(lake, optimize_after_hours=1, vacuum=True, force=True)
    assert summary.files_before > summary.files_after >= 1
    day = f"{lake.config.output_path.removeprefix('s3a://')}/_event_date=2026-01-31"
    found = s3.file_system.get_file_info(FileSelector(day, recursive=True))
    live = [uri.removeprefix("s3a://") for uri in open_table(lake.config.output_path).file_uris()]
    assert sorted(info.path for info in found if info.is_file) == sorted(live)
    topic.produce(make_events(20, first=80), partition=0)
    lake.ingest()
    assert_complete(lake, 100)


def test_a_large_file_is_one_request(lake: Lake):
    place = find_storage(lake.config.output_path)
    place.write("large.parquet", memoryview(os.urandom(30_000_000)))
    assert place.measure(["large.parquet"]) == [30_000_000]
    tag = obstore.head(_open_store(place), "large.parquet")["e_tag"]
    assert tag and "-" not in tag  # where S3 counts the parts of a file that came in parts


def test_maintenance_deletes_the_expired_commits_before_a_checkpoint(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], s3: S3Sandbox
):
    lake = replace(lake, config=replace(lake.config, dlq_path=""))
    topic.produce(make_events(20))
    lake.ingest()
    path, place = lake.config.output_path, find_storage(lake.config.output_path)
    set_properties(lake.spark, path, delta__checkpointInterval="10")
    append(TableLog(path), 10 - open_table(path).version())
    flags = list_flags(lake.configure(MaintainConfig, optimize_after_hours=0))
    with run_proxy(s3.port) as proxy:
        proxy.aged = r"[^<]*/bronze/_delta_log/0{19}\d\.json"
        maintenance = start(None, *MAINTAIN, *flags, AWS_ENDPOINT_URL=proxy.endpoint)
        assert maintenance.wait(LONG) == 0, maintenance.log[-3000:]
    left = {f"{10:020}.json", f"{10:020}.checkpoint.parquet", "_last_checkpoint"}
    assert set(place.list_names("_delta_log")) == left
    assert read_anew(lake.spark, path) == (10, 10)
    assert_complete(lake, 20)


def test_the_status_and_the_checkpoint_are_read(topic: Topic, lake: Lake):
    topic.produce(make_events(10))
    lake.ingest()
    assert status(lake.configure(StatusConfig), lake.spark)
    assert inspect_checkpoint(lake.configure(CheckpointConfig), lake.spark)


def test_tables_are_created_once(lake: Lake):
    config = lake.configure(CreateTablesConfig, execute=True)
    create_tables(config, lake.spark)
    create_tables(config, lake.spark)
    place = find_storage(lake.config.output_path)
    assert DeltaTable(place.uri, storage_options=place.options).version() == 0


def test_a_notebook_s_executed_copy_is_in_s3(lake: Lake, tmp_path: Path, s3: S3Sandbox):
    cell = nbformat.v4.new_code_cell("from bronze.notebook.cells import record_result\nrecord_result(count=5)")
    notebook, output = tmp_path / "small.ipynb", f"{lake.config.output_path.replace('s3a', 's3')}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), notebook)
    assert run_notebook([str(notebook), "-o", output]) == 0
    executed = s3.file_system.open_input_stream(output.removeprefix("s3://")).read().decode()
    assert find_result(nbformat.reads(executed, 4).cells)[RESULT_MIME]["count"] == 5


def test_credentials_of_one_bucket_that_expire_are_renewed(topic: Topic, lake: Lake, s3: S3Sandbox, issuer: Issuer):
    conf = lake.spark.sparkContext._jsc.hadoopConfiguration()
    conf.set("fs.s3a.bucket.renewed.aws.credentials.provider", EXPIRING)
    s3.create_bucket("renewed")
    lake = replace(lake, config=replace(lake.config, output_path=f"s3://renewed/{topic.name}"))
    for number in range(2):
        issuer.keys = assume_role()
        topic.produce(make_events(10, first=10 * number))
        assert lake.ingest().counts.valid == 10
        options = find_storage(lake.config.output_path).options or {}
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        assert [options[name] for name in names] == list(issuer.keys.values())
    assert_complete(lake, 20)


def test_a_running_query_uses_renewed_credentials(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], s3: S3Sandbox, issuer: Issuer
):
    config = replace(lake.config, available_now=False, trigger_interval="1 second")
    keys = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": issuer.url}
    first, second = assume_role(), assume_role()
    steps = ((first, ""), (second, ""), (second, first["AccessKeyId"]))
    with run_proxy(s3.port) as proxy:
        ingestion = start(config, AWS_ENDPOINT_URL=proxy.endpoint, **keys)
        for number, (issuer.keys, proxy.revoked) in enumerate(steps):
            topic.produce(make_events(1, first=number))
            ingestion.wait_for(f"Batch {number}: total=1", LONG)
        assert ingestion.send(signal.SIGTERM).wait() == 0, ingestion.log[-3000:]
    assert "restart" not in ingestion.log
    assert_complete(lake, 3)


@pytest.mark.soak  # the tokens of a provider have the two tests above
def test_the_token_of_a_session_in_the_environment_is_used(topic: Topic, lake: Lake, start: Callable[..., Ingestion]):
    topic.produce(make_events(20) + BAD)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    ingestion = start(lake.config, **dict(zip(names, assume_role().values(), strict=True)))
    assert ingestion.wait(LONG) == 0, ingestion.log[-3000:]
    assert_complete(lake, 20 + len(BAD))
