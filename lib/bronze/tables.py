"""The two Delta tables: do they exist, do they fit, which writer may append to them, make what is missing."""

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from bronze.errors import NotADeltaTable, TableMismatch, TopicRecreated
from bronze.kafka import Topic
from bronze.schema import TableSpec, create_table_statement

log = logging.getLogger(__name__)

# Writer features that change nothing for an append of plain rows.
_APPENDABLE = {
    "appendOnly",
    "invariants",
    "checkConstraints",
    "changeDataFeed",
    "generatedColumns",
    "columnMapping",
    "deletionVectors",
    "timestampNtz",
}
_COMPUTED = ("delta.generationExpression", "delta.invariants", "delta.identity.start", "CURRENT_DEFAULT")


@dataclass(frozen=True)
class TableState:
    """What is known of an existing table."""

    schema: T.StructType
    partition_columns: tuple[str, ...]
    properties: dict[str, str]
    writer_features: tuple[str, ...]


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
        return _read_local(local)
    folder = Path(local)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise NotADeltaTable(option, path)
    return None


def _read_local(path: str) -> TableState:
    table = DeltaTable(path)
    metadata, protocol = table.metadata(), table.protocol()
    schema = T.StructType.fromJson(json.loads(table.schema().to_json()))
    features = tuple(protocol.writer_features or ())
    return TableState(schema, tuple(metadata.partition_columns), dict(metadata.configuration), features)


def _read_through_spark(spark: SparkSession, path: str) -> TableState | None:
    from delta import DeltaTable as SparkDeltaTable

    if not SparkDeltaTable.isDeltaTable(spark, path):
        return None
    table = SparkDeltaTable.forPath(spark, path)
    detail = table.detail().first()
    assert detail is not None
    schema = table.toDF().schema
    return TableState(schema, tuple(detail.partitionColumns), dict(detail.properties), tuple(detail.tableFeatures))


def check_table(state: TableState, spec: TableSpec, path: str, option: str) -> None:
    """Refuse a table that lacks columns, has others, other types, or another partitioning.

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
    if differences:
        raise TableMismatch(option, path, differences)


def _list_leaves(schema: T.StructType, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every column by its path and type, ``request.path`` and ``string``."""
    for column in schema:
        if isinstance(column.dataType, T.StructType):
            yield from _list_leaves(column.dataType, f"{prefix}{column.name}.")
        else:
            yield prefix + column.name, column.dataType.simpleString()


def check_topic_id(state: TableState, topic: Topic, path: str) -> None:
    """Refuse a table whose rows came from another topic of the same name.

    Raises:
        TopicRecreated: The topic's id is not the one that the table was made for.
    """
    known = state.properties.get(_topic_property(topic.name))
    if known and known != topic.topic_id:
        raise TopicRecreated(topic.name, path, known, topic.topic_id)


def create_table(spark: SparkSession, path: str, spec: TableSpec, topic: Topic, state: TableState | None) -> None:
    """Create the table where it is missing, and note the topic's id in it where it is not."""
    properties = {_topic_property(topic.name): topic.topic_id}
    if state is None:
        log.info("Creating the %s table at %s", spec.name, path)
        spark.sql(create_table_statement(spec, path, properties=properties))
    elif not properties.items() <= state.properties.items():
        ((key, value),) = properties.items()
        spark.sql(f"ALTER TABLE delta.`{path.replace('`', '``')}` SET TBLPROPERTIES ('{key}' = '{value}')")


def _topic_property(topic: str) -> str:
    return f"bronze.topicId.{topic}"


def find_obstacle(path: str, state: TableState | None) -> str:
    """Why the direct writer cannot append to a table correctly; empty where it can."""
    if to_local_path(path) is None:
        return f"{path} is not on a local file system"
    if state is None:
        return ""
    if constraints := [key for key in state.properties if key.startswith("delta.constraints.")]:
        return f"{path} has the CHECK constraint {constraints[0].removeprefix('delta.constraints.')}"
    if state.properties.get("delta.columnMapping.mode", "none") != "none":
        return f"{path} has mapped columns"
    if computed := [f.name for f in state.schema if any(key in f.metadata for key in _COMPUTED)]:
        return f"{path} has the computed column {computed[0]}"
    return _describe_features(path, set(state.writer_features) - _APPENDABLE)


def _describe_features(path: str, unknown: Iterable[str]) -> str:
    names = ", ".join(sorted(unknown))
    return f"{path} has writer features that it does not know: {names}" if names else ""
