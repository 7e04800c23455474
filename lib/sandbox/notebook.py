"""The broker and tables of a notebook: the sandbox's, or the given ones.

Sample events are written only if brokers, topic and paths belong to the sandbox. use_sandbox is true by default, so a
user that only names a production table has not asked for sample events.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from bronze import ingest as run
from bronze.config import IngestConfig, KafkaConfig, TablesConfig
from bronze.errors import ConfigError
from bronze.notebook.cells import AnyConfig, check_types, is_checkout, read_config
from bronze.runtime.paths import to_local_path


def make_config(parameters: Mapping[str, Any], kind: type[AnyConfig]) -> AnyConfig:
    """Build the configuration from a notebook's parameters, ``globals()``; on the sandbox, with its brokers.

    All parameters are checked before the sandbox is started and filled.

    Raises:
        ConfigError: A parameter that only notebooks have has the wrong type. ``use_sandbox`` is true, but brokers, a
            path or the topic do not belong to the sandbox.
        BronzeError: The configuration's own checks fail.
    """
    check_types(parameters)
    if not parameters["use_sandbox"]:
        return read_config(parameters, kind)
    if given := parameters.get("kafka_brokers"):
        raise _not_own_error("kafka_brokers", given, "leave them empty")
    if not issubclass(kind, KafkaConfig):
        return check_paths(read_config(parameters, kind))
    config = check_paths(read_config(parameters, kind, kafka_brokers="127.0.0.1:9092"))
    return replace(config, kafka_brokers=start_sandbox(config.kafka_topic))


def _not_own_error(name: str, value: object, cure: str) -> ConfigError:
    """Build the error for ``use_sandbox`` with a value that does not belong to the sandbox."""
    return ConfigError(
        f"use_sandbox is true, but {name} is {value!r}, and sample events are for the sandbox's own brokers, topic and "
        "paths only",
        hint="set use_sandbox to false (papermill: -p use_sandbox False, YAML: use_sandbox: false) and name "
        f"kafka_brokers, or for the sandbox {cure}",
    )


def check_paths(config: AnyConfig) -> AnyConfig:
    """Return the configuration if all its paths belong to the sandbox.

    Raises:
        ConfigError: Names a path that does not.
    """
    own = find_own_folder()
    for name in ("output_path", "dlq_path", "checkpoint_path"):
        path = getattr(config, name, "")
        local = to_local_path(path) if path else None
        if path and not (own and local and own in Path(local).resolve().parents):
            place = f"below {own}" if own else "below data/ of the checkout, and call the notebook from there"
            raise _not_own_error(name, path, f"use a path {place}")
    return config


def find_own_folder() -> Path | None:
    """The folder for sample tables: SANDBOX_TABLES_DIR, or ``data`` of the checkout that is the working directory."""
    if folder := os.environ.get("SANDBOX_TABLES_DIR"):
        return Path(folder).resolve()
    return Path("data").resolve() if is_checkout(Path.cwd()) else None


def start_sandbox(kafka_topic: str) -> str:
    """The sandbox's brokers, started and filled with sample events if necessary.

    Only the default topic is filled; any other topic must already exist on the running broker.

    Raises:
        ConfigError: Such a topic does not exist.
    """
    from sandbox.kafka import KafkaSandbox, ensure_sandbox
    from sandbox.produce import TOPIC
    from sandbox.topics import measure_topics

    if kafka_topic == TOPIC:
        return ensure_sandbox(kafka_topic)
    sandbox = KafkaSandbox()
    if sandbox.pid is None or kafka_topic not in measure_topics(sandbox.brokers):
        command = f"python -m sandbox up, then python -m sandbox produce --topic {kafka_topic}"
        cure = f"leave it {TOPIC}, or fill it with {command}"
        raise _not_own_error("kafka_topic", kafka_topic, cure)
    return sandbox.brokers


def fill_tables(spark: SparkSession, use_sandbox: bool, config: TablesConfig, kafka_topic: str) -> None:
    """On the sandbox, ingest its topic if there is no table yet, so that a notebook has something to show.

    The checkpoint is next to the bronze table, as in the ingestion notebook. Does nothing if ``use_sandbox`` is false
    or the table exists.

    Raises:
        ConfigError: A path or the topic does not belong to the sandbox.
    """
    if use_sandbox is not True or Path(to_local_path(config.output_path) or "").exists():
        return
    check_paths(config)
    run(
        IngestConfig(
            kafka_brokers=start_sandbox(kafka_topic),
            kafka_topic=kafka_topic,
            checkpoint_path=str(Path(config.output_path).with_name("checkpoint")),
            output_path=config.output_path,
            dlq_path=config.dlq_path,
            available_now=True,
        ),
        spark,
    )
