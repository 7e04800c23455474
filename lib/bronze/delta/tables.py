"""Reads and checks the two Delta tables."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.table import ProtocolVersions
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from bronze.config import TablesConfig
from bronze.delta.features import list_column_reasons, list_misfits, list_reasons
from bronze.delta.ledger import SHARED_APP_ID, CommitNote, Place
from bronze.delta.log import FoundNote, find_note, open_log, read_commit, read_transaction_version
from bronze.errors import ConfigError, NotADeltaTableError, TransientError
from bronze.parsing import find_object_store
from bronze.runtime.object_store import find_storage, find_unsupported
from bronze.runtime.paths import qualify_path, to_local_path
from bronze.runtime.spark_errors import explain_failure
from bronze.schema import TableSpec, get_bronze_spec, get_dlq_spec
from bronze.storage import Storage

log = logging.getLogger(__name__)

# Tables of this writer version name their features; Delta has no later version.
_MAX_WRITER_VERSION = 7
# Prefix of this package's table properties.
OWN_PROPERTIES = "bronze."


@dataclass(frozen=True)
class TableState:
    """The state of an existing table.

    Attributes:
        table_id: Delta's id of the table, the same for every path to it.
        schema: Its columns.
        partition_columns: Its partitioning.
        properties: Its table properties.
        writer_features: Features that a writer must support.
        version: Its newest version.
        found: This package's newest commit.
        obstacle: Why deltalake cannot open it; empty if it can.
    """

    table_id: str
    schema: T.StructType
    partition_columns: tuple[str, ...]
    properties: dict[str, str]
    writer_features: tuple[str, ...]
    version: int = 0
    found: FoundNote = field(default_factory=FoundNote)
    obstacle: str = ""

    @property
    def note(self) -> CommitNote:
        """The note of this package's newest commit."""
        return self.found.note or CommitNote("none")


def is_watched(key: str) -> bool:
    """Whether a change of a table property during a run requires a new check of the table."""
    return key.lower().startswith("delta.")


def read_table_state(path: str, option: str, spark: SparkSession | None = None) -> TableState | None:
    """Read the state of a table from its log; None if there is no table yet.

    Reads local tables without Spark, and others only if there is a session.

    Raises:
        NotADeltaTableError: The path holds files that are not a Delta table.
    """
    if to_local_path(path) is None and spark is None:
        return None
    table = find_storage(path)
    if not table.is_direct:
        return _read_through_spark(spark, path) if spark else None
    if DeltaTable.is_deltatable(table.uri, table.options):
        try:
            return _read_directly(table)
        except DeltaError as error:
            if isinstance(explained := explain_failure(error, path), TransientError):
                raise explained from error
            log.debug("deltalake cannot open %s: %s", path, error)
            found = _read_through_spark(spark, path) if spark else None
            return found and replace(found, obstacle=f"deltalake cannot open {path}")
    # A log without a commit: another process is about to create the table, or was killed before it did.
    if table.is_file or any(name != "_delta_log" for name in table.list_names()):
        raise _not_a_table_error(option, path)
    return None


def _read_directly(place: Storage) -> TableState:
    table = DeltaTable(place.uri, storage_options=place.options)
    metadata, protocol = table.metadata(), table.protocol()
    shared = table.transaction_version(SHARED_APP_ID) or 0
    return TableState(
        table_id=str(metadata.id),
        schema=T.StructType.fromJson(json.loads(table.schema().to_json())),
        partition_columns=tuple(metadata.partition_columns),
        properties=dict(metadata.configuration),
        writer_features=_list_features(protocol),
        version=table.version(),
        found=find_note(partial(read_commit, place), table.version(), shared),
    )


