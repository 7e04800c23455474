"""What Spark's checkpoint folder says: which offsets a batch covers, where the query goes on, and whose it is.

Spark writes ``offsets/<batch>`` before it runs a batch and ``commits/<batch>`` after it; an offsets file names the
exclusive end offset of every partition. ``sources/0/0`` has the offsets that the first batch starts at, ``metadata``
the query's id. ``bronze.json`` is ours: the tables that the checkpoint belongs to.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.errors import ConfigError
from bronze.offsets import OffsetRanges, PlannedOffsets
from bronze.runtime.paths import open_file_system, read_text

_BINDING = "bronze.json"


@dataclass(frozen=True)
class Checkpoint:
    """State of a checkpoint.

    Attributes:
        query_id: Id of the streaming query, the application id of its commits.
        planned: Newest batch that was planned; None before the first.
        committed: Newest batch that Spark knows to be done; None before the first.
        begins: Offset at which the first batch began, per partition.
        starts: Offset at which the next batch starts, per partition; a planned batch that is not done runs again.
        ends: Exclusive end offset of the newest planned batch, per partition.
    """

    query_id: str
    planned: int | None
    committed: int | None
    begins: dict[int, int]
    starts: dict[int, int]
    ends: dict[int, int]

    @property
    def done(self) -> OffsetRanges:
        """The offsets of all batches that are done, per partition."""
        spans = {p: (self.begins.get(p, 0), end - 1) for p, end in self.starts.items()}
        return {p: [span] for p, span in spans.items() if span[0] <= span[1]}

    @property
    def is_done(self) -> bool:
        """Whether the newest planned batch is done, as far as Spark knows."""
        return self.planned is None or (self.committed is not None and self.committed >= self.planned)


def read_checkpoint(spark: SparkSession, checkpoint_path: str, topic: str) -> Checkpoint | None:
    """What a checkpoint says; None where no query has planned a batch, so that startingOffsets still count.

    Raises:
        ConfigError: A file that Spark needs is missing or cut off. Its offsets are those of another topic.
    """
    source = f"{checkpoint_path}/sources/0/0"
    planned, committed = (_find_newest(spark, f"{checkpoint_path}/{name}") for name in ("offsets", "commits"))
    if planned is None and committed is None and not _read_lines(spark, source):
        return None
    if committed is not None and committed > (-1 if planned is None else planned):
        raise _unreadable_error(f"{checkpoint_path}/offsets/{committed}", "missing, though its batch is committed")
    if committed is not None:
        _read_json(spark, f"{checkpoint_path}/commits/{committed}")  # Spark reads it at the start
    query_id = _read_json(spark, f"{checkpoint_path}/metadata").get("id", "")
    begins = _read_offsets(spark, source, topic)
    if planned is None:
        return Checkpoint(query_id, None, committed, begins, begins, begins)
    ends = _read_offsets(spark, f"{checkpoint_path}/offsets/{planned}", topic)
    before = {p: first for p, (first, _) in read_planned_offsets(spark, checkpoint_path, planned, topic).items()}
    state = Checkpoint(query_id, planned, committed, begins, before, ends)
    return replace(state, starts=ends) if state.is_done else state


def read_planned_offsets(spark: SparkSession, checkpoint_path: str, batch_id: int, topic: str) -> PlannedOffsets:
    """The offsets that a batch covers, per partition.

    Raises:
        ConfigError: The checkpoint does not say; without its answer the overlap guard would be blind. Its offsets are
            those of another topic.
    """
    ends = _read_offsets(spark, f"{checkpoint_path}/offsets/{batch_id}", topic)
    before = f"offsets/{batch_id - 1}" if batch_id else "sources/0/0"
    starts = _read_offsets(spark, f"{checkpoint_path}/{before}", topic)
    # A partition that was added since starts at its first record.
    return {partition: (starts.get(partition, 0), end) for partition, end in ends.items()}


def read_begins(spark: SparkSession, checkpoint_path: str, topic: str) -> dict[int, int]:
    """The offset at which the first batch began, per partition that was there then.

    Raises:
        ConfigError: The checkpoint does not say. Its offsets are those of another topic.
    """
    return _read_offsets(spark, f"{checkpoint_path}/sources/0/0", topic)


def read_binding(spark: SparkSession, checkpoint_path: str) -> dict[str, str]:
    """The tables that a checkpoint belongs to; empty where it was not written by this product.

    Raises:
        ConfigError: The file is damaged.
    """
    path = f"{checkpoint_path}/{_BINDING}"
    return _read_json(spark, path) if _read_lines(spark, path) else {}


def write_binding(spark: SparkSession, checkpoint_path: str, binding: dict[str, str]) -> None:
    """Note in a checkpoint which tables it belongs to, before the query that uses it starts.

    At once, as Spark writes its own files there: neither a crash nor another process on the same checkpoint leaves
    half of it or nothing.
    """
    jvm: Any = spark._jvm
    _, path = open_file_system(spark, f"{checkpoint_path}/{_BINDING}")
    managers = jvm.org.apache.spark.sql.execution.streaming.checkpointing.CheckpointFileManager
    manager = managers.create(path.getParent(), spark.sparkContext._jsc.hadoopConfiguration())
    manager.mkdirs(path.getParent())
    stream = manager.createAtomic(path, True)
    try:
        stream.write(bytearray(json.dumps(binding, indent=2).encode()))
    except Py4JJavaError:
        stream.cancel()
        raise
    stream.close()  # only now it is there


def _read_offsets(spark: SparkSession, path: str, topic: str) -> dict[int, int]:
    by_topic = _read_json(spark, path)
    if topic not in by_topic:
        raise ConfigError(
            f"{path} has the offsets of {', '.join(by_topic) or 'no topic'}, not of {topic}",
            hint="correct --checkpoint-path or --kafka-topic, or give a new --checkpoint-path (what is in the tables "
            "already is left out then)",
        )
    return {int(partition): offset for partition, offset in by_topic[topic].items()}


def _read_json(spark: SparkSession, path: str) -> dict[str, Any]:
    """The last line of one of Spark's log files; the ones before are its version and the batch's settings."""
    lines = _read_lines(spark, path)
    try:
        found = json.loads("".join(lines) if path.endswith(_BINDING) else lines[-1])
    except (IndexError, ValueError):
        raise _unreadable_error(path, "damaged" if lines else "missing or empty") from None
    if not isinstance(found, dict):
        raise _unreadable_error(path, "damaged")
    return found


def _unreadable_error(path: str, condition: str) -> ConfigError:
    return ConfigError(
        f"{path} is {condition}, so the checkpoint does not say where to go on.",
        hint="Start with a new --checkpoint-path and --starting-offsets earliest; what is in the tables already is "
        "left out then",
    )


def no_checkpoint_error(path: str) -> ConfigError:
    """For a command that needs a checkpoint, and there is none at the path."""
    return ConfigError(
        f"--checkpoint-path: no query has planned a batch at {path}",
        hint="correct the path, or ingest into it: a new checkpoint starts from the earliest offsets, and what is in "
        "the tables already is left out",
    )


def _find_newest(spark: SparkSession, folder: str) -> int | None:
    """The highest batch that has a file in a folder."""
    file_system, path = open_file_system(spark, folder)
    if not file_system.exists(path):
        return None
    names = [status.getPath().getName() for status in file_system.listStatus(path)]
    return max((int(name) for name in names if name.isdecimal()), default=None)


def _read_lines(spark: SparkSession, path: str) -> list[str]:
    """The lines of a file; none where there is no file."""
    try:
        return (read_text(spark, path) or "").splitlines()
    except Py4JJavaError as error:
        if error.java_exception.getClass().getSimpleName() == "ChecksumException":
            raise _unreadable_error(path, "damaged (its checksum does not fit)") from None
        raise
