"""The direct writer on the driver: write a batch through its tasks, then commit the files to both tables.

The DLQ is committed before bronze. A crash between the two leaves a batch that Spark runs again at the next start,
and the overlap guard then leaves out what is in the tables already.
"""

import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction
from pyspark.sql import DataFrame, SparkSession

from bronze.failures import explain_failures
from bronze.files import DataFile
from bronze.log_checkpoint import LogCheckpoints, read_interval
from bronze.offsets import OffsetRanges
from bronze.storage_errors import AppendConflict, FileNotSeen, TableChanged
from bronze.tables import is_watched, to_local_path
from bronze.writer import BatchResult, BatchTask, write_batch

log = logging.getLogger(__name__)

# Everything of ours that appends to a table advances this application's version in it, so that two appends
# conflict; Delta lets blind appends pass each other.
SHARED_APP_ID = "bronze-writer"
ATTEMPTS = 5
# As Spark says it of its own appends. An UPDATE that began before one need not conflict then, where the isolation level
# of the engine that runs it allows that (WriteSerializable).
_BLIND = {"isBlindAppend": True}
# deltalake reads some retentions otherwise than Delta does, and would delete what the table's owner keeps.
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


class _ConflictError(Exception):
    """Raised when somebody else appended to a table since its version was read."""


class TableLog:
    """The log of one table: has anybody else appended, and the commit of new files.

    ``has_changed`` notices every foreign commit, also of writers that are not ours. What makes a commit fail is only
    the shared transaction, so OPTIMIZE and DELETE are in nobody's way.
    """

    def __init__(self, path: str):
        self.path = path
        self._table = DeltaTable(path)
        self._shape = self._describe_shape()
        self._newest = self._stat_newest()
        self._seen = self._read_version()
        self._commits = self._table.version()
        self._checkpoints = LogCheckpoints(path)

    def _read_version(self) -> int:
        # A handle goes on as if nothing was when the table is deleted and made anew: its newest commit is another then.
        newest = self._stat_newest()
        if newest:
            # It stays at the version it was opened at, even after its own commit.
            self._table.update_incremental()
        else:  # the log was cleaned, or the table is gone; what a new handle says tells which
            self._table = self._reopen()
        if newest not in ((), self._newest) or self._describe_shape() != self._shape:
            raise TableChanged(self.path)
        self._newest = self._stat_newest()
        return self._table.transaction_version(SHARED_APP_ID) or 0

    def _reopen(self) -> DeltaTable:
        try:
            return DeltaTable(self.path)
        except DeltaError:
            raise TableChanged(self.path) from None

    def _describe_shape(self) -> tuple[object, ...]:
        """What was checked at the start: another identity, schema, constraint or feature must be checked anew."""
        metadata, features = self._table.metadata(), self._table.protocol().writer_features
        properties = {k: v for k, v in metadata.configuration.items() if is_watched(k)}
        return metadata.id, json.loads(self._table.schema().to_json()), metadata.partition_columns, properties, features

    def _stat_newest(self) -> tuple[int, ...]:
        """Which file the newest commit is that this handle knows; nothing where it is gone."""
        try:
            file = Path(self.path, "_delta_log", f"{self._table.version():020}.json").stat()
        except FileNotFoundError:
            return ()
        return file.st_ino, file.st_mtime_ns

    def has_changed(self) -> bool:
        """Whether anybody committed since this was last asked, other than through this object."""
        before, self._seen = (self._seen, self._commits), self._read_version()
        self._commits = self._table.version()
        return before != (self._seen, self._commits)

    def check_unchanged(self) -> None:
        """Raise the conflict that a commit would, before any table is committed to."""
        if self._read_version() != self._seen:
            raise _ConflictError(self.path)

    def commit(self, files: list[DataFile], app_id: str, batch_id: int) -> None:
        """Append files in one transaction; without files, it tells other writers that there was a batch."""
        self.check_unchanged()
        self._check_files(files)
        transactions = [Transaction(app_id, batch_id), Transaction(SHARED_APP_ID, self._seen + 1)]
        with explain_failures(f"{self.path}/_delta_log"):
            self._append(files, transactions)
        self._seen += 1
        self._commits += 1

    def write_checkpoint_if_due(self, spark: SparkSession) -> None:
        """Keep the log short to open; after the commits of a batch, so that none waits for it."""
        self._checkpoints.write_if_due(spark, self._commits, read_interval(self._table.metadata().configuration))

    def _append(self, files: list[DataFile], transactions: list[Transaction]) -> None:
        try:
            self._table.create_write_transaction(
                [_describe_addition(file) for file in files],
                mode="append",
                schema=self._table.schema(),
                partition_by=self._table.metadata().partition_columns,
                commit_properties=CommitProperties(app_transactions=transactions, custom_metadata=_BLIND),
                post_commithook_properties=_NO_HOOKS,
            )
        except CommitFailedError as error:
            log.info("Commit to %s failed: %s", self.path, error)
            raise _ConflictError(self.path) from error

    def _check_files(self, files: list[DataFile]) -> None:
        """On a cluster, an executor's ``file:`` path is its own disk unless it is mounted from a shared one."""
        for file in files:
            path = Path(self.path, file.path)
            if not path.is_file() or path.stat().st_size != file.size:
                raise FileNotSeen(str(path))


