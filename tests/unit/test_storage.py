"""Places in object stores: one spelling, one configuration for all clients, and no secret in a text."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bronze.config import IngestConfig, MaintainConfig
from bronze.errors import ConfigError, InvalidOptionError, TransientError
from bronze.parsing import find_object_store, is_s3, normalize_uri
from bronze.runtime.session import list_s3_settings
from bronze.runtime.spark_errors import explain_failure
from bronze.storage import Storage, _open_store

S3 = frozenset(
    {
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9000",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "the-secret",
        "AWS_SESSION_TOKEN": "the-token",
        "allow_http": "true",
    }.items()
)
AZURE = frozenset({"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_ACCOUNT_KEY": "YS1zZWNyZXQ="}.items())


@pytest.mark.parametrize(
    "path",
    ["s3://b/t", "s3a://b/t", "s3n://b/t", "S3://b/t", "s3://b/t/", "s3://b//t", "s3://b/x/../t", "s3a://b/./t//"],
)
def test_a_place_in_s3_has_one_spelling(path: str):
    assert normalize_uri(path) == "s3a://b/t"
    assert is_s3(path)


def test_a_place_in_azure_keeps_its_scheme():
    assert normalize_uri("abfs://c@a.dfs.core.windows.net//x/../t/") == "abfs://c@a.dfs.core.windows.net/t"
    assert find_object_store("abfss://c@a.dfs.core.windows.net/t") == "azure"


@pytest.mark.parametrize("path", ["data/t", "/data/t/", "file:/data/../t", "hdfs://nn/t", "s3/b/t", "data/s3://b"])
def test_other_paths_stay_as_they_are(path: str):
    assert normalize_uri(path) == path
    assert not is_s3(path)


def test_a_configuration_has_the_one_spelling():
    config = MaintainConfig(output_path="s3://b/x/../t/", dlq_path="data/dlq")
    assert (config.output_path, config.dlq_path, config.object_stores) == ("s3a://b/t", "data/dlq", {"s3"})
    assert not MaintainConfig(output_path="data/t").object_stores


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3://b/t", "s3a://b/t"),
        ("s3://b/t", "s3n://b/x/../t/dlq"),
        ("hdfs://nn/x/../t", "hdfs://nn/t/"),
        ("s3a://b", "s3://b/t"),
        ("abfss://c@a.dfs.core.windows.net/t", "abfs://c@a.blob.core.windows.net/x/../t/dlq"),
    ],
)
def test_tables_at_one_place_are_refused_in_any_spelling(one: str, other: str):
    with pytest.raises(InvalidOptionError, match="a path outside --(output|dlq)-path"):
        MaintainConfig(output_path=one, dlq_path=other)


def test_tables_in_different_buckets_are_different():
    assert MaintainConfig(output_path="s3://one/t", dlq_path="s3://other/t").object_stores == {"s3"}


@pytest.mark.parametrize("path", ["s3://b/a%20b", "s3://b/a?b", "s3a://b/a#b", "abfss://c@a/a#b"])
def test_characters_that_a_client_reads_differently_are_refused_in_an_object_store(path: str):
    with pytest.raises(InvalidOptionError, match=r"without percent escapes.*, \? and #"):
        MaintainConfig(output_path=path)


def test_a_checkpoint_in_s3_needs_s3_too():
    paths = {"output_path": "data/t", "checkpoint_path": "s3://b/c"}
    assert IngestConfig(kafka_brokers="b:9092", **paths).object_stores == {"s3"}


def test_a_place_in_azure_is_reached_with_the_key_of_its_account():
    place = Storage("abfss://c@a.dfs.core.windows.net/t", AZURE)
    assert place.is_direct
    assert place.options == dict(AZURE)
    assert _open_store(place).prefix == "t"


def test_no_text_of_a_place_has_its_secrets():
    text = f"{Storage('s3a://b/t', S3)!r} {Storage('abfss://c@a.dfs.core.windows.net/t', AZURE)!r}"
    assert not any(secret in text for secret in ("the-secret", "the-token", "'key'", "YS1zZWNyZXQ="))


def test_deltalake_gets_the_same_settings():
    place = Storage("s3a://b/t", S3)
    assert place.options == dict(S3)
    assert _open_store(place).client_options == {"allow_http": "true", "timeout": "1m"}


def test_a_local_place_needs_no_options():
    place = Storage("/data/t")
    assert (place.options, place.is_local, place.is_direct) == (None, True, True)


def test_a_place_without_settings_is_reached_through_spark():
    place = Storage("hdfs://nn/t")
    assert (place.options, place.is_local, place.is_direct) == (None, False, False)


def test_a_local_place_has_files(tmp_path: Path):
    place = Storage(str(tmp_path))
    place.write("day=1/a", memoryview(b"abc"))
    assert (place.read("day=1/a"), place.read("day=1/b")) == (b"abc", None)
    assert (place.list_names("day=1"), place.list_names("day=2")) == (["a"], [])
    assert place.measure(["day=1/a", "day=1", "b"]) == [3, None, None]
    assert Storage(str(tmp_path / "day=1" / "a")).is_file and not place.is_file


@pytest.fixture
def answer() -> Iterator[Callable[[int], Storage]]:
    """A function that gives a place in S3 whose server answers each request with a status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(server.status)

        def log_message(self, *arguments: object) -> None:
            pass

        do_PUT = do_HEAD = do_GET  # noqa: N815

    class Server(ThreadingHTTPServer):
        status = 200

    server = Server(("127.0.0.1", 0), Handler)

    def make(status: int) -> Storage:
        server.status = status
        changed = dict(S3) | {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}"}
        return Storage("s3a://b/t", frozenset(changed.items()))

    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield make
    server.shutdown()
    server.server_close()


