"""The HTTP server that stops an ingestion: ``POST /api/v1/applications/<app-id>/stop`` on ``--http-port``.

Spark's own UI has no such call. Without a token it listens on this machine only.
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


class StopServer(ThreadingHTTPServer):
    """Knows the application that it stops, and the token that it asks for; without one, empty."""

    daemon_threads = True

    def __init__(self, request_stop: Callable[[str], None], app_id: str, config: IngestConfig):
        self.request_stop, self.app_id, self.token = request_stop, app_id, read_token(config.http_token_file)
        self.address_family = socket.AF_INET6 if ":" in config.http_host else socket.AF_INET
        try:
            super().__init__((config.http_host, config.http_port), StopHandler)
        except OSError as error:
            raise _port_error(config, error.strerror or str(error)) from None
        except UnicodeError:  # of a name with an empty part, or a part that is too long
            raise _port_error(config, "it is no host's name") from None


class StopHandler(BaseHTTPRequestHandler):
    """Answers in JSON: GET lists the application as Spark's own API does, POST stops it."""

    server: StopServer
    timeout = 10

    def do_GET(self) -> None:
        """The one application that there is."""
        if self._is_allowed():
            if self.path.rstrip("/") == _APPLICATIONS:
                self._answer(200, [{"id": self.server.app_id}])
            else:
                self._answer(404, {"error": f"GET {_APPLICATIONS} lists the application"})

    def do_POST(self) -> None:
        """Ask for a stop; it is answered before the batch that runs has ended."""
        if not self._is_allowed():
            return
        wanted = f"{_APPLICATIONS}/{self.server.app_id}/stop"
        if self.path.rstrip("/") != wanted:
            self._answer(404, {"error": f"POST {wanted} stops the application"})
            return
        self.server.request_stop("an HTTP call")
        self._answer(202, {"id": self.server.app_id, "status": "stopping after the batch that runs"})

    def _is_allowed(self) -> bool:
        """With a token where one is set; never from a page in a browser, which names its origin."""
        if "Origin" in self.headers:
            self._answer(403, {"error": "not from a web page"})
            return False
        expected, given = f"Bearer {self.server.token}", self.headers.get("Authorization", "")
        if self.server.token and not hmac.compare_digest(given.encode(), expected.encode()):
            self._answer(401, {"error": "send the token as: Authorization: Bearer ..."})
            return False
        return True

    def _answer(self, status: int, body: object) -> None:
        encoded = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format: str, *args: object) -> None:
        """To the product's log; a request line holds no token."""
        log.debug(format, *args)


@contextmanager
def serve_stop(request_stop: Callable[[str], None], app_id: str, config: IngestConfig) -> Iterator[None]:
    """Listen until the block ends.

    Raises:
        ConfigError: Another program listens there, or it is not an address of this machine.
    """
    with StopServer(request_stop, app_id, config) as server:
        threading.Thread(target=server.serve_forever, name="stop-server", daemon=True).start()
        host = f"[{config.http_host}]" if ":" in config.http_host else config.http_host
        place = f"http://{host}:{config.http_port}{_APPLICATIONS}/{app_id}/stop"
        log.info("To stop: curl -X POST %s%s", place, " with the token" if server.token else "")
        try:
            yield
        finally:
            server.shutdown()


def _port_error(config: IngestConfig, reason: str) -> ConfigError:
    return ConfigError(
        f"cannot listen on {config.http_host}:{config.http_port}: {reason}",
        hint="choose another --http-port or --http-host",
    )
