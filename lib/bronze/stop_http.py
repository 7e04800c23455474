"""The HTTP server on ``--http-port``: ``POST /api/v1/applications/<app-id>/stop``, and the pages of the monitor.

Spark's own UI has no such call. Without a token the server listens on this machine only. The pages need no token. The
server starts before Spark, so that Spark's UI cannot take its port, and a port that is taken is reported at once.
"""

import hmac
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bronze.config import IngestConfig, read_token
from bronze.errors import ConfigError

log = logging.getLogger(__name__)
_APPLICATIONS = "/api/v1/applications"
# Status, content type and body.
Page = tuple[int, str, bytes]
_AT_START: dict[str, Page] = {
    "/health": (200, "application/json", b'{"status": "starting", "reasons": []}\n'),
    "/metrics": (503, "text/plain", b"the ingestion is starting\n"),
}


class StopServer(ThreadingHTTPServer):
    """The server, with the application that it stops, the token that this requires (empty: none), and its pages.

    Attributes:
        app_id: The application; empty until it runs.
    """

    daemon_threads = True
    request_stop: Callable[[str], None]

    def __init__(self, config: IngestConfig):
        self.config, self.token, self.app_id = config, read_token(config.http_token_file), ""
        self.show: Callable[[str], Page | None] = _AT_START.get
        self.address_family = socket.AF_INET6 if ":" in config.http_host else socket.AF_INET
        try:
            super().__init__((config.http_host, config.http_port), StopHandler)
        except OSError as error:
            raise _port_error(config, error.strerror or str(error)) from None
        except UnicodeError:  # a host name with an empty label, or a label that is too long
            raise _port_error(config, "it is not a valid host name") from None

    def accept_stops(
        self, request_stop: Callable[[str], None], app_id: str, show: Callable[[str], Page | None]
    ) -> None:
        """Take stop calls for an application that runs now, show its pages, and log how to stop it."""
        self.request_stop, self.show, self.app_id = request_stop, show, app_id
        host = f"[{self.config.http_host}]" if ":" in self.config.http_host else self.config.http_host
        place = f"http://{host}:{self.config.http_port}{_APPLICATIONS}/{app_id}/stop"
        log.info("To stop: curl -X POST %s%s", place, " with the token" if self.token else "")


class StopHandler(BaseHTTPRequestHandler):
    """Answers requests in JSON: GET lists the application like Spark's own API, POST stops it."""

    server: StopServer
    timeout = 10

    def do_GET(self) -> None:
        """Show a page, or list the one application."""
        if page := self.server.show(self.path.partition("?")[0]):
            self._send(*page)
        elif self._is_allowed():
            if self.path.rstrip("/") == _APPLICATIONS:
                self._answer(200, [{"id": self.server.app_id}])
            else:
                self._answer(404, {"error": f"GET {_APPLICATIONS} lists the application"})

    def do_POST(self) -> None:
        """Request a stop; the answer does not wait for the end of the current batch."""
        if not self._is_allowed():
            return
        wanted = f"{_APPLICATIONS}/{self.server.app_id}/stop"
        if self.path.rstrip("/") != wanted:
            self._answer(404, {"error": f"POST {wanted} stops the application"})
            return
        self.server.request_stop("an HTTP call")
        self._answer(202, {"id": self.server.app_id, "status": "stopping after the current batch"})

    def _is_allowed(self) -> bool:
        """Check the token, if one is set, and that the application runs; a browser's ``Origin`` tells web pages."""
        if "Origin" in self.headers:
            self._answer(403, {"error": "not from a web page"})
            return False
        expected, given = f"Bearer {self.server.token}", self.headers.get("Authorization", "")
        if self.server.token and not hmac.compare_digest(given.encode(), expected.encode()):
            self._answer(401, {"error": "send the token as: Authorization: Bearer ..."})
            return False
        if not self.server.app_id:
            self._answer(503, {"error": "the ingestion is starting"})
            return False
        return True

    def _answer(self, status: int, body: object) -> None:
        self._send(status, "application/json", json.dumps(body).encode() + b"\n")

    def _send(self, status: int, content_type: str, encoded: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(encoded)))
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format: str, *args: object) -> None:
        """Write to this package's log; a request line holds no token."""
        log.debug(format, *args)


@contextmanager
def serve_http(config: IngestConfig) -> Iterator[StopServer | None]:
    """Run the server until the block ends; None without ``--http-port``.

    Raises:
        ConfigError: Another program uses the port, or the host is not an address of this machine.
    """
    if not config.http_port:
        yield None
        return
    with StopServer(config) as server:
        threading.Thread(target=server.serve_forever, name="stop-server", daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def _port_error(config: IngestConfig, reason: str) -> ConfigError:
    return ConfigError(
        f"cannot listen on {config.http_host}:{config.http_port}: {reason}",
        hint="choose another --http-port or --http-host",
    )
