"""One table as a writer of this package commits to it: through deltalake, or through delta-spark.

Each commit advances the table's version of SHARED_APP_ID from the one that the writer last read. If another writer of
this package has committed since, the commit raises ConflictError.
"""

import json
import logging
import re
from abc import ABC, abstractmethod
from itertools import count
from typing import Any

from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from bronze.delta.ddl import quote_path
from bronze.delta.ledger import SHARED_APP_ID, CommitNote
from bronze.delta.log import (
    FoundNote,
    changed_table_error,
    find_note,
    find_restore,
    identify_commit,
    name_commit,
    open_log,
    parse_commit,
    read_commit,
    read_transaction_version,
)
from bronze.delta.log_files import read_interval, remove_stale_checksum
from bronze.delta.tables import is_watched
from bronze.errors import BronzeError
from bronze.parquet import DataFile
from bronze.runtime.object_store import find_storage
from bronze.runtime.spark_errors import explain_failures
from bronze.storage import Storage


class ConflictError(Exception):
    """Raised when another writer of this package committed to a table since the last refresh."""


class OwnTable(ABC):
    """One table of a writer: notices commits of others, and commits."""

    _storage: Storage  # set by the subclasses, before this class reads the table

    def __init__(self, path: str):
        self.path = path
        self.found = FoundNote()
        self._state: tuple[int, int] | None = None  # version of the table, and of SHARED_APP_ID in it
        self._searched: int | None = None  # last version that was searched for a RESTORE
        self.refresh()

    @property
    def note(self) -> CommitNote:
        """The note of this package's newest commit."""
        return self.found.note or CommitNote("none")

    @property
    def version(self) -> int:
        """The table's version after the last refresh or commit."""
        return self._state[0] if self._state else -1

    @abstractmethod
    def _read_state(self) -> tuple[int, int]:
        """Read the table's newest version, and its version of SHARED_APP_ID (0 if there is none).

        Raises:
            BronzeError: The table was replaced or altered since it was opened.
        """

    @abstractmethod
    def _append(self, rows: Any, note: CommitNote, shared: int) -> None:
        """Append rows, or nothing, in one transaction.

        Raises:
            ConflictError: Another writer of this package has committed since.
        """

    def _has_committed(self, note: CommitNote) -> bool:
        """Whether a commit since the last refresh has the note, whatever the writer was told."""
        assert self._state is not None
        for version in count(self._state[0] + 1):
            text = self._read_commit(version)
            if text is None:
                return False
            found = parse_commit(text).note
            if found is not None and found.commit == note.commit:
                return True
        raise AssertionError("the log has an end")

    def claim_checkpoint(self) -> tuple[str, int, int] | None:
        """Return the arguments of ``try_checkpoint`` if the caller must call it. Spark writes checkpoints itself."""
        return None

    def refresh(self) -> bool:
        """Read the table's newest state; return whether there are commits that this object did not make."""
        before, self._state = self._state, self._read_state()
        if self._state == before:
            return False
        version, shared = self._state
        if before is None or shared != before[1]:
            self.found = find_note(self._read_commit, version, shared)
        searched, self._searched = self._searched, version
        if searched and find_restore(self._read_commit, searched + 1, version) is not None:
            log.warning(
                "%s was restored to an earlier version while this run uses it; run bronze audit to see what is "
                "missing, and bronze backfill to add what Kafka still holds",
                self.path,
            )
        return True

    def _read_commit(self, version: int) -> str | None:
        return read_commit(self._storage, version)

    def check_unchanged(self) -> None:
        """Raise the conflict that a commit would raise, before the first table is committed to."""
        assert self._state is not None
        if self._read_state()[1] != self._state[1]:
            raise ConflictError(self.path)

    def commit(self, rows: Any, note: CommitNote) -> None:
        """Append rows in one transaction; without rows, only write the note.

        Raises:
            ConflictError: Another writer of this package has committed since the last ``refresh``.
            BronzeError: The table was replaced or altered.
        """
        self.check_unchanged()
        assert self._state is not None
        version, shared = self._state
        self._append(rows, note, shared + 1)
        # If others committed in between, the table's version is higher, and the next ``refresh`` notices.
        self._state = (version + 1, shared + 1)
        self.found = FoundNote(version + 1, note)


log = logging.getLogger(__name__)

# Spark sets it for its own appends. An UPDATE that started earlier then need not conflict, if the isolation level of
# its engine allows that (WriteSerializable).
_BLIND_APPEND = {"isBlindAppend": True}
# deltalake parses some retentions differently from Delta, and would delete commits that the owner wants to keep.
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


