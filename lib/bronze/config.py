"""The parameters of each command: one name and one help text for CLI flag, notebook parameter and field.

An empty string and 0 mean "not set", because a notebook parameter can hold nothing else.
"""

import ipaddress
import os
import re
from dataclasses import dataclass, field, fields
from itertools import permutations
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from bronze.errors import InvalidOption, OptionMissing
from bronze.parsing import parse_starting_offsets

WRITERS = ("auto", "direct", "delta-spark")
DEFAULT_STARTING_OFFSETS = "earliest"
# Secrets come from files or the environment.
TOKEN_VARIABLE = "BRONZE_HTTP_TOKEN"
CHANGE_DLQ_HELP = "use this DLQ, or none, from now on, though bronze has another one"


def option(default: Any, help_text: str, **metadata: Any) -> Any:
    """A field with its help; checked when made: ``required``, ``choices``, ``minimum`` (``what`` is the message)."""
    return field(default=default, metadata={"help": help_text, **metadata})


def threshold(default: float, help_text: str) -> Any:
    """A number that is not negative."""
    return option(default, help_text, minimum=0, what="a number, 0 or above")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What all configurations check when they are made.

    Raises:
        OptionMissing: A required parameter is empty.
        InvalidOption: A value cannot be used; the message has the value and what was expected.
    """

    def __post_init__(self) -> None:
        for known in fields(self):
            _check_value(known.name, getattr(self, known.name), type(known.default), known.metadata)
        _check_paths(self)


def _check_value(name: str, value: Any, kind: type[Any], metadata: Any) -> None:
    if type(value) is not kind and (kind, type(value)) != (float, int):
        raise InvalidOption(name, value, f"a value of type {kind.__name__}")
    if metadata.get("required") and not str(value).strip():
        raise OptionMissing(name, metadata["help"])
    if "choices" in metadata and value not in metadata["choices"]:
        raise InvalidOption(name, value, f"one of {', '.join(metadata['choices'])}")
    if "minimum" in metadata and not value >= metadata["minimum"]:
        raise InvalidOption(name, value, metadata["what"])


@dataclass(frozen=True, kw_only=True)
class KafkaConfig(Config):
    """Where the records come from."""

    kafka_brokers: str = option("", "Kafka bootstrap servers, host:port, comma-separated", required=True)
    kafka_topic: str = option("api-usage-events.v1", "Kafka topic to read", required=True)
    kafka_config: str = option("", "Kafka client properties file, for security and tuning")
    startup_timeout: int = option(
        30, "seconds to wait for a Kafka broker at the start", minimum=1, what="a number of seconds above 0"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kafka_config and not Path(self.kafka_config).is_file():
            raise InvalidOption("kafka_config", self.kafka_config, "a readable Kafka properties file")


@dataclass(frozen=True, kw_only=True)
class TablesConfig(Config):
    """Where the tables are."""

    output_path: str = option("", "path of the bronze Delta table, created when missing", required=True)
    dlq_path: str = option("", "path of the DLQ Delta table; empty keeps invalid records in bronze")


@dataclass(frozen=True, kw_only=True)
class IngestConfig(TablesConfig, KafkaConfig):
    """What to read, where to write and how."""

    checkpoint_path: str = option("", "where the query keeps its progress; one per topic and tables", required=True)
    trigger_interval: str = option("1 minute", "time between batches, as Spark reads it", required=True)
    starting_offsets: str = option("", "earliest (the default), latest or JSON per partition; first start only")
    max_offsets_per_trigger: int = option(
        0, "records per batch at the most; 0 is no limit", minimum=0, what="a number of records, or 0"
    )
    available_now: bool = option(False, "ingest what the topic holds now, then stop")
    with_metrics: bool = option(False, "log the counts of each batch")
    change_dlq: bool = option(False, CHANGE_DLQ_HELP)
    writer: str = option("auto", "auto, direct or delta-spark", choices=WRITERS)
    fail_on_data_loss: bool = option(True, "stop when Kafka deleted records before they were read")
    max_invalid_ratio: float = threshold(
        0.0, "end with exit code 4 after a batch with a larger share of invalid records; 0 is off"
    )
    stop_timeout: int = option(
        60, "seconds that a batch may take to end when a stop is asked for", minimum=0, what="a number of seconds"
    )
    stop_file: str = option("", "stop once this file appears, on the driver's machine")
    http_port: int = option(0, "port that takes HTTP calls to stop; 0 is none", minimum=0, what="a port, or 0")
    http_host: str = option("127.0.0.1", "address to listen on; one that others reach needs a token", required=True)
    http_token_file: str = option("", "file with the token that HTTP calls must send")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_starting_offsets(self.starting_offsets, self.kafka_topic)
        if self.max_invalid_ratio > 1:  # somebody means percent
            raise InvalidOption("max_invalid_ratio", self.max_invalid_ratio, "a share from 0 to 1, such as 0.05")
        if self.stop_file and Path(self.stop_file).exists():
            raise InvalidOption("stop_file", self.stop_file, "a file that is not there yet; remove it to start")
        if self.http_token_file and not _has_text(Path(self.http_token_file)):
            raise InvalidOption("http_token_file", self.http_token_file, "a readable file that holds the token")
        has_token = self.http_token_file or os.environ.get(TOKEN_VARIABLE, "").strip()
        if not has_token and not _is_loopback(self.http_host):
            expected = f"127.0.0.1, or a token beside it (--http-token-file or {TOKEN_VARIABLE})"
            raise InvalidOption("http_host", self.http_host, expected)


def _has_text(file: Path) -> bool:
    try:
        return bool(file.read_text().strip())
    except (OSError, UnicodeDecodeError):
        return False


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_paths(config: Config) -> None:
    """Tables and checkpoint must not lie in one another: VACUUM would delete what is not the table's.

    The library that reads local tables decodes percent escapes in a path, and then looks in another folder.
    """
    given = {name: getattr(config, name, "") for name in ("output_path", "dlq_path", "checkpoint_path")}
    paths = {name: _resolve_path(path) for name, path in given.items() if path}
    for name, path in paths.items():
        is_local_table = isinstance(path, Path) and name != "checkpoint_path"
        if is_local_table and re.search("%[0-9A-Fa-f]{2}", f"{given[name]} {path}"):
            raise InvalidOption(name, given[name], f"a path without percent escapes such as %20 ({path})")
    for name, other in permutations(paths, 2):
        if paths[name].is_relative_to(paths[other]):
            raise InvalidOption(name, given[name], f"a path outside --{other.replace('_', '-')} ({given[other]})")


def _resolve_path(path: str) -> PurePath:
    """One spelling of each place: ``data/bronze`` and ``file:/…/data/../data/bronze/`` are the same."""
    scheme, colon, rest = path.partition(":")
    if not colon or "/" in scheme:
        return Path(path).resolve()
    return Path("/", rest.lstrip("/")).resolve() if scheme == "file" else PurePosixPath(path)
