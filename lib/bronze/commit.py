"""The direct writer on the driver: write a batch through its tasks, then commit the files to both tables.

The DLQ is committed before bronze. A crash between the two leaves a batch that Spark runs again at the next start,
and the overlap guard then leaves out what is in the tables already.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction
from pyspark.sql import DataFrame

from bronze.errors import AppendConflict
from bronze.files import DataFile
from bronze.tables import to_local_path
from bronze.transforms import OffsetRanges
from bronze.writer import BatchResult, BatchTask, write_batch

log = logging.getLogger(__name__)

# Everything of ours that appends to a table advances this application's version in it, so that two appends
# conflict; Delta lets blind appends pass each other.
SHARED_APP_ID = "bronze-writer"
ATTEMPTS = 5


class _ConflictError(Exception):
    """Raised when somebody else appended to a table since its version was read."""


class TableLog:
    """The log of one table: has anybody else appended, and the commit of new files."""

    def __init__(self, path: str):
        self.path = path
        self._table = DeltaTable(path)
        self._seen = self._read_version()

    def _read_version(self) -> int:
        # A handle stays at the version it was opened at, even after its own commit.
        self._table.update_incremental()
        return self._table.transaction_version(SHARED_APP_ID) or 0

    def has_changed(self) -> bool:
        """Whether anybody appended since this was last asked, other than through this object."""
        before, self._seen = self._seen, self._read_version()
        return before != self._seen

    def commit(self, files: list[DataFile], app_id: str, batch_id: int) -> None:
        """Append files in one transaction; no files, no commit."""
        if not files:
            return
        if self._read_version() != self._seen:
            raise _ConflictError(self.path)
        transactions = [Transaction(app_id, batch_id), Transaction(SHARED_APP_ID, self._seen + 1)]
        try:
            self._table.create_write_transaction(
                [_describe_addition(file) for file in files],
                mode="append",
                schema=self._table.schema(),
                partition_by=self._table.metadata().partition_columns,
                commit_properties=CommitProperties(app_transactions=transactions),
            )
        except CommitFailedError as error:
            log.info("Commit to %s failed: %s", self.path, error)
            raise _ConflictError(self.path) from error
        self._seen += 1


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
    ) -> BatchResult:
        """Write a batch and commit it to both tables.

        When others appended meanwhile, what they appended is left out of the files before the next attempt.

        Args:
            batch: Kafka records.
            task: What the tasks need; ``present`` as of the last ``has_changed``.
            app_id: Application of the Delta transactions, the streaming query's id.
            find_present: Looks up anew which of the batch's offsets are in the tables.

        Raises:
            AppendConflict: Others kept committing first.
        """
        first = result = write_batch(batch, task)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                for name, table in self._logs.items():
                    table.commit(getattr(result, name), app_id, task.batch_id)
                return first
            except _ConflictError as conflict:
                log.info("Batch %d: others appended to %s, attempt %d", task.batch_id, conflict, attempt)
                if attempt == ATTEMPTS:
                    break
            time.sleep(random.uniform(0.05, 0.2) * 2**attempt)
            self.has_changed()
            present = find_present()
            if present != task.present:
                task = replace(task, present=present)
                result = write_batch(batch, task)
        raise AppendConflict(task.bronze_path, ATTEMPTS)
