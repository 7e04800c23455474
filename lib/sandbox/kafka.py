"""An Apache Kafka node (KRaft, no Docker) in a separate process, from Maven's jars."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException

from bronze.errors import BronzeError, InvalidOptionError
from bronze.runtime.jars import find_java, resolve_jars
from sandbox.produce import produce
from sandbox.system import HOST, find_free_port, hold_lock, read_command_line, wait_for_port
from sandbox.topics import BrokerNotReachableError, measure_topics

# Kafka does not depend on a logging backend; without the second jar, its log would be lost.
JARS = ("org.apache.kafka:kafka_2.13:4.2.0", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3")
# Light compilation starts the broker with 4 CPU seconds instead of 6; throughput is about the same.
JAVA_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=WARN")
START_TIMEOUT, STOP_TIMEOUT = 90, 30  # seconds
LOG_TAIL = 15  # lines

# Paths are relative to the data directory, the broker's working directory, because Java reads this file as Latin-1.
# Records never expire, so that they are still in the topic after weeks. After a kill, the controller accepts the broker
# only when its old session has timed out, by default after 9 seconds.
SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
log.dirs=kafka
log.retention.ms=-1
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=400
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
"""


def get_data_dir() -> Path:
    """Return SANDBOX_DATA_DIR, or ``data/sandbox`` below the current directory."""
    return Path(os.environ.get("SANDBOX_DATA_DIR") or "data/sandbox")


def get_port() -> int:
    """Return SANDBOX_PORT, or 9092.

    Raises:
        InvalidOptionError: It is not a port.
    """
    return _check_port_number(os.environ.get("SANDBOX_PORT") or "9092")


def ensure_sandbox(
    kafka_topic: str,
    data_dir: Path | str | None = None,
    port: int | None = None,
    partitions: int = 8,
    count: int = 20_000,
    invalid_ratio: float = 0.01,
) -> str:
    """Return the address of a running broker with events in the topic; start and fill it if necessary.

    ``data_dir`` and ``port`` are those of ``KafkaSandbox``; the other arguments are those of ``produce``,
    used if the topic is missing or empty. Raises the errors of both.
    """
    sandbox = KafkaSandbox(data_dir, port)
    sandbox.start()
    with hold_lock(sandbox.data_dir / "produce.lock"):  # notebooks that start together share one set of events
        topic = measure_topics(sandbox.brokers).get(kafka_topic)
        if topic is None or topic.records == 0:
            print(produce(sandbox.brokers, kafka_topic, count, invalid_ratio, partitions=partitions))
    return sandbox.brokers


