"""The one commit rule of all appends of ours, by either writer: live, backfill and replay.

Every commit of ours in a table advances SHARED_APP_ID there from the version that its writer saw before it looked up
what the tables have. So of two writers that looked up the same state, one commits; the other one looks up again, leaves
out what is there by now, and tries again. The DLQ is committed before bronze: a crash between the two leaves a batch
that Spark runs again at the next start, and the overlap guard then leaves out what is in the tables.
"""

import json
import logging
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from bronze.delta.ddl import quote_path
from bronze.delta.ledger import SHARED_APP_ID, CommitNote
from bronze.delta.log import (
    FoundNote,
    find_note,
    find_restore,
    identify_commit,
    open_log,
    parse_commit,
    read_commit,
    read_transaction_version,
)
from bronze.delta.log_files import LogCheckpoints, read_interval
from bronze.delta.tables import is_watched
from bronze.errors import BronzeError
from bronze.parquet import DataFile
from bronze.runtime.spark_errors import explain_failures


class ConflictError(Exception):
    """Raised when somebody else of ours appended to a table since it was looked up."""


class OwnTable(ABC):
    """One table as a writer of ours sees it: who has committed since, and the commit itself."""

    def __init__(self, path: str):
        self.path = path
        self.found = FoundNote()
        self._state: tuple[int, int] | None = None  # version of the table, and of SHARED_APP_ID in it
        self._searched: int | None = None  # to which version a RESTORE was looked for
        self.refresh()

    @property
    def note(self) -> CommitNote:
        """What the newest commit of ours says."""
        return self.found.note or CommitNote("none")

    @property
    def version(self) -> int:
        """The table's version, as of the last look and the commits through this object."""
        return self._state[0] if self._state else -1

    @abstractmethod
    def _read_state(self) -> tuple[int, int]:
        """The table's newest version, and its version of SHARED_APP_ID (0 where there is none).

        Raises:
            BronzeError: It is another table, or was altered, since it was opened.
        """

    @abstractmethod
    def _append(self, rows: Any, note: CommitNote, shared: int) -> None:
        """Append rows, or nothing, in one transaction.

        Raises:
            ConflictError: Another writer of ours has committed since.
        """

    def keep_log_short(self, spark: SparkSession) -> None:  # noqa: B027
        """After the commits of a batch: what the writer does for those who open the table; nothing may fail by it."""

    def refresh(self) -> bool:
        """Read the table's newest state; whether anybody committed since, other than through this object."""
        before, self._state = self._state, self._read_state()
        if self._state == before:
            return False
        version, shared = self._state
        if before is None or shared != before[1]:
            self.found = find_note(self._read_commit, version, shared)
        searched, self._searched = self._searched, version
        if searched and find_restore(self._read_commit, searched + 1, version) is not None:
            log.warning(
                "%s was restored to an earlier version while this run uses it; bronze audit says what is "
                "missing, bronze backfill adds what Kafka still holds",
                self.path,
            )
        return True

    def _read_commit(self, version: int) -> str | None:
        return read_commit(self.path, version)

    def check_unchanged(self) -> None:
        """Raise the conflict that a commit would, before any table is committed to."""
        assert self._state is not None
        if self._read_state()[1] != self._state[1]:
            raise ConflictError(self.path)

    def commit(self, rows: Any, note: CommitNote) -> None:
        """Append rows in one transaction; without rows, it tells other writers what the note says.

        Raises:
            ConflictError: Another writer of ours has committed since the last ``refresh``.
            BronzeError: It is another table, or was altered.
        """
        self.check_unchanged()
        assert self._state is not None
        version, shared = self._state
        self._append(rows, note, shared + 1)
        # Where others committed in between, the table's version is higher, and the next ``refresh`` says so.
        self._state = (version + 1, shared + 1)
        self.found = FoundNote(version + 1, note)


log = logging.getLogger(__name__)

# As Spark says it of its own appends. An UPDATE that began before one need not conflict then, where the isolation level
# of the engine that runs it allows that (WriteSerializable).
_BLIND_APPEND = {"isBlindAppend": True}
# deltalake reads some retentions otherwise than Delta does, and would delete what the table's owner keeps.
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