def _describe_addition(file: DataFile) -> AddAction:
    return AddAction(
        file.path,
        file.size,
        file.partition_values,
        file.modification_time,
        data_change=True,
        stats=file.stats,
    )


class DirectWriter:
    """Appends batches to the tables without Spark's Delta writer: files from the tasks, commits from the driver."""

    def __init__(self, bronze_path: str, dlq_path: str = ""):
        self._logs = {"dlq": TableLog(to_local_path(dlq_path) or "")} if dlq_path else {}
        self._logs["bronze"] = TableLog(to_local_path(bronze_path) or "")

    def has_changed(self) -> bool:
        """Whether anybody else appended to a table since this was last asked."""
        changed = [table.has_changed() for table in self._logs.values()]  # a list: each must look
        return any(changed)

    def append(
        self,
        batch: DataFrame,
        task: BatchTask,
        app_id: str,
        find_present: Callable[[], OffsetRanges],
        check_topic: Callable[[], None] = lambda: None,
    ) -> BatchResult:
        """Write a batch and commit it to both tables.

        When others appended meanwhile, what they appended is left out of the files before the next attempt.

        Args:
            batch: Kafka records.
            task: What the tasks need; ``present`` as of the last ``has_changed``.
            app_id: Application of the Delta transactions, the streaming query's id.
            find_present: Looks up anew which of the batch's offsets are in the tables.
            check_topic: Raises where what was read are not the topic's records; called before anything is committed.

        Raises:
            AppendConflict: Others kept committing first.
        """
        result = write_batch(batch, task)
        committed: dict[str, BatchResult] = {}
        path = ""
        for attempt in range(1, ATTEMPTS + 1):
            check_topic()
            try:
                self._commit(result, committed, app_id, task.batch_id)
                for table in self._logs.values():
                    table.write_checkpoint_if_due(batch.sparkSession)
                return _count_committed(committed)
            except _ConflictError as conflict:
                path = str(conflict)
                log.info("Batch %d: others appended to %s, attempt %d", task.batch_id, path, attempt)
            if attempt < ATTEMPTS:
                time.sleep(random.uniform(0.05, 0.2) * 2**attempt)
                self.has_changed()
                task, result = _leave_out(batch, task, result, find_present())
        raise AppendConflict(path, ATTEMPTS)

    def _commit(self, result: BatchResult, committed: dict[str, BatchResult], app_id: str, batch_id: int) -> None:
        """Commit to each table that was not committed to yet.

        A batch that is invalid throughout is committed to bronze too, without files: a writer with another DLQ, or
        none, watches bronze only.
        """
        for table in self._logs.values():
            table.check_unchanged()
        for name, table in self._logs.items():
            if name not in committed:
                if getattr(result, name) or (name == "bronze" and result.dlq):
                    table.commit(getattr(result, name), app_id, batch_id)
                committed[name] = result


def _leave_out(
    batch: DataFrame, task: BatchTask, result: BatchResult, present: OffsetRanges
) -> tuple[BatchTask, BatchResult]:
    """Write the batch again without what others appended meanwhile; as it was where that is nothing."""
    if present == task.present:
        return task, result
    task = replace(task, present=present)
    return task, write_batch(batch, task)


def _count_committed(committed: dict[str, BatchResult]) -> BatchResult:
    """The counts of what each table got, where an attempt that lost had counted more."""
    bronze = committed["bronze"]
    invalid = committed.get("dlq", bronze).invalid
    present = bronze.total - bronze.valid - sum(invalid.values())
    return msgspec.structs.replace(bronze, invalid=invalid, present=present)
