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

from bronze.errors import ConfigError, TransientError
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


@pytest.fixture
def configure(spark: SparkSession) -> Iterator[Callable[[dict[str, str]], None]]:
    """A function that gives settings of S3A to the session until the end of the test."""
    conf = spark.sparkContext._jsc.hadoopConfiguration()
    before: dict[str, str | None] = {}

    def set_all(settings: dict[str, str]) -> None:
        for name, value in settings.items():
            before.setdefault(name, conf.get(f"fs.s3a.{name}"))
            conf.set(f"fs.s3a.{name}", value)

    yield set_all
    for name, value in before.items():
        conf.unset(f"fs.s3a.{name}") if value is None else conf.set(f"fs.s3a.{name}", value)


def name_settings(bucket: str, **settings: str) -> dict[str, str]:
    return {f"bucket.{bucket}.{name.replace('_', '.')}": value for name, value in settings.items()}


@pytest.mark.parametrize(
    ("bucket", "settings", "address"),
    [
        ("hosted", {"endpoint": "https://s3.example:9000"}, "https://hosted.s3.example:9000"),
        ("pathed", {"endpoint": "s3.example", "path_style_access": "true"}, "https://s3.example"),
        ("with.dots", {"endpoint": "http://s3.example"}, "http://s3.example"),
        ("Oldname", {"endpoint": "http://s3.example"}, "http://s3.example"),
        ("numbered", {"endpoint": "http://127.0.0.1:9000"}, "http://127.0.0.1:9000"),
        ("colons", {"endpoint": "http://[::1]:9000"}, "http://[::1]:9000"),
        ("regional", {"endpoint": "", "endpoint_region": "eu-west-1"}, "https://regional.s3.eu-west-1.amazonaws.com"),
        (
            "chinese",
            {"endpoint": "", "endpoint_region": "cn-north-1"},
            "https://chinese.s3.cn-north-1.amazonaws.com.cn",
        ),
    ],
)
def test_a_bucket_is_named_in_the_host_unless_it_must_or_cannot_be(
    configure: Callable[[dict[str, str]], None], bucket: str, settings: dict[str, str], address: str
):
    configure(name_settings(bucket, **{"path_style_access": "false"} | settings))
    options = find_storage(f"s3://{bucket}/bronze").options or {}
    assert options["AWS_ENDPOINT_URL_S3"] == address
    assert options["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"] == str(f"//{bucket}." in address).lower()


def test_tables_are_reached_through_a_proxy_in_a_bucket_that_the_host_names(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], s3: S3Sandbox, tmp_path: Path
):
    topic.produce(make_events(20) + BAD)
    with run_proxy(s3.port) as proxy:
        settings = {"endpoint": f"http://{DOMAIN}", "endpoint.region": "us-east-1", "path.style.access": "false"}
        settings |= {"proxy.host": HOST, "proxy.port": str(proxy.port)}
        settings |= {"proxy.username": "user", "proxy.password": "p:c4nary@"}
        lines = [f"spark.hadoop.fs.s3a.{name} {value}" for name, value in settings.items()]
        (tmp_path / "spark-defaults.conf").write_text("\n".join(lines))
        ingestion = start(lake.config, SPARK_CONF_DIR=str(tmp_path), AWS_ENDPOINT_URL="")
        assert ingestion.wait(LONG) == 0, ingestion.log[-3000:]
    assert f"Basic {base64.b64encode(b'user:p:c4nary@').decode()}" in proxy.logins
    assert "Using the direct writer" in ingestion.log and "c4nary" not in ingestion.log
    assert_complete(lake, 20 + len(BAD))


def test_a_proxy_that_does_not_answer_is_named(lake: Lake, configure: Callable[[dict[str, str]], None]):
    port = find_free_port()
    configure(name_settings("proxied", endpoint="http://s3.example", proxy_host=HOST, proxy_port=str(port)))
    with pytest.raises(
        TransientError, match=f"http://s3.example through the proxy http://{HOST}:{port} does not answer"
    ):
        lake.ingest(output_path="s3://proxied/bronze")


