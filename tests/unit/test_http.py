"""A sign of life of a server: any answer of HTTP."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from bronze.runtime.http import ask_server


class Busy(BaseHTTPRequestHandler):
    """Answers every HEAD with 503."""

    def do_HEAD(self) -> None:
        self.send_response(503)
        self.end_headers()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_server_that_refuses_everything_is_alive():
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert ask_server(f"http://127.0.0.1:{server.server_port}", "HEAD", 5) == 503


def test_a_server_that_accepts_and_stays_silent_is_not(listener: socket.socket):
    with pytest.raises(OSError, match="timed out"):
        ask_server(f"http://127.0.0.1:{listener.getsockname()[1]}", "HEAD", 0.2)


@pytest.mark.parametrize("url", ["http://127.0.0.1:port", "http://127.0.0.1:1", "no address"])
def test_an_address_at_which_nobody_can_be_is_the_same_error(url: str):
    with pytest.raises(OSError):
        ask_server(url, "HEAD", 0.2)


def test_a_server_of_another_protocol_is_the_same_error(listener: socket.socket):
    def answer() -> None:
        connection, _ = listener.accept()
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        connection.close()

    threading.Thread(target=answer, daemon=True).start()
    with pytest.raises(OSError):
        ask_server(f"http://127.0.0.1:{listener.getsockname()[1]}", "HEAD", 5)
