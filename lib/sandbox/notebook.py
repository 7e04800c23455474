"""What a notebook uses: the sandbox's broker and tables filled from it, or those that it is given."""

from pathlib import Path

from pyspark.sql import SparkSession

from bronze.config import IngestConfig, TablesConfig
from bronze.errors import BronzeError
from bronze.stream import run


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


def fill_tables(spark: SparkSession, use_sandbox: bool, config: TablesConfig, kafka_topic: str) -> None:
    """On the sandbox, ingest its topic where there is no table yet, so that a notebook has something to show.

    The checkpoint lies beside the bronze table, where the ingestion notebook has it. With ``use_sandbox`` false, and
    where there are tables, nothing is done.
    """
    if not use_sandbox or Path(config.output_path).exists():
        return
    run(
        IngestConfig(
            kafka_brokers=choose_brokers(True, "", kafka_topic),
            kafka_topic=kafka_topic,
            checkpoint_path=str(Path(config.output_path).with_name("checkpoint")),
            output_path=config.output_path,
            dlq_path=config.dlq_path,
            available_now=True,
        ),
        spark,
    )
