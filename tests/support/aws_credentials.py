"""Temporary keys of a role, and an endpoint that hands them out for seconds, as that of a container service does."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3

from sandbox.s3 import REGION, ROLE
from sandbox.system import HOST


@dataclass
class Issuer:
    """The keys that it hands out now."""

    url: str
    keys: dict[str, str] = field(default_factory=dict)


def assume_role() -> dict[str, str]:
    """A new session of a role; the server refuses its keys without its token."""
    sts = boto3.client("sts", region_name=REGION)  # the environment has the address and the keys
    given = sts.assume_role(RoleArn=ROLE, RoleSessionName="test")["Credentials"]
    return {name: given[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")}


@contextmanager
def run_issuer() -> Iterator[Issuer]:
    """Run the endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            end = datetime.now(UTC) + timedelta(seconds=30)
            given = {**issuer.keys, "Token": issuer.keys["SessionToken"], "Expiration": f"{end:%FT%TZ}"}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(given).encode())

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        issuer = Issuer(f"http://{HOST}:{server.server_port}/credentials")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield issuer
        server.shutdown()
