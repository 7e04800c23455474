"""Settings of S3A that deltalake and obstore follow."""

import base64
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from pyspark.sql import SparkSession

from bronze.runtime.object_store import find_storage
from sandbox.s3 import DOMAIN, OTHER_KEY, SECRET_KEY, S3Sandbox
from sandbox.system import HOST, find_free_port
from tests.support.audit import assert_complete
from tests.support.events import BAD, make_events
from tests.support.ingestion import Ingestion
from tests.support.kills import LONG
from tests.support.lake import Lake
from tests.support.object_store import make_lake
from tests.support.s3_proxy import run_proxy
from tests.support.topic import Topic


def set_for_bucket(lake: Lake, bucket: str, **settings: str) -> None:
    conf = lake.spark.sparkContext._jsc.hadoopConfiguration()
    for name, value in settings.items():
        conf.set(f"fs.s3a.bucket.{bucket}.{name.replace('_', '.')}", value)


@pytest.mark.parametrize(
    ("bucket", "settings", "address"),
    [
        ("hosted", {"endpoint": "https://s3.example:9000"}, "https://hosted.s3.example:9000"),
        ("pathed", {"endpoint": "s3.example", "path_style_access": "true"}, "https://s3.example"),
        ("with.dots", {"endpoint": "http://s3.example"}, "http://s3.example"),
        ("numbered", {"endpoint": "http://127.0.0.1:9000"}, "http://127.0.0.1:9000"),
        ("regional", {"endpoint": "", "endpoint_region": "eu-west-1"}, "https://regional.s3.eu-west-1.amazonaws.com"),
        (
            "chinese",
            {"endpoint": "", "endpoint_region": "cn-north-1"},
            "https://chinese.s3.cn-north-1.amazonaws.com.cn",
        ),
    ],
)
def test_a_bucket_is_in_the_host_where_s3a_has_it_there(
    lake: Lake, bucket: str, settings: dict[str, str], address: str
):
    set_for_bucket(lake, bucket, **{"path_style_access": "false"} | settings)
    assert (find_storage(f"s3://{bucket}/bronze").options or {})["AWS_ENDPOINT_URL"] == address


def test_tables_are_reached_through_a_proxy_in_a_bucket_that_the_host_names(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], s3: S3Sandbox, tmp_path: Path
):
    topic.produce(make_events(20) + BAD)
    with run_proxy(s3.port) as proxy:
        settings = {"endpoint": f"http://{DOMAIN}", "endpoint.region": "us-east-1", "path.style.access": "false"}
        settings |= {"proxy.host": HOST, "proxy.port": str(proxy.port)}
        lines = [f"spark.hadoop.fs.s3a.{name} {value}" for name, value in settings.items()]
        (tmp_path / "spark-defaults.conf").write_text("\n".join(lines))
        ingestion = start(lake.config, SPARK_CONF_DIR=str(tmp_path), AWS_ENDPOINT_URL="")
        assert ingestion.wait(LONG) == 0, ingestion.log[-3000:]
    assert "Using the direct writer" in ingestion.log
    assert_complete(lake, 20 + len(BAD))


def list_keys(bucket: str) -> list[str]:
    found = boto3.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
    keys = [entry["Key"] for entry in found if entry["Size"]]
    assert {key.rpartition(".")[2] for key in keys} == {"json", "parquet"}
    return keys


def ingest_sealed(topic: Topic, lake: Lake, s3: S3Sandbox, **encryption: str) -> str:
    bucket = f"sealed-{topic.name}"
    s3.create_bucket(bucket)
    set_for_bucket(lake, bucket, **encryption)
    lake = replace(lake, config=replace(lake.config, output_path=f"s3://{bucket}/t"))
    for number in range(2):
        topic.produce(make_events(20, first=20 * number))
        lake.ingest()
    assert_complete(lake, 40)
    return bucket


def test_files_and_commits_are_encrypted_by_the_server(topic: Topic, lake: Lake, s3: S3Sandbox):
    bucket = ingest_sealed(topic, lake, s3, encryption_algorithm="AES256")
    heads = [boto3.client("s3").head_object(Bucket=bucket, Key=key) for key in list_keys(bucket)]
    assert {head.get("ServerSideEncryption") for head in heads} == {"AES256"}


def test_files_and_commits_cannot_be_read_without_the_key(topic: Topic, lake: Lake, s3: S3Sandbox):
    key = base64.b64encode(os.urandom(32)).decode()
    bucket = ingest_sealed(topic, lake, s3, encryption_algorithm="SSE-C", encryption_key=key)
    for name in list_keys(bucket):
        with pytest.raises(ClientError, match="Server Side Encryption"):
            boto3.client("s3").get_object(Bucket=bucket, Key=name)


@pytest.fixture
def settled(topic: Topic, spark: SparkSession, s3: S3Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """A lake in a bucket whose settings are right, while the environment and those of all buckets are wrong."""
    s3.create_bucket("settled")
    right = {"endpoint": s3.endpoint, "endpoint.region": "eu-north-1", "access.key": OTHER_KEY}
    wrong = {"endpoint": f"http://{HOST}:{find_free_port()}", "endpoint.region": "us-west-2", "access.key": "wrong"}
    settings = {f"fs.s3a.bucket.settled.{name}": value for name, value in (right | {"secret.key": SECRET_KEY}).items()}
    settings |= {f"fs.s3a.{name}": value for name, value in (wrong | {"secret.key": "wrong"}).items()}
    names = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for name, value in zip(names, [*wrong.values(), "wrong"], strict=True):
        monkeypatch.setenv(name, value)
    conf = spark.sparkContext._jsc.hadoopConfiguration()
    before = {name: conf.get(name) for name in settings}
    for name, value in settings.items():
        conf.set(name, value)
    yield make_lake(topic, spark, "s3://settled")
    for name, value in before.items():
        conf.unset(name) if value is None else conf.set(name, value)


def test_the_settings_of_a_bucket_replace_those_of_all_buckets(topic: Topic, settled: Lake, s3: S3Sandbox):
    topic.produce(make_events(20) + BAD)
    settled.ingest(writer="direct")
    options = find_storage(settled.config.output_path).options or {}
    used = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    assert [options[name] for name in used] == [s3.endpoint, "eu-north-1", OTHER_KEY, SECRET_KEY]
    assert_complete(settled, 20 + len(BAD))