class KafkaSandbox:
    """The broker of one data directory, even if another process started it; a context manager starts and stops it.

    Topics and records stay in the data directory when the broker ends, even if it is killed.

    Args:
        data_dir: Folder of the broker's files; ``get_data_dir()`` by default.
        port: Port on 127.0.0.1, 0 for a free one; by default that of a running broker, otherwise ``get_port()``.
    """

    def __init__(self, data_dir: Path | str | None = None, port: int | None = None):
        self.data_dir = Path(data_dir or get_data_dir()).resolve()
        self.log = self.data_dir / "kafka.log"
        self._state_file = self.data_dir / "sandbox.json"
        self._marker = f"-Dsandbox.data.dir={self.data_dir}"  # the part of the command line that identifies our broker
        self._port = port if port is None else _check_port_number(port)
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "KafkaSandbox":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The broker's process id; None if it is not running, or if another program now has its id."""
        if self._process and self._process.poll() is None:
            return self._process.pid
        pid = self._read_state().get("pid", 0)
        return pid if f"{self._marker} " in read_command_line(pid) else None

    @property
    def port(self) -> int:
        """The port that the broker listens on or will listen on; 0 if a free one is not chosen yet."""
        running = self._read_state().get("port") if self.pid else None
        return self._port or running or (get_port() if self._port is None else 0)

    @property
    def brokers(self) -> str:
        """The address for clients, ``127.0.0.1:PORT``."""
        return f"{HOST}:{self.port}"

    def start(self) -> bool:
        """Start the broker if it is not running, and wait until it answers; return whether it had to be started.

        Raises:
            ConfigError: Another program listens on the port. There is no Java to run it with.
            InvalidOptionError: This broker is already running on another port.
            BronzeError: It died, or did not answer within 90 seconds. Kafka's jars could not be downloaded.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with hold_lock(self.data_dir / "start.lock"):
            # A broker that was just killed may still have its pid, but does not answer.
            if self._is_running_as_wanted() and self._wait_for_answer():
                return False
            self._port = self.port or find_free_port()
            wait_for_port(self._port)
            self._spawn_broker()
            try:
                if not self._wait_for_answer():
                    raise self._start_error("ended while starting")
            except BaseException:
                self.kill()
                raise
        return True

    def stop(self) -> bool:
        """Stop the broker gracefully, after 30 seconds by force; return whether it was running."""
        was_running = self.pid is not None
        self._end(signal.SIGTERM)
        self.kill()
        self._state_file.unlink(missing_ok=True)
        return was_running

    def kill(self) -> None:
        """End the broker with SIGKILL, as a crash would: its state file stays."""
        self._end(signal.SIGKILL)

    def _read_state(self) -> dict[str, Any]:
        try:
            return json.loads(self._state_file.read_text())
        except (OSError, ValueError):
            return {}

    def _is_running_as_wanted(self) -> bool:
        running = self._read_state().get("port") if self.pid else None
        if running and self._port not in (None, 0, running):
            expected = f"{running}, because the broker of {self.data_dir} runs there until python -m sandbox down"
            raise InvalidOptionError("port", self._port, expected)
        return running is not None

    def _spawn_broker(self) -> None:
        settings = SERVER_PROPERTIES.format(host=HOST, port=self._port, controller_port=find_free_port())
        (self.data_dir / "server.properties").write_text(settings)
        if not (self.data_dir / "kafka" / "meta.properties").exists():
            self._format_storage()
        self._process = self._run_java("kafka.Kafka", "server.properties")
        self._state_file.write_text(json.dumps({"pid": self._process.pid, "port": self._port, "log": str(self.log)}))

    def _format_storage(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = ("format", f"--cluster-id={cluster_id}", "--config=server.properties")
        if self._run_java("kafka.tools.StorageTool", *command).wait() != 0:
            raise self._start_error("could not format its storage")

    def _run_java(self, main_class: str, *arguments: str) -> subprocess.Popen:
        """Start Java in the data directory, in a separate process session, so that it outlives the terminal."""
        class_path = os.pathsep.join(str(jar) for jar in resolve_jars(*JARS))
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [find_java(), *JAVA_OPTIONS, self._marker, main_class, *arguments],
                cwd=self.data_dir,
                env={**os.environ, "CLASSPATH": class_path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_for_answer(self) -> bool:
        """Wait until the broker serves its topics, and print progress; return False if it ends first."""
        begun = time.monotonic()
        while self.pid:
            # An answer is not enough: after a kill, the broker leads its partitions only a few seconds later.
            with suppress(BrokerNotReachableError, KafkaException):
                measure_topics(self.brokers)
                return True
            time.sleep(0.1)
            waited = time.monotonic() - begun
            if waited > START_TIMEOUT:
                raise self._start_error(f"did not answer within {START_TIMEOUT} s")
            if waited > 5:
                print(f"waiting for Kafka at {self.brokers}: {waited:.0f} s", file=sys.stderr)
        return False

    def _start_error(self, what: str) -> BronzeError:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return BronzeError("\n  ".join([f"Kafka {what}; the end of {self.log}:", *lines[-LOG_TAIL:]]))

    def _end(self, how: signal.Signals) -> None:
        """Send a signal to the broker if it is running, and wait until it has ended."""
        deadline = time.monotonic() + STOP_TIMEOUT
        if pid := self.pid:
            with suppress(ProcessLookupError):
                os.kill(pid, how)
        while self.pid and time.monotonic() < deadline:
            time.sleep(0.05)


def _check_port_number(given: int | str) -> int:
    if not str(given).isdecimal() or int(given) > 65535:
        raise InvalidOptionError("port", given, "1 to 65535, or 0 for a free port (also in SANDBOX_PORT)")
    return int(given)
