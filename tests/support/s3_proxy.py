"""A proxy in front of the S3 server that fails some requests, as a network and a busy service do."""

import http.client
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

from sandbox.system import HOST

# The kinds of requests, by method and path.
REQUESTS = {
    "commit PUT": ("PUT", r"/_delta_log/\d{20}\.json$"),
    "data PUT": ("PUT", r"\.parquet$"),
    "GET": ("GET", r"^/\w+/."),
    "HEAD": ("HEAD", ""),
    "LIST": ("GET", r"^/\w+/?$"),
    "DELETE": ("(DELETE|POST)", r""),
}
FAULTS = ("lost answer", "reset", "500", "503", "delay", "half a body")
_NOT_PASSED_ON = ("transfer-encoding", "connection", "content-length", "expect", "keep-alive", "proxy-authorization")


@dataclass
class Rule:
    """A fault of the requests of one kind; ``every`` third one, for example, up to a number of times.

    Any other text than a kind is part of the path of a PUT.
    """

    request: str
    fault: str
    every: int = 1
    times: int = 1
    seen: int = 0

    def hits(self, method: str, path: str) -> bool:
        expected, pattern = REQUESTS.get(self.request, ("PUT", self.request))
        if not self.times or not re.fullmatch(expected, method) or not re.search(pattern, path.partition("?")[0]):
            return False
        self.seen += 1
        if self.seen % self.every:
            return False
        self.times -= 1
        return True


@dataclass
class Proxy:
    """A running proxy: its port, its rules, how often each fault happened, and a key that it refuses.

    Listings date the files whose names match ``aged`` to the year 2001.
    """

    port: int
    rules: list[Rule] = field(default_factory=list)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    revoked: str = ""
    aged: str = ""
    logins: set[str | None] = field(default_factory=set)  # those of the requests to it as a proxy
    gate: threading.Event = field(default_factory=threading.Event)  # what the fault "hold" waits for

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def find_fault(self, method: str, path: str) -> str:
        with self.lock:
            for rule in self.rules:
                if rule.hits(method, path):
                    self.faults[rule.request, rule.fault] += 1
                    return rule.fault
        return ""


@contextmanager
def run_proxy(target: int) -> Iterator[Proxy]:
    """Run a proxy in front of a port of this machine.

    deltalake must not use it in this process: it holds the interpreter's lock while it waits for an answer.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def answer(self) -> None:
            with suppress(OSError):  # a client that does not wait for a late answer
                self.answer_or_fail()

        def answer_or_fail(self) -> None:
            body = _read_body(self)
            proxy.logins.add(self.headers["Proxy-Authorization"])
            is_revoked = proxy.revoked and f"Credential={proxy.revoked}/" in self.headers["Authorization"]
            fault = "403" if is_revoked else proxy.find_fault(self.command, self.path)
            if fault in ("403", "500", "503"):
                self.send_response(int(fault))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "reset":
                _hang_up(self)
                return
            if fault == "delay":
                time.sleep(3)
            if fault == "hold":
                proxy.gate.wait(600)
            status, headers, content = _pass_on(self, target, body)
            if proxy.aged:
                content = re.sub(rf"(<Key>{proxy.aged}</Key>.*?<LastModified>)\d{{4}}".encode(), rb"\g<1>2001", content)
            if fault == "lost answer":
                _hang_up(self)
                return
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in _NOT_PASSED_ON:
                    self.send_header(name, value)
            known = dict(headers).get("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", known or str(len(content)))
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(content[: len(content) // 2] if fault == "half a body" else content)
            if fault == "half a body":
                _hang_up(self)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

    server = ThreadingHTTPServer((HOST, 0), Handler)
    proxy = Proxy(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


def _hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def _read_body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding", "").lower() == "chunked":
        return b"".join(_read_chunks(handler))
    return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))


def _read_chunks(handler: BaseHTTPRequestHandler) -> Iterator[bytes]:
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        yield handler.rfile.read(size)
        handler.rfile.readline()
    list(islice(iter(handler.rfile.readline, b"\r\n"), 20))  # trailers


def _pass_on(handler: BaseHTTPRequestHandler, target: int, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection(HOST, target, timeout=60)
    connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
    for name, value in handler.headers.items():
        if name.lower() not in _NOT_PASSED_ON:
            connection.putheader(name, value)  # the host too, because it is signed
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.getheaders(), content
