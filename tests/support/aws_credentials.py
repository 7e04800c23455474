"""An endpoint that hands out credentials which expire at once, as the agent of a container service does."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sandbox.s3 import ACCESS_KEY, SECRET_KEY
from sandbox.system import HOST


@dataclass
class Issuer:
    """The key that it hands out now, and those that it has handed out."""

    url: str
    key: str = ACCESS_KEY
    issued: list[str] = field(default_factory=list)


@contextmanager
def run_issuer() -> Iterator[Issuer]:
    """Run the endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            issuer.issued.append(issuer.key)
            end = datetime.now(UTC) + timedelta(seconds=30)
            given = {"AccessKeyId": issuer.key, "SecretAccessKey": SECRET_KEY, "Expiration": f"{end:%FT%TZ}"}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(given).encode())

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        issuer = Issuer(f"http://{HOST}:{server.server_port}/credentials")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield issuer
        server.shutdown()