def _list_features(protocol: ProtocolVersions) -> tuple[str, ...]:
    """Return the features that a writer must support; also the version if it is above 7, and thus unknown."""
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
    _, snapshot = open_log(spark, path)
    version, shared = snapshot.version(), read_transaction_version(snapshot, SHARED_APP_ID)
    return TableState(
        table_id=detail.id,
        schema=table.toDF().schema,
        partition_columns=tuple(detail.partitionColumns),
        properties=dict(detail.properties),
        writer_features=tuple(detail.tableFeatures),
        version=version,
        found=find_note(partial(read_commit, find_storage(path)), version, shared),
    )


def check_table(state: TableState, spec: TableSpec, path: str, option: str) -> None:
    """Refuse a table with other columns, types or partitioning, or with a feature that neither writer supports.

    Raises:
        ConfigError: The table differs. The message lists every difference.
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
        listed = "\n  ".join(differences)
        raise ConfigError(
            f"--{option}: the table at {path} does not fit", hint=f"give another path, or migrate it:\n  {listed}"
        )


def _list_leaves(schema: T.StructType, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and type of every column, such as ``request.path`` and ``string``."""
    for column in schema:
        if isinstance(column.dataType, T.StructType):
            yield from _list_leaves(column.dataType, f"{prefix}{column.name}.")
        else:
            yield prefix + column.name, _format_type(column.dataType)


def _format_type(kind: T.DataType) -> str:
    """Format a column's type; mark maps without null values, because Spark cannot read a null there."""
    holds_none = isinstance(kind, T.MapType) and not kind.valueContainsNull
    return kind.simpleString() + (" without null values" if holds_none else "")


def list_tables(config: TablesConfig) -> dict[str, tuple[str, TableSpec]]:
    """Return path and specification of the configured tables, by the name of their option."""
    tables = {"output-path": (config.output_path, get_bronze_spec())}
    if config.dlq_path:
        tables["dlq-path"] = (config.dlq_path, get_dlq_spec())
    return tables


@dataclass(frozen=True)
class CheckedTable:
    """A table that passed the check or does not exist yet (``state`` is None), with its path qualified by Hadoop."""

    path: str
    spec: TableSpec
    state: TableState | None

    @property
    def id(self) -> str:
        """Delta's id of the table; empty if it does not exist yet."""
        return self.state.table_id if self.state else ""

    @property
    def place(self) -> Place | None:
        """The table's id and path; None if it does not exist yet."""
        return Place(self.state.table_id, self.path) if self.state else None


def locate_tables(spark: SparkSession, config: TablesConfig) -> tuple[CheckedTable, CheckedTable | None]:
    """Read and check the current state of bronze and the DLQ, without Kafka.

    Raises:
        NotADeltaTableError: A path holds something else.
        ConfigError: A table has other columns or another partitioning.
    """
    tables = []
    for name, (path, spec) in list_tables(config).items():
        qualified = qualify_path(spark, path)
        if state := read_table_state(qualified, name, spark):
            check_table(state, spec, qualified, name)
        tables.append(CheckedTable(qualified, spec, state))
    return tables[0], tables[1] if config.dlq_path else None


def find_obstacle(path: str, state: TableState | None) -> str:
    """Return why the direct writer cannot append to a table correctly; empty if it can."""
    if to_local_path(path) is None and not find_object_store(path):
        return f"{path} is neither on a local file system nor in S3 or Azure"
    if setting := find_unsupported(path):
        return f"{setting} is set for {path}"
    if state is None:
        return ""
    if state.obstacle:
        return state.obstacle
    reasons = [*list_column_reasons(state.schema), *list_reasons(state.properties, state.writer_features)]
    return f"{path} has {reasons[0]}" if reasons else ""


def _not_a_table_error(option: str, path: str) -> NotADeltaTableError:
    return NotADeltaTableError(
        f"--{option}: {path} holds files but is not a Delta table", hint="give an empty or a new path"
    )


def no_table_error(option: str, path: str) -> ConfigError:
    """Make the error for a command that needs a table, but finds none at the path."""
    return ConfigError(f"--{option}: there is no table at {path}", hint="ingest first, or correct the path")
