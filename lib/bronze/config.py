"""The parameters of an ingestion: one name and one help text for CLI flag, notebook parameter and field.

An empty string and 0 mean "not set", because a notebook parameter can hold nothing else.
"""

import json
from dataclasses import dataclass, field, fields
from itertools import permutations
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from bronze.errors import InvalidOption, OptionMissing

WRITERS = ("auto", "direct", "delta-spark")
DEFAULT_STARTING_OFFSETS = "earliest"


def _option(default: Any, help_text: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": help_text, **metadata})


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """What to read, where to write and how; validated when made.

    Raises:
        OptionMissing: A required parameter is empty.
        InvalidOption: A value cannot be used; the message has the value and what was expected.
    """

    kafka_brokers: str = _option("", "Kafka bootstrap servers, host:port, comma-separated", required=True)
    kafka_topic: str = _option("api-usage-events.v1", "Kafka topic to read", required=True)
    checkpoint_path: str = _option("", "where the query keeps its progress; one per topic and tables", required=True)
    output_path: str = _option("", "path of the bronze Delta table, created when missing", required=True)
    dlq_path: str = _option("", "path of the DLQ Delta table; empty keeps invalid records in bronze")
    trigger_interval: str = _option("1 minute", "time between batches, as Spark reads it", required=True)
    starting_offsets: str = _option("", "earliest (the default), latest or JSON per partition; first start only")
    max_offsets_per_trigger: int = _option(0, "records per batch at the most; 0 is no limit")
    available_now: bool = _option(False, "ingest what the topic holds now, then stop")
    with_metrics: bool = _option(False, "log the counts of each batch")
    writer: str = _option("auto", "auto, direct or delta-spark", choices=WRITERS)
    kafka_config: str = _option("", "Kafka client properties file, for security and tuning")
    fail_on_data_loss: bool = _option(True, "stop when Kafka deleted records before they were read")
    startup_timeout: int = _option(30, "seconds to wait for a Kafka broker at the start")

    def __post_init__(self) -> None:
        _check_types(self)
        for option in fields(self):
            if option.metadata.get("required") and not getattr(self, option.name).strip():
                raise OptionMissing(option.name, option.metadata["help"])
        if self.max_offsets_per_trigger < 0:
            raise InvalidOption("max_offsets_per_trigger", self.max_offsets_per_trigger, "a number of records, or 0")
        if self.startup_timeout <= 0:
            raise InvalidOption("startup_timeout", self.startup_timeout, "a number of seconds above 0")
        if self.writer not in WRITERS:
            raise InvalidOption("writer", self.writer, f"one of {', '.join(WRITERS)}")
        if self.kafka_config and not Path(self.kafka_config).is_file():
            raise InvalidOption("kafka_config", self.kafka_config, "a readable Kafka properties file")
        parse_starting_offsets(self.starting_offsets, self.kafka_topic)
        _check_paths(self)


def _check_types(config: IngestConfig) -> None:
    for option in fields(config):
        value, kind = getattr(config, option.name), type(option.default)
        if type(value) is not kind:
            raise InvalidOption(option.name, value, f"a value of type {kind.__name__}")


def _check_paths(config: IngestConfig) -> None:
    """Tables and checkpoint must not lie in one another: VACUUM would delete what is not the table's."""
    given = {name: getattr(config, name) for name in ("output_path", "dlq_path", "checkpoint_path")}
    paths = {name: _resolve_path(path) for name, path in given.items() if path}
    for name, other in permutations(paths, 2):
        if paths[name].is_relative_to(paths[other]):
            raise InvalidOption(name, given[name], f"a path outside --{other.replace('_', '-')} ({given[other]})")


def _resolve_path(path: str) -> PurePath:
    """One spelling of each place: ``data/bronze`` and ``file:/…/data/../data/bronze/`` are the same."""
    scheme, colon, rest = path.partition(":")
    if not colon or "/" in scheme:
        return Path(path).resolve()
    return Path("/", rest.lstrip("/")).resolve() if scheme == "file" else PurePosixPath(path)


def parse_starting_offsets(text: str, topic: str) -> dict[int, int]:
    """Offsets per partition of ``{"topic": {"0": 23, "1": -2}}``; empty for earliest, latest or not set.

    Raises:
        InvalidOption: Neither a keyword nor such JSON, or offsets of another topic.
    """
    if text in ("", "earliest", "latest"):
        return {}
    expected = f'earliest, latest or JSON such as {{"{topic}": {{"0": 23, "1": -2}}}}'
    try:
        by_topic = json.loads(text)
        offsets = {int(partition): offset for partition, offset in by_topic[topic].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InvalidOption("starting_offsets", text, expected) from None
    if set(by_topic) != {topic} or not all(type(o) is int and o >= -2 for o in offsets.values()):
        raise InvalidOption("starting_offsets", text, expected)
    return offsets
