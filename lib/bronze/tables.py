"""The two Delta tables: do they exist, do they fit, make what is missing."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.table import ProtocolVersions
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from bronze.delta_features import list_misfits
from bronze.kafka import Topic
from bronze.schema import TableSpec, create_table_statement, set_properties_statement
from bronze.storage_errors import NotADeltaTable, TableMismatch, TopicRecreated

log = logging.getLogger(__name__)

# The one whose tables name their features; Delta has no later one.
_MAX_WRITER_VERSION = 7
# Table properties of ours.
OWN_PROPERTIES = "bronze."
_DLQ_PATHS = f"{OWN_PROPERTIES}dlqPaths"


@dataclass(frozen=True)
class TableState:
    """What is known of an existing table; ``obstacle`` is why deltalake cannot open it."""

    table_id: str
    schema: T.StructType
    partition_columns: tuple[str, ...]
    properties: dict[str, str]
    writer_features: tuple[str, ...]
    obstacle: str = ""

    @property
    def dlq_paths(self) -> list[str]:
        """The DLQs that invalid records of a bronze table ever went to."""
        return json.loads(self.properties.get(_DLQ_PATHS, "[]"))


def is_watched(key: str) -> bool:
    """Whether a change of a table property under a running writer means that the table must be checked anew."""
    return not key.startswith(OWN_PROPERTIES) or key == _DLQ_PATHS


def qualify_path(spark: SparkSession, path: str) -> str:
    """The path with its file system, as Hadoop resolves it: ``data/bronze`` becomes ``file:/…/data/bronze``."""
    jvm: Any = spark._jvm
    hadoop_path = jvm.org.apache.hadoop.fs.Path(path)
    conf = spark.sparkContext._jsc.hadoopConfiguration()
    return hadoop_path.getFileSystem(conf).makeQualified(hadoop_path).toString()


def to_local_path(path: str) -> str | None:
    """The path on the local file system, None where it is on another."""
    scheme, colon, rest = path.partition(":")
    if not colon or "/" in scheme:
        return str(Path(path).absolute())
    return "/" + rest.lstrip("/") if scheme == "file" else None


def read_table_state(path: str, option: str, spark: SparkSession | None = None) -> TableState | None:
    """Read what the log says of a table; None where there is no table yet.

    Local tables are read without Spark; others only when a session is given.

    Raises:
        NotADeltaTable: There are files, but no table.
    """
    local = to_local_path(path)
    if local is None:
        return _read_through_spark(spark, path) if spark else None
    if DeltaTable.is_deltatable(local):
        try:
            return _read_local(local)
        except DeltaError as error:
            log.debug("deltalake cannot open %s: %s", path, error)
            found = _read_through_spark(spark, path) if spark else None
            return found and replace(found, obstacle=f"deltalake cannot open {path}")
    folder = Path(local)
    # A log without a commit is that of a table which another process is about to make, or was when it was killed.
    if folder.exists() and (not folder.is_dir() or any(file.name != "_delta_log" for file in folder.iterdir())):
        raise NotADeltaTable(option, path)
    return None


def is_dlq(spark: SparkSession, path: str) -> bool:
    """Whether there is a table with positions at a path that a DLQ once was at."""
    try:
        state = read_table_state(path, "dlq-path", spark)
    except NotADeltaTable:
        return False
    return state is not None and {"_kafka_topic", "_error_type", "_kafka_offset"} <= set(state.schema.names)


def _read_local(path: str) -> TableState:
    table = DeltaTable(path)
    metadata, protocol = table.metadata(), table.protocol()
    schema = T.StructType.fromJson(json.loads(table.schema().to_json()))
    features = _list_features(protocol)
    return TableState(
        str(metadata.id), schema, tuple(metadata.partition_columns), dict(metadata.configuration), features
    )


def _list_features(protocol: ProtocolVersions) -> tuple[str, ...]:
    """What a writer must know; beyond version 7 also a version, which no writer of ours knows."""
    version = protocol.min_writer_version
    newer = [f"of writer version {version}"] if version > _MAX_WRITER_VERSION else []
    return (*(protocol.writer_features or ()), *newer)


def _read_through_spark(spark: SparkSession, path: str) -> TableState | None:
    from delta import DeltaTable as SparkDeltaTable

    if not SparkDeltaTable.isDeltaTable(spark, path):
        return None
    table = SparkDeltaTable.forPath(spark, path)
    detail = table.detail().first()
    assert detail is not None
    schema = table.toDF().schema
    return TableState(
        detail.id, schema, tuple(detail.partitionColumns), dict(detail.properties), tuple(detail.tableFeatures)
    )


def check_table(state: TableState, spec: TableSpec, path: str, option: str) -> None:
    """Refuse a table that lacks columns, has others, other types, another partitioning, or what no writer can serve.

    Raises:
        TableMismatch: With every difference on a line.
    """
    found, wanted = dict(_list_leaves(state.schema)), dict(_list_leaves(spec.schema))
    differences = [f"column {name}: missing ({kind})" for name, kind in wanted.items() if name not in found]
    differences += [f"column {name}: not expected ({kind})" for name, kind in found.items() if name not in wanted]
    differences += [
        f"column {name}: expected {kind}, found {found[name]}"
        for name, kind in wanted.items()
        if found.get(name, kind) != kind
    ]
    if state.partition_columns != spec.partition_columns:
        differences.append(
            f"partitioning: expected {', '.join(spec.partition_columns)}, "
            f"found {', '.join(state.partition_columns) or 'none'}"
        )
    differences += list_misfits(state.properties, state.writer_features)
    if differences:
        raise TableMismatch(option, path, differences)


def _list_leaves(schema: T.StructType, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every column by its path and type, ``request.path`` and ``string``."""
    for column in schema:
        if isinstance(column.dataType, T.StructType):
            yield from _list_leaves(column.dataType, f"{prefix}{column.name}.")
        else:
            yield prefix + column.name, _describe_type(column.dataType)


