"""A proxy in front of the sandbox's broker that breaks some answers, as a network does."""

import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.kafka import KafkaSandbox
from sandbox.system import HOST, find_free_port

# The kinds of requests, by their number in Kafka's protocol, and which of their answers may have a fault.
REQUESTS = {"fetch": 1, "offsets": 2, "metadata": 3}
EVERY = {"fetch": 5, "offsets": 3, "metadata": 2}
FAULTS = ("reset", "delay", "cut frame")


@dataclass
class KafkaProxy:
    """A running proxy: its port, the broker's, which faults are left, and how often each happened."""

    port: int
    target: int
    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def brokers(self) -> str:
        return f"{HOST}:{self.port}"

    def plan(self, times: int) -> None:
        """Plan each fault of each kind of request a number of times."""
        self.left = Counter({(kind, fault): times for kind in REQUESTS for fault in FAULTS})

    def find_fault(self, kind: str) -> str:
        """Return the next fault of an answer, in turn; empty if it has none."""
        with self.lock:
            self.answers[kind] += 1
            left = [fault for fault in FAULTS if self.left[kind, fault]]
            if not left or self.answers[kind] % EVERY[kind]:
                return ""
            fault = left[self.faults.total() % len(left)]
            self.left[kind, fault] -= 1
            self.faults[kind, fault] += 1
            return fault


class ProxiedKafka(KafkaSandbox):
    """A broker that sends its clients to a proxy."""

    def __init__(self, data_dir: Path, port: int, advertised: int):
        super().__init__(data_dir, port)
        self._advertised = advertised

    def _run_java(self, main_class: str, *arguments: str):
        if main_class == "kafka.Kafka":
            arguments += ("--override", f"advertised.listeners=PLAINTEXT://{HOST}:{self._advertised}")
        return super()._run_java(main_class, *arguments)


@contextmanager
def run_behind_proxy(data_dir: Path) -> Iterator[KafkaProxy]:
    """Run a broker whose clients all go through a proxy."""
    target = find_free_port()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), socket.create_connection((HOST, proxy.target)) as broker:
                _connect(proxy, self.request, broker)

    with socketserver.ThreadingTCPServer((HOST, 0), Handler) as server:
        server.daemon_threads = True
        proxy = KafkaProxy(server.server_address[1], target)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with ProxiedKafka(data_dir, target, proxy.port):
            yield proxy
        server.shutdown()


def _connect(proxy: KafkaProxy, client: socket.socket, broker: socket.socket) -> None:
    """Pass on requests and answers until one side, or a fault, ends the connection."""
    kinds: dict[bytes, int] = {}  # by correlation id
    thread = threading.Thread(target=_pass_on_requests, args=(client, broker, kinds), daemon=True)
    thread.start()
    names = {number: name for name, number in REQUESTS.items()}
    with suppress(OSError):
        while frame := _read_frame(broker):
            name = names.get(kinds.pop(frame[4:8], -1), "")
            fault = proxy.find_fault(name) if name else ""
            if fault == "delay":
                time.sleep(2)
            if fault == "reset":
                break
            client.sendall(frame[: len(frame) // 2] if fault == "cut frame" else frame)
            if fault == "cut frame":
                break
    _close(client, broker)
    thread.join()


def _pass_on_requests(client: socket.socket, broker: socket.socket, kinds: dict[bytes, int]) -> None:
    with suppress(OSError):
        while frame := _read_frame(client):
            if not frame[14:].startswith(b"rdkafka"):  # the client id: the tests' own producers have no faults
                kinds[frame[8:12]] = struct.unpack(">h", frame[4:6])[0]
            broker.sendall(frame)
    _close(client, broker)


def _read_frame(source: socket.socket) -> bytes:
    """Read a frame with its length; empty at the end."""
    head = _read(source, 4)
    return head and head + _read(source, struct.unpack(">i", head)[0])


def _read(source: socket.socket, size: int) -> bytes:
    read = b""
    while len(read) < size:
        if not (part := source.recv(size - len(read))):
            return b""
        read += part
    return read


def _close(*connections: socket.socket) -> None:
    for connection in connections:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