class TableLog(OwnTable):
    """One table through deltalake.

    ``refresh`` notices every commit of others, also from other engines. Only the shared transaction makes a commit
    fail, so OPTIMIZE and DELETE do not conflict with it.
    """

    def __init__(self, path: str):
        self._storage = find_storage(path)
        self._table = DeltaTable(self._storage.uri, storage_options=self._storage.options)
        self._shape = _read_shape(self._table)
        self._newest = identify_commit(self._storage, self._table.version())
        self._claimed = -1  # version of the last checkpoint that was claimed
        remove_stale_checksum(path)
        super().__init__(path)

    def _read_state(self) -> tuple[int, int]:
        storage = find_storage(self.path)
        is_same_access, self._storage = storage == self._storage, storage
        version = self._table.version()
        found = identify_commit(storage, version)
        if found not in (None, self._newest):
            raise changed_table_error(self.path)
        if found and is_same_access:
            self._table.update_incremental()  # a DeltaTable handle keeps its version, even after its own commit
        else:  # the log was cleaned, or the table was replaced; or the credentials were renewed
            self._table = self._open_again()
        if _read_shape(self._table) != self._shape:
            raise changed_table_error(self.path)
        if self._table.version() != version or not found:
            self._newest = identify_commit(storage, self._table.version())
        return self._table.version(), self._table.transaction_version(SHARED_APP_ID) or 0

    def _open_again(self) -> DeltaTable:
        try:
            table = DeltaTable(self._storage.uri, storage_options=self._storage.options)
        except TableNotFoundError:
            raise changed_table_error(self.path) from None
        if table.version() < self._table.version():
            raise changed_table_error(self.path)
        return table

    def claim_checkpoint(self) -> tuple[str, int, int] | None:
        """Return the arguments of ``try_checkpoint``, at the first call and after each interval of commits."""
        interval = read_interval(self._table.metadata().configuration)
        if self.version - self._claimed < interval:
            return None
        self._claimed = self.version
        return self.path, self.version, interval

    def _append(self, rows: list[DataFile] | None, note: CommitNote, shared: int) -> None:
        files = rows or []
        _check_files(self._storage, files)
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
            except (DeltaError, OSError) as error:
                if not self._has_committed(note):  # otherwise the answer was lost
                    if isinstance(error, CommitFailedError):
                        log.info("Commit to %s failed: %s", self.path, error)
                        raise ConflictError(self.path) from error
                    raise
            self._sync_commits()

    def _sync_commits(self) -> None:
        """Let the new commits survive a power failure; a batch that Spark has noted as done is not read again."""
        assert self._state is not None
        version = self._state[0] + 1
        while self._storage.sync([name_commit(version)]):
            version += 1


def _read_shape(table: DeltaTable) -> tuple[object, ...]:
    """Read the parts of a table that the start checked; a change of them requires a new check."""
    metadata, features = table.metadata(), table.protocol().writer_features
    properties = {k: v for k, v in metadata.configuration.items() if is_watched(k)}
    return metadata.id, json.loads(table.schema().to_json()), metadata.partition_columns, properties, features


def _check_files(table: Storage, files: list[DataFile]) -> None:
    """Check that the driver sees the files: an executor's ``file:`` path may be its own disk, not a shared one."""
    for file, size in zip(files, table.measure(file.path for file in files), strict=True):
        if size != file.size:
            raise BronzeError(
                f"an executor wrote {table.uri}/{file.path}, but the driver does not see the complete file: is the "
                "path on a disk that all nodes share?",
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
        self._storage = find_storage(path)
        self._shape: tuple[object, ...] = ()
        super().__init__(path)

    def _read_state(self) -> tuple[int, int]:
        _, snapshot = open_log(SparkSession.active(), self.path)
        metadata = json.loads(snapshot.metadata().json())["metaData"]
        properties = {k: v for k, v in metadata["configuration"].items() if is_watched(k)}
        shape = (metadata["id"], metadata.get("schemaString"), properties)  # a table that was dropped has no schema
        self._shape = self._shape or shape
        if shape != self._shape:
            raise changed_table_error(self.path)
        return snapshot.version(), read_transaction_version(snapshot, SHARED_APP_ID)

    def _append(self, rows: DataFrame | None, note: CommitNote, shared: int) -> None:
        spark = SparkSession.active()
        selected = spark.read.format("delta").load(self.path).limit(0) if rows is None else rows
        options = {"txnAppId": SHARED_APP_ID, "txnVersion": str(shared), "userMetadata": note.to_json()}
        _append_rows(selected, self.path, options)
        if not self._has_committed(note):  # Delta does not report an append that it skipped
            raise ConflictError(self.path)


def _append_rows(rows: DataFrame, path: str, options: dict[str, str]) -> None:
    # By name, because an append to a path was seen to recreate a table that had been dropped.
    writer = rows.writeTo(f"spark_catalog.{quote_path(path)}").options(**options)
    with explain_failures(path):
        try:
            writer.append()
        except (Py4JJavaError, PySparkException) as error:
            text = f"{type(error).__name__}: {error}"
            if _CONFLICT.search(text):
                raise ConflictError(path) from error
            if _DROPPED.search(text) or _ALTERED.search(text):
                raise changed_table_error(path) from error
            raise
