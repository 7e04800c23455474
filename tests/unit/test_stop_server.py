"""The HTTP server that stops a query: where it listens, and which tokens it accepts."""

import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from bronze.config import TOKEN_VARIABLE, IngestConfig
from bronze.errors import ConfigError, InvalidOptionError
from bronze.stop import StopSwitch
from bronze.stop_http import StopServer, serve_stop

PATHS = {"kafka_brokers": "a:1", "checkpoint_path": "/lake/checkpoint", "output_path": "/lake/bronze"}


def make_config(**changes: Any) -> IngestConfig:
    return IngestConfig(**PATHS, **changes)


def find_port(family: socket.AddressFamily) -> int:
    with socket.socket(family) as free:
        free.bind(("localhost" if family is socket.AF_INET else "::1", 0))
        return free.getsockname()[1]


def test_an_ipv6_address_is_listened_on(bronze_log: pytest.LogCaptureFixture):
    port = find_port(socket.AF_INET6)
    switch = StopSwitch()
    with serve_stop(switch.request, "app-1", make_config(http_host="::1", http_port=port)):
        url = bronze_log.messages[0].rpartition(" ")[2]
        assert url == f"http://[::1]:{port}/api/v1/applications/app-1/stop"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST")) as answer:
            assert answer.status == 202
    assert switch.reason == "an HTTP call"


@pytest.mark.parametrize(
    "host", ["a..b", "127.0.0.1:80", "x" * 64 + ".com", "::ffff:1:2:3:4:5", "fe80::1%nothing", "no-such-host.invalid"]
)
def test_a_host_that_cannot_be_listened_on_is_refused(host: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "t0ken")
    with pytest.raises(ConfigError, match="^cannot listen on .*choose another --http-port or --http-host"):
        StopServer(StopSwitch().request, "app-1", make_config(http_host=host, http_port=1))


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
        StopServer(StopSwitch().request, "app-1", config)


@pytest.mark.parametrize("token", ["t0ken", "two words", "~!@#$%^&*()_+=,.:;'\""])
def test_a_token_of_one_line_is_asked_for(token: str, tmp_path: Path, bronze_log: pytest.LogCaptureFixture):
    file = tmp_path / "token"
    file.write_text(f"  {token}\n\n")
    config = make_config(http_token_file=str(file), http_port=find_port(socket.AF_INET))
    with serve_stop(StopSwitch().request, "app-1", config):
        url = f"http://127.0.0.1:{config.http_port}/api/v1/applications"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(url)
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200
    assert not any(token in message for message in bronze_log.messages)