class TableLog(OwnTable):
    """One table through deltalake.

    ``refresh`` notices every foreign commit, also of writers that are not ours. What makes a commit fail is only the
    shared transaction, so OPTIMIZE and DELETE are in nobody's way.
    """

    def __init__(self, path: str):
        self._table = DeltaTable(path)
        self._shape = _read_shape(self._table)
        self._newest = identify_commit(path, self._table.version())
        self._checkpoints = LogCheckpoints(path)
        super().__init__(path)

    def _read_state(self) -> tuple[int, int]:
        found = identify_commit(self.path, self._table.version())
        if found is None:  # the log was cleaned, or another table is there
            self._table = self._open_again()
        elif found != self._newest:
            raise _changed_table_error(self.path)
        else:
            self._table.update_incremental()  # a handle stays at its version, even after its own commit
        if _read_shape(self._table) != self._shape:
            raise _changed_table_error(self.path)
        self._newest = identify_commit(self.path, self._table.version())
        return self._table.version(), self._table.transaction_version(SHARED_APP_ID) or 0

    def _open_again(self) -> DeltaTable:
        try:
            table = DeltaTable(self.path)
        except DeltaError:
            raise _changed_table_error(self.path) from None
        if table.version() < self._table.version():
            raise _changed_table_error(self.path)
        return table

    def keep_log_short(self, spark: SparkSession) -> None:
        """Write a checkpoint of the log where one is due."""
        interval = read_interval(self._table.metadata().configuration)
        self._checkpoints.write_if_due(spark, self.version, interval)

    def _append(self, rows: list[DataFile] | None, note: CommitNote, shared: int) -> None:
        files = rows or []
        _check_files(self.path, files)
        with explain_failures(f"{self.path}/_delta_log"):
            try:
                self._table.create_write_transaction(
                    [_to_action(file) for file in files],
                    mode="append",
                    schema=self._table.schema(),
                    partition_by=self._table.metadata().partition_columns,
                    commit_properties=CommitProperties(
                        app_transactions=[Transaction(SHARED_APP_ID, shared)],
                        custom_metadata={**_BLIND_APPEND, "userMetadata": note.to_json()},
                    ),
                    post_commithook_properties=_NO_HOOKS,
                )
            except CommitFailedError as error:
                log.info("Commit to %s failed: %s", self.path, error)
                raise ConflictError(self.path) from error


def _read_shape(table: DeltaTable) -> tuple[object, ...]:
    """What was checked at the start: another identity, schema, constraint or feature must be checked again."""
    metadata, features = table.metadata(), table.protocol().writer_features
    properties = {k: v for k, v in metadata.configuration.items() if is_watched(k)}
    return metadata.id, json.loads(table.schema().to_json()), metadata.partition_columns, properties, features


def _check_files(path: str, files: list[DataFile]) -> None:
    """On a cluster, an executor's ``file:`` path is its own disk unless it is mounted from a shared one."""
    for file in files:
        written = Path(path, file.path)
        if not written.is_file() or written.stat().st_size != file.size:
            raise BronzeError(
                f"an executor wrote {written}, but the driver does not see it, or not whole: is the path on a disk "
                "that all nodes share?",
                hint="If not, use --writer delta-spark with a path on a shared file system; nothing was committed",
            )


def _to_action(file: DataFile) -> AddAction:
    return AddAction(
        file.path,
        file.size,
        file.partition_values,
        file.modification_time,
        data_change=True,
        stats=file.stats,
    )


_DROPPED = re.compile(r"\[PATH_NOT_FOUND\]|\[DELTA_TABLE_NOT_FOUND\]|/_delta_log does not exist")
_CONFLICT = re.compile(r"ConcurrentTransactionException|DELTA_CONCURRENT_TRANSACTION")
_ALTERED = re.compile(r"MetadataChangedException|ProtocolChangedException|DELTA_(METADATA|PROTOCOL)_CHANGED")


class SparkTable(OwnTable):
    """One table through delta-spark, on any file system."""

    def __init__(self, path: str):
        self._shape: tuple[object, ...] = ()
        super().__init__(path)

    def _read_state(self) -> tuple[int, int]:
        _, snapshot = open_log(SparkSession.active(), self.path)
        metadata = snapshot.metadata()
        properties = {k: v for k, v in _to_dict(metadata.configuration()).items() if is_watched(k)}
        shape = (metadata.id(), metadata.schemaString(), properties)
        self._shape = self._shape or shape
        if shape != self._shape:
            raise _changed_table_error(self.path)
        return snapshot.version(), read_transaction_version(snapshot, SHARED_APP_ID)

    def _append(self, rows: DataFrame | None, note: CommitNote, shared: int) -> None:
        spark = SparkSession.active()
        selected = spark.read.format("delta").load(self.path).limit(0) if rows is None else rows
        options = {"txnAppId": SHARED_APP_ID, "txnVersion": str(shared), "userMetadata": note.to_json()}
        _append_rows(selected, self.path, options)
        if not self._has_committed(note):
            raise ConflictError(self.path)

    def _has_committed(self, note: CommitNote) -> bool:
        """Whether the newest commits have the note: Delta says nothing of an append that it skipped."""
        assert self._state is not None
        newest = open_log(SparkSession.active(), self.path)[1].version()
        texts = (self._read_commit(version) or "" for version in range(newest, self._state[0], -1))
        return any(found is not None and found.commit == note.commit for found in (parse_commit(t).note for t in texts))


def _to_dict(scala_map: Any) -> dict[str, str]:
    pairs = scala_map.iterator()
    found = {}
    while pairs.hasNext():
        pair = pairs.next()
        found[pair._1()] = pair._2()
    return found


def _append_rows(rows: DataFrame, path: str, options: dict[str, str]) -> None:
    # By name, since an append to a path recreates a table that somebody dropped (tried).
    writer = rows.writeTo(f"spark_catalog.{quote_path(path)}").options(**options)
    with explain_failures(path):
        try:
            writer.append()
        except (Py4JJavaError, PySparkException) as error:
            text = f"{type(error).__name__}: {error}"
            if _CONFLICT.search(text):
                raise ConflictError(path) from error
            if _DROPPED.search(text) or _ALTERED.search(text):
                raise _changed_table_error(path) from error
            raise


def _changed_table_error(path: str) -> BronzeError:
    return BronzeError(
        f"{path} was altered, replaced or deleted since this run began",
        hint="run the same command again: the table is checked anew",
    )
