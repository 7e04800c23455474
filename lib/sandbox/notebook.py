"""Which broker a notebook uses: the sandbox's, or the one it is given."""

from bronze.errors import BronzeError


class BrokersAmbiguous(BronzeError):
    """Raised when a notebook is given brokers and is to use the sandbox as well."""

    exit_code = 2

    def __init__(self, kafka_brokers: str):
        super().__init__(
            f"use_sandbox is true, but kafka_brokers is {kafka_brokers!r}; "
            "set use_sandbox to false (-p use_sandbox False) or leave kafka_brokers empty"
        )


def choose_brokers(use_sandbox: bool, kafka_brokers: str, kafka_topic: str) -> str:
    """The sandbox's brokers, started and filled with sample events where needed, or the given ones.

    Raises:
        BrokersAmbiguous: Both are asked for; nobody wants sample events in a production table.
    """
    if not use_sandbox:
        return kafka_brokers
    if kafka_brokers:
        raise BrokersAmbiguous(kafka_brokers)
    from sandbox.kafka import ensure_sandbox

    return ensure_sandbox(kafka_topic)
