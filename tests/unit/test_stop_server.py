"""The HTTP server that stops a query: where it listens, and which tokens it accepts."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bronze.config import TOKEN_VARIABLE, IngestConfig
from bronze.errors import ConfigError, InvalidOptionError
from bronze.stop import StopSwitch
from bronze.stop_http import Page, StopServer, serve_http
from tests.support.commands import list_flags, run_bronze

PATHS = {"kafka_brokers": "a:1", "checkpoint_path": "/lake/checkpoint", "output_path": "/lake/bronze"}


def make_config(**changes: Any) -> IngestConfig:
    return IngestConfig(**PATHS, **changes)


def find_port(family: socket.AddressFamily) -> int:
    with socket.socket(family) as free:
        free.bind(("localhost" if family is socket.AF_INET else "::1", 0))
        return free.getsockname()[1]


@contextmanager
def serve_application(
    config: IngestConfig, switch: StopSwitch | None = None, show: Callable[[str], Page | None] = lambda _: None
) -> Iterator[None]:
    """The server of an application that runs."""
    with serve_http(config) as server:
        assert server
        server.accept_stops((switch or StopSwitch()).request, "app-1", show)
        yield


def test_an_ipv6_address_is_listened_on(bronze_log: pytest.LogCaptureFixture):
    port = find_port(socket.AF_INET6)
    switch = StopSwitch()
    with serve_application(make_config(http_host="::1", http_port=port), switch):
        url = bronze_log.messages[0].rpartition(" ")[2]
        assert url == f"http://[::1]:{port}/api/v1/applications/app-1/stop"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST")) as answer:
            assert answer.status == 202
    assert switch.reason == "an HTTP call"


def test_a_port_that_is_taken_is_reported_before_spark_starts():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run_bronze("ingest", *list_flags(make_config(http_port=taken.getsockname()[1])))
    assert done.returncode == 2
    assert "cannot listen on 127.0.0.1" in done.stderr and "already in use" in done.stderr


def test_while_spark_starts_the_health_says_so_and_there_is_nothing_to_stop(tmp_path: Path):
    (tmp_path / "token").write_text("t0ken")
    config = make_config(http_token_file=str(tmp_path / "token"), http_port=find_port(socket.AF_INET))
    base, allowed = f"http://127.0.0.1:{config.http_port}", {"Authorization": "Bearer t0ken"}
    stop = urllib.request.Request(f"{base}/api/v1/applications//stop", method="POST", headers=allowed)
    with serve_http(config):
        with urllib.request.urlopen(f"{base}/health") as answer:
            assert json.load(answer) == {"status": "starting", "reasons": []}
        for refused in (f"{base}/metrics", stop):
            with pytest.raises(urllib.error.HTTPError, match="503"):
                urllib.request.urlopen(refused)


@pytest.mark.parametrize(
    "host", ["a..b", "127.0.0.1:80", "x" * 64 + ".com", "::ffff:1:2:3:4:5", "fe80::1%nothing", "no-such-host.invalid"]
)
def test_a_host_that_cannot_be_listened_on_is_refused(host: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "t0ken")
    with pytest.raises(ConfigError, match="^cannot listen on .*choose another --http-port or --http-host"):
        StopServer(make_config(http_host=host, http_port=1))


@pytest.mark.parametrize("host", ["[::1]", "http://a", "a b", "*", "ä.example"])
def test_what_is_no_host_is_refused_with_the_configuration(host: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "t0ken")
    with pytest.raises(InvalidOptionError, match="--http-host: expected a host name or address"):
        make_config(http_host=host)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" \n",
        b"first\nsecond\n",
        b"first\r\nsecond",
        b"t\xc3\xb6ken",
        b"\xff\xfet\0",
        b"\xef\xbb\xbft0ken",
        b"a\tb",
        b"a\0b",
        b"x" * 5000,
    ],
)
def test_a_token_that_no_call_could_send_is_refused_and_not_shown(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(
        InvalidOptionError, match="--http-token-file: expected a readable file that holds one line"
    ) as caught:
        make_config(http_token_file=str(file))
    assert caught.value.exit_code == 2
    assert not any(word in str(caught.value) for word in ("first", "second", "t0ken", "\xf6ken", "xxx", str(file)))


@pytest.mark.parametrize("token", ["first\nsecond", "t\xf6ken"])
def test_such_a_token_in_the_environment_is_refused_and_not_shown(token: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    with pytest.raises(InvalidOptionError, match=f"expected {TOKEN_VARIABLE} to be one line") as caught:
        make_config()
    assert token.splitlines()[0] not in str(caught.value)


def test_a_token_in_the_place_of_its_file_is_not_shown():
    with pytest.raises(InvalidOptionError) as caught:
        make_config(http_token_file="s3cret-token")
    assert "s3cret" not in str(caught.value)


def test_a_token_file_that_is_emptied_after_the_start_does_not_open_the_server(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("t0ken\n")
    config = make_config(http_token_file=str(file), http_port=find_port(socket.AF_INET))
    file.write_text("")
    with pytest.raises(InvalidOptionError):
        StopServer(config)


@pytest.mark.parametrize("token", ["t0ken", "two words", "~!@#$%^&*()_+=,.:;'\""])
def test_a_token_of_one_line_is_asked_for(token: str, tmp_path: Path, bronze_log: pytest.LogCaptureFixture):
    file = tmp_path / "token"
    file.write_text(f"  {token}\n\n")
    config = make_config(http_token_file=str(file), http_port=find_port(socket.AF_INET))
    with serve_application(config):
        url = f"http://127.0.0.1:{config.http_port}/api/v1/applications"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(url)
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200
    assert not any(token in message for message in bronze_log.messages)


def test_the_pages_of_the_monitor_need_no_token_and_the_rest_does(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("t0ken")
    config = make_config(http_token_file=str(file), http_port=find_port(socket.AF_INET))
    pages = {"/metrics": (200, "text/plain", b"bronze_query_up 1\n"), "/health": (503, "application/json", b"{}\n")}
    base = f"http://127.0.0.1:{config.http_port}"
    with serve_application(config, show=pages.get):
        with urllib.request.urlopen(f"{base}/metrics?name=x") as answer:
            assert (answer.status, answer.read()) == (200, b"bronze_query_up 1\n")
        for path, code in {"/health": 503, "/other": 401, "/api/v1/applications": 401}.items():
            with pytest.raises(urllib.error.HTTPError, match=str(code)):
                urllib.request.urlopen(base + path)