def _describe_type(kind: T.DataType) -> str:
    """A column's type. An event may have null in a map; Spark cannot read one that the table says holds none."""
    holds_none = isinstance(kind, T.MapType) and not kind.valueContainsNull
    return kind.simpleString() + (" without null values" if holds_none else "")


def check_topic_id(state: TableState, topic: Topic, path: str) -> None:
    """Refuse a table whose rows came from another topic of the same name.

    Raises:
        TopicRecreated: The topic's id is not the one that the table was made for.
    """
    known = state.properties.get(_topic_property(topic.name))
    if known and topic.topic_id and known != topic.topic_id:
        raise TopicRecreated(topic.name, path, known, topic.topic_id)


def create_table(
    spark: SparkSession, path: str, spec: TableSpec, topic: Topic, state: TableState | None, dlq_path: str = ""
) -> None:
    """Create the table where it is missing, and note the topic's id in it, and in bronze the path of its DLQ.

    A crash may leave invalid records in the DLQ of a batch that bronze lacks; whoever goes on from there must look
    into that DLQ, also with another one configured or none.
    """
    properties = {_topic_property(topic.name): topic.topic_id}
    if dlq_path:
        properties[_DLQ_PATHS] = json.dumps(list(dict.fromkeys([*(state.dlq_paths if state else ()), dlq_path])))
    if state is None:
        log.info("Creating the %s table at %s", spec.name, path)
        state = _create(spark, path, spec, create_table_statement(spec, path, properties=properties))
    if not properties.items() <= state.properties.items():
        spark.sql(set_properties_statement(path, properties))


def _create(spark: SparkSession, path: str, spec: TableSpec, statement: str) -> TableState:
    """Create a table; its state, also where another process made it at the same time: Delta lets one of two do so.

    A log without a commit is for Delta a table that exists: of another process that has not committed yet, or of one
    that was killed before it did.
    """
    option, local, error = "dlq-path" if spec.name == "DLQ" else "output-path", to_local_path(path), None
    leftover = [Path(local, name) for name in ("_delta_log/_staged_commits", "_delta_log")] if local else []
    for seconds in (0, 1, 2, 4):
        time.sleep(seconds)
        for folder in leftover if seconds else ():
            with suppress(OSError):  # there is something in it
                folder.rmdir()
        try:
            spark.sql(statement)
        except (Py4JJavaError, PySparkException) as reason:
            error = reason
        if state := read_table_state(path, option, spark):
            return state
    raise error or NotADeltaTable(option, path)


def _topic_property(topic: str) -> str:
    return f"{OWN_PROPERTIES}topicId.{topic}"