def test_a_context_of_encryption_is_left_to_spark(
    topic: Topic, lake: Lake, s3: S3Sandbox, configure: Callable[[dict[str, str]], None]
):
    s3.create_bucket("context")
    configure(name_settings("context", encryption_context="a=b"))
    topic.produce(make_events(1))
    with pytest.raises(ConfigError, match="fs.s3a.encryption.context is set for s3a://context/bronze"):
        lake.ingest(output_path="s3://context/bronze", writer="direct")


def list_keys(bucket: str) -> list[str]:
    found = boto3.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
    keys = [entry["Key"] for entry in found if entry["Size"]]
    assert {key.rpartition(".")[2] for key in keys} == {"json", "parquet"}
    return keys


@pytest.fixture
def bucket(topic: Topic, s3: S3Sandbox) -> str:
    name = f"sealed-{topic.name}"
    s3.create_bucket(name)
    return name


def ingest_sealed(topic: Topic, lake: Lake, bucket: str) -> None:
    lake = replace(lake, config=replace(lake.config, output_path=f"s3://{bucket}/t"))
    for number in range(2):
        topic.produce(make_events(20, first=20 * number))
        lake.ingest(writer="direct")
    assert_complete(lake, 40)


@pytest.mark.parametrize(
    ("settings", "algorithm", "key"),
    [
        ({"encryption_algorithm": "AES256"}, "AES256", None),
        ({"encryption_algorithm": "SSE-KMS", "encryption_key": "lake-key"}, "aws:kms", "lake-key"),
    ],
)
def test_files_and_commits_are_encrypted_by_the_server(
    topic: Topic,
    lake: Lake,
    bucket: str,
    configure: Callable[[dict[str, str]], None],
    settings: dict[str, str],
    algorithm: str,
    key: str | None,
):
    configure(name_settings(bucket, **settings))
    ingest_sealed(topic, lake, bucket)
    heads = [boto3.client("s3").head_object(Bucket=bucket, Key=name) for name in list_keys(bucket)]
    assert {(head.get("ServerSideEncryption"), head.get("SSEKMSKeyId")) for head in heads} == {(algorithm, key)}


def test_files_and_commits_cannot_be_read_without_the_key(
    topic: Topic, lake: Lake, bucket: str, configure: Callable[[dict[str, str]], None]
):
    key = base64.b64encode(os.urandom(32)).decode()
    configure(name_settings(bucket, encryption_algorithm="SSE-C", encryption_key=key))
    ingest_sealed(topic, lake, bucket)
    for name in list_keys(bucket):
        with pytest.raises(ClientError, match="Server Side Encryption"):
            boto3.client("s3").get_object(Bucket=bucket, Key=name)


@pytest.fixture
def settled(
    topic: Topic,
    spark: SparkSession,
    s3: S3Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    configure: Callable[[dict[str, str]], None],
) -> Lake:
    """A lake in a bucket whose settings are right, while the environment and those of all buckets are wrong."""
    s3.create_bucket("settled")
    right = {"endpoint": s3.endpoint, "endpoint.region": "eu-north-1", "access.key": OTHER_KEY}
    wrong = {"endpoint": f"http://{HOST}:{find_free_port()}", "endpoint.region": "us-west-2", "access.key": "wrong"}
    names = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3")
    for name, value in zip(names, [*wrong.values(), "wrong", wrong["endpoint"]], strict=True):
        monkeypatch.setenv(name, value)
    configure(wrong | {"secret.key": "wrong"})
    configure({f"bucket.settled.{name}": value for name, value in (right | {"secret.key": SECRET_KEY}).items()})
    return make_lake(topic, spark, "s3://settled")


def test_the_settings_of_a_bucket_replace_those_of_all_buckets(topic: Topic, settled: Lake, s3: S3Sandbox):
    topic.produce(make_events(20) + BAD)
    settled.ingest(writer="direct")
    options = find_storage(settled.config.output_path).options or {}
    used = ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    assert [options[name] for name in used] == [s3.endpoint, "eu-north-1", OTHER_KEY, SECRET_KEY]
    assert_complete(settled, 20 + len(BAD))
