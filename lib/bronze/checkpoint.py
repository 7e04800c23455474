"""Reads Spark's checkpoint folder: the offsets of each batch, where the query continues, and its tables.

Spark writes ``offsets/<batch>`` before it runs a batch and ``commits/<batch>`` after it. An offsets file has the
exclusive end offset of every partition, ``sources/0/0`` the offsets at which the first batch starts, and ``metadata``
contains the query's id. This package writes ``bronze.json``: the tables that the checkpoint belongs to.
"""

import json
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.errors import ConfigError
from bronze.offsets import Bounds, OffsetSet
from bronze.parsing import is_s3
from bronze.runtime.paths import open_file_system, qualify_path, read_text, write_text
from bronze.runtime.spark_errors import shared_checkpoint_error

_BINDING = "bronze.json"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a checkpoint.

    Attributes:
        query_id: Id of the streaming query, the application id of its commits.
        planned: Newest batch that Spark planned; None before the first.
        committed: Newest batch that Spark noted as done; None before the first.
        first_offsets: Offset at which the first batch started, per partition.
        next_offsets: Offset at which the next batch starts, per partition; a planned batch that is not done runs again.
        end_offsets: Exclusive end offset of the newest planned batch, per partition.
    """

    query_id: str
    planned: int | None
    committed: int | None
    first_offsets: dict[int, int]
    next_offsets: dict[int, int]
    end_offsets: dict[int, int]

    @property
    def done(self) -> OffsetSet:
        """The offsets of all batches that are done."""
        return OffsetSet.between({p: (self.first_offsets.get(p, 0), end) for p, end in self.next_offsets.items()})

    @property
    def is_done(self) -> bool:
        """Whether Spark noted the newest planned batch as done."""
        return self.planned is None or (self.committed is not None and self.committed >= self.planned)


class CheckpointFolder:
    """The folder of one query's checkpoint, on any file system.

    Every ``read`` raises ConfigError if a file that Spark needs is missing or truncated, or if the offsets belong to
    another topic.
    """

    def __init__(self, spark: SparkSession, path: str, topic: str):
        """
        Args:
            spark: Session.
            path: The folder.
            topic: Kafka topic of the query.
        """
        self.path = qualify_path(spark, path)
        self._spark, self._topic = spark, topic
        self._claim = ""

    def read(self) -> Checkpoint | None:
        """Return the state; None if no query has planned a batch, so that ``startingOffsets`` still apply."""
        planned, committed = (self._find_newest(name) for name in ("offsets", "commits"))
        if planned is None and committed is None and not self._read_lines("sources/0/0"):
            return None
        if committed is not None and committed > (-1 if planned is None else planned):
            raise _unreadable_error(f"{self.path}/offsets/{committed}", "missing, though its batch is committed")
        if committed is not None:
            self._read_json(f"commits/{committed}")  # Spark reads this file at the start
        query_id, first = self._read_json("metadata").get("id", ""), self.read_first_offsets()
        if planned is None:
            return Checkpoint(query_id, None, committed, first, first, first)
        ends = self._read_offsets(f"offsets/{planned}")
        before = {p: start for p, (start, _) in self.read_batch_range(planned).items()}
        state = Checkpoint(query_id, planned, committed, first, before, ends)
        return replace(state, next_offsets=ends) if state.is_done else state

    def read_batch_range(self, batch_id: int) -> Bounds:
        """Return the first and the end (exclusive) offset of a batch per partition."""
        ends = self._read_offsets(f"offsets/{batch_id}")
        starts = self._read_offsets(f"offsets/{batch_id - 1}") if batch_id else self.read_first_offsets()
        return _join(starts, ends)

    def get_planned_range(self, query_id: str, first_offsets: dict[int, int]) -> Bounds:
        """Return the same for the batch that a query is running, from Spark's memory."""
        # No other process can change it. Spark has no public call for it.
        query = self._spark._jsparkSession.streams().get(query_id).streamingQuery()
        starts, ends = (
            _convert(json.loads(offsets.values().head().json())[self._topic]) if offsets.size() else {}
            for offsets in (query.committedOffsets(), query.availableOffsets())
        )
        return _join(starts or first_offsets, ends)

    def read_first_offsets(self) -> dict[int, int]:
        """Return the offset at which the first batch started, per partition that existed then."""
        return self._read_offsets("sources/0/0")

    def read_binding(self) -> dict[str, str]:
        """Return the tables that the checkpoint belongs to; empty if this package did not write it."""
        return self._read_json(_BINDING) if self._read_lines(_BINDING) else {}

    def write_binding(self, binding: dict[str, str]) -> None:
        """Note which tables the checkpoint belongs to, before the query that uses it starts."""
        write_text(self._spark, f"{self.path}/{_BINDING}", json.dumps(binding, indent=2))

    def bind(self, binding: dict[str, str]) -> None:
        """Note which tables the checkpoint belongs to, unless it already says so.

        In S3, it also notes that this run uses it, because Spark cannot exclude other processes there.
        """
        if is_s3(self.path):
            self._claim = self._claim or str(uuid4())
            binding = {**binding, "run": self._claim}
        if self.read_binding() != binding:
            self.write_binding(binding)

    def check_claim(self) -> None:
        """Check that no other process has begun to use the checkpoint.

        Raises:
            BronzeError: One has.
        """
        if self._claim and self.read_binding().get("run") != self._claim:
            raise shared_checkpoint_error(self.path)

    def _read_offsets(self, name: str) -> dict[int, int]:
        by_topic = self._read_json(name)
        if self._topic not in by_topic:
            raise ConfigError(
                f"{self.path}/{name} has the offsets of {', '.join(by_topic) or 'no topic'}, not of {self._topic}",
                hint="correct --checkpoint-path or --kafka-topic, or use a new --checkpoint-path (records that are "
                "already in the tables are skipped)",
            )
        return _convert(by_topic[self._topic])

    def _read_json(self, name: str) -> dict[str, Any]:
        """Return the last line of one of Spark's files; the lines before it are its version and the settings."""
        lines = self._read_lines(name)
        try:
            found = json.loads("".join(lines) if name == _BINDING else lines[-1])
        except (IndexError, ValueError):
            raise _unreadable_error(f"{self.path}/{name}", "damaged" if lines else "missing or empty") from None
        if not isinstance(found, dict):
            raise _unreadable_error(f"{self.path}/{name}", "damaged")
        return found

    def _read_lines(self, name: str) -> list[str]:
        """Return the lines of a file; an empty list if it does not exist."""
        path = f"{self.path}/{name}"
        try:
            return (read_text(self._spark, path) or "").splitlines()
        except Py4JJavaError as error:
            if error.java_exception.getClass().getSimpleName() == "ChecksumException":
                raise _unreadable_error(path, "damaged (its checksum does not fit)") from None
            raise

    def _find_newest(self, name: str) -> int | None:
        """Return the highest batch that has a file in a folder."""
        file_system, path = open_file_system(self._spark, f"{self.path}/{name}")
        if not file_system.exists(path):
            return None
        names = [status.getPath().getName() for status in file_system.listStatus(path)]
        return max((int(name) for name in names if name.isdecimal()), default=None)


def _convert(offsets: dict[str, int]) -> dict[int, int]:
    return {int(partition): offset for partition, offset in offsets.items()}


def _join(starts: dict[int, int], ends: dict[int, int]) -> Bounds:
    """Join starts and ends; a partition that was added later starts at its first record."""
    return {partition: (starts.get(partition, 0), end) for partition, end in ends.items()}


def _unreadable_error(path: str, condition: str) -> ConfigError:
    return ConfigError(
        f"{path} is {condition}, so the checkpoint does not say where to continue.",
        hint="Start with a new --checkpoint-path and --starting-offsets earliest; records that are already in the "
        "tables are skipped",
    )


def no_checkpoint_error(path: str) -> ConfigError:
    """Make the error for a command that needs a checkpoint, but finds none at the path."""
    return ConfigError(
        f"--checkpoint-path: no query has planned a batch at {path}",
        hint="correct the path, or run an ingestion with it: a new checkpoint starts from the earliest offsets, and "
        "records that are already in the tables are skipped",
    )
