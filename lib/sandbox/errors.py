"""The conditions that end a sandbox command; each message says what was found and what to do."""

from pathlib import Path

from bronze.errors import BronzeError

LOG_TAIL = 15


class PortInUse(BronzeError):
    """Raised when the broker cannot listen on its port, most often because another program does."""

    exit_code = 2

    def __init__(self, port: int, reason: str | None):
        super().__init__(
            f"port {port} of 127.0.0.1 cannot be used: {reason}. Stop what has it (lsof -i :{port})"
            " or choose another port with --port or SANDBOX_PORT."
        )


class BrokerNotStarted(BronzeError):
    """Raised when the new broker died, or did not answer in time."""

    def __init__(self, what: str, log: Path):
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        super().__init__("\n  ".join([f"Kafka {what}; the end of {log}:", *lines[-LOG_TAIL:]]))


class BrokerNotReachable(BronzeError):
    """Raised when no broker answers at an address."""

    def __init__(self, brokers: str):
        super().__init__(f"no Kafka broker answers at {brokers}; python -m sandbox up (make sandbox-up) starts one.")


class DeliveryFailed(BronzeError):
    """Raised when the broker did not take a record."""

    def __init__(self, topic: str, reason: str, delivered: int):
        super().__init__(f"producing to {topic} failed after {delivered:,} records: {reason}")
