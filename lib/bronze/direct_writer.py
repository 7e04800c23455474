"""The direct writer: files written by the tasks, commits made by the driver through deltalake."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction
from pyspark.sql import DataFrame, SparkSession

from bronze.commit import ConflictError, OwnTable, TableWriter, Written
from bronze.failures import explain_failures
from bronze.files import DataFile
from bronze.ledger import SHARED_APP_ID, CommitNote
from bronze.log_checkpoint import LogCheckpoints, read_interval
from bronze.storage_errors import FileNotSeen, TableChanged
from bronze.tables import is_watched, to_local_path
from bronze.writer import BatchTask, write_batch

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
        self._newest = _identify_commit(path, self._table.version())
        self._checkpoints = LogCheckpoints(path)
        super().__init__(path)

    def _read_state(self) -> tuple[int, int]:
        found = _identify_commit(self.path, self._table.version())
        if found is None:  # the log was cleaned, or another table is there
            self._table = self._open_again()
        elif found != self._newest:
            raise TableChanged(self.path)
        else:
            self._table.update_incremental()  # a handle stays at its version, even after its own commit
        if _read_shape(self._table) != self._shape:
            raise TableChanged(self.path)
        self._newest = _identify_commit(self.path, self._table.version())
        return self._table.version(), self._table.transaction_version(SHARED_APP_ID) or 0

    def _open_again(self) -> DeltaTable:
        try:
            table = DeltaTable(self.path)
        except DeltaError:
            raise TableChanged(self.path) from None
        if table.version() < self._table.version():
            raise TableChanged(self.path)
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


def _identify_commit(path: str, version: int) -> tuple[int, int] | None:
    """Which file a commit is; None where it is gone.

    A DeltaTable handle does not notice that its table was deleted and recreated: the commit it knows is another then.
    """
    try:
        file = Path(path, "_delta_log", f"{version:020}.json").stat()
    except FileNotFoundError:
        return None
    return file.st_ino, file.st_mtime_ns


def _check_files(path: str, files: list[DataFile]) -> None:
    """On a cluster, an executor's ``file:`` path is its own disk unless it is mounted from a shared one."""
    for file in files:
        written = Path(path, file.path)
        if not written.is_file() or written.stat().st_size != file.size:
            raise FileNotSeen(str(written))


def _to_action(file: DataFile) -> AddAction:
    return AddAction(
        file.path,
        file.size,
        file.partition_values,
        file.modification_time,
        data_change=True,
        stats=file.stats,
    )


@contextmanager
def _write_files(batch: DataFrame, task: BatchTask) -> Iterator[Written]:
    """Write a batch's files; they are part of a table once they are committed."""
    result = write_batch(batch, task)
    yield Written(result, {"dlq": result.dlq or None, "bronze": result.bronze or None})


class DirectWriter(TableWriter):
    """Appends batches to the tables without Spark's Delta writer."""

    def __init__(self, bronze_path: str, dlq_path: str = ""):
        paths = {"dlq": dlq_path, "bronze": bronze_path}
        tables = {name: TableLog(to_local_path(path) or "") for name, path in paths.items() if path}
        super().__init__(tables, _write_files)
