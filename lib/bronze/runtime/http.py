"""Asks a server of HTTP for a sign of life: a request without credentials, to an address of the configuration."""

import ssl
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit


def make_trusting_context() -> ssl.SSLContext:
    """Make a context of TLS that verifies no certificate, for questions that carry and get nothing of value."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def ask_server(url: str, method: str, seconds: float) -> int:
    """Return the status of a server's answer.

    Args:
        url: Address of the server.
        method: Method of the request, which has no body.
        seconds: How long to wait for the connection, and for each part of the answer.

    Raises:
        OSError: There is no answer, or it is not one of HTTP.
    """
    try:
        parts = urlsplit(url)
        is_encrypted = parts.scheme == "https"
        options: dict[str, Any] = {"context": make_trusting_context()} if is_encrypted else {}
        kind, port = (HTTPSConnection, 443) if is_encrypted else (HTTPConnection, 80)
        with closing(kind(parts.hostname or "", parts.port or port, timeout=seconds, **options)) as connection:
            connection.request(method, parts.path or "/")
            return int(connection.getresponse().status)
    except (ValueError, HTTPException) as error:
        raise OSError(repr(error)) from error