def test_a_file_that_the_server_does_not_know_is_absent(answer: Callable[[int], Storage]):
    place = answer(404)
    assert (place.read("x"), place.measure(["x"]), place.is_file) == (None, [None], False)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("call", [lambda place: place.read("x"), lambda place: place.write("x", memoryview(b"x"))])
def test_a_refusal_is_an_error_that_time_does_not_cure(
    answer: Callable[[int], Storage], call: Callable[[Storage], object], status: int
):
    with pytest.raises(OSError, match=str(status)) as caught:
        call(answer(status))
    error = explain_failure(caught.value, "s3a://b/t")
    assert isinstance(error, ConfigError) and "the object store refuses the credentials" in str(error)
    assert "Debug source" not in str(caught.value) and "the-secret" not in str(error)


def test_a_server_that_is_gone_is_asked_again_later():
    place = Storage("s3a://b/t", frozenset((dict(S3) | {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}).items()))
    with pytest.raises(OSError, match="error sending request") as caught:
        place.open("x")
    assert isinstance(explain_failure(caught.value, "s3a://b/t"), TransientError)


def test_a_bucket_is_not_a_file(answer: Callable[[int], Storage]):
    assert not Storage("s3a://b", answer(200).settings).is_file


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {}),
        ({"AWS_REGION": "r"}, {"endpoint.region": "r"}),
        ({"AWS_DEFAULT_REGION": "r"}, {"endpoint.region": "r"}),
        ({"AWS_ENDPOINT_URL": "http://h:1"}, {"endpoint": "http://h:1", "path.style.access": "true"}),
        (
            {"AWS_ENDPOINT_URL": "http://h:1", "AWS_ENDPOINT_URL_S3": "http://h:2"},
            {"endpoint": "http://h:2", "path.style.access": "true"},
        ),
    ],
)
def test_a_local_session_reads_the_variables_of_aws(environment: dict[str, str], expected: dict[str, str]):
    prefix = "spark.hadoop.fs.s3a."
    settings = list_s3_settings(environment)
    found = {k.removeprefix(prefix): v for k, v in settings.items() if k.startswith(prefix)}
    assert found == expected | {"input.stream.type": "classic"}
    assert settings["spark.delta.logStore.s3a.impl"] == "bronze.ConditionalLogStore"
