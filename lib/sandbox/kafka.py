"""An Apache Kafka node (KRaft, no Docker) in a separate process, from Maven's jars."""

import base64
import os
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path

from confluent_kafka import KafkaException

from bronze.runtime.jars import find_java, resolve_jars
from sandbox.produce import produce
from sandbox.server import Server
from sandbox.system import HOST, find_free_port, hold_lock
from sandbox.topics import BrokerNotReachableError, measure_topics

# Kafka does not depend on a logging backend; without the second jar, its log would be lost.
JARS = ("org.apache.kafka:kafka_2.13:4.2.0", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3")
# Light compilation starts the broker with 4 CPU seconds instead of 6; throughput is about the same.
JAVA_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=WARN")

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


class KafkaSandbox(Server):
    """The broker of one data directory, even if another process started it; a context manager starts and stops it.

    Topics and records stay in the data directory when the broker ends, even if it is killed.

    Args:
        data_dir: Folder of the broker's files; ``get_data_dir()`` by default.
        port: Port on 127.0.0.1, 0 for a free one; by default that of a running broker, otherwise SANDBOX_PORT or 9092.
    """

    name, variable, default_port, down = "Kafka", "SANDBOX_PORT", 9092, "python -m sandbox down"

    def __init__(self, data_dir: Path | str | None = None, port: int | None = None):
        super().__init__(Path(data_dir or get_data_dir()), port)

    @property
    def brokers(self) -> str:
        """The address for clients, ``127.0.0.1:PORT``."""
        return f"{HOST}:{self.port}"

    @property
    def _marker(self) -> str:
        return f"-Dsandbox.data.dir={self.data_dir}"

    def _spawn(self) -> None:
        (self.data_dir / "server.properties").write_text(self._write_settings(find_free_port()))
        if not (self.data_dir / "kafka" / "meta.properties").exists():
            self._format_storage()
        self._process = self._run_java("kafka.Kafka", "server.properties")

    def _write_settings(self, controller_port: int) -> str:
        """The broker's properties file; the last line of a name counts."""
        return SERVER_PROPERTIES.format(host=HOST, port=self._port, controller_port=controller_port)

    def _format_storage(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = ("format", f"--cluster-id={cluster_id}", "--config=server.properties")
        if self._run_java("kafka.tools.StorageTool", *command).wait() != 0:
            raise self._start_error("could not format its storage")

    def _run_java(self, main_class: str, *arguments: str) -> subprocess.Popen:
        class_path = os.pathsep.join(str(jar) for jar in resolve_jars(*JARS))
        return self._run([find_java(), *JAVA_OPTIONS, self._marker, main_class, *arguments], {"CLASSPATH": class_path})

    def _answers(self) -> bool:
        # An answer is not enough: after a kill, the broker leads its partitions only a few seconds later.
        with suppress(BrokerNotReachableError, KafkaException):
            measure_topics(self.brokers)
            return True
        return False
