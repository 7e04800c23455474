"""The two writers: how the rows of a batch are made and appended to the tables.

The direct writer's tasks write the files, and the driver commits them. The delta-spark writer, for tables that the
direct writer cannot append to, decodes in the same tasks; the rows go back to Spark and are kept while both tables are
written.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import msgspec
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bronze.delta.binding import changed_dlq_error, taken_dlq_error
from bronze.delta.commit import ConflictError, OwnTable, SparkTable, TableLog
from bronze.delta.ledger import CommitNote, Place, TopicLedger, merge_all, new_note
from bronze.delta.tables import CheckedTable, find_obstacle
from bronze.errors import AppendConflictError, ConfigError
from bronze.offsets import OffsetRanges, find_bounds, select_overlap
from bronze.runtime.paths import to_local_path
from bronze.tasks import ROWS_SCHEMA, BatchResult, BatchTask, merge_results, split_partition, write_batch

log = logging.getLogger(__name__)
ATTEMPTS = 5
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Source:
    """Where a batch comes from, and what its commits say of it.

    Attributes:
        kind: ``ingest``, ``backfill`` or ``replay``.
        query_id: The streaming query, or the run.
        topic: Kafka topic.
        covered: Offsets that the batch reads from Kafka; of a replay, those that it appends.
        uncertain: Offsets that it may have read, or Kafka had deleted before; known after the commit.
        begins: Where the stream began, per partition; empty for a backfill or replay.
    """

    kind: str
    query_id: str
    topic: str
    covered: OffsetRanges = field(default_factory=dict)
    uncertain: OffsetRanges = field(default_factory=dict)
    begins: Mapping[int, int] = field(default_factory=dict)

    def is_news(self, ledger: TopicLedger) -> bool:
        """Whether the ledger is to know of the batch: that it read offsets, or where a stream began.

        The offsets of a replay were read before. A stream's first batch may be empty.
        """
        return self.kind != "replay" and (bool(self.covered) or not self.begins.keys() <= ledger.begins.keys())


@dataclass(frozen=True)
class Written:
    """A batch that is ready to be committed: its counts, and for each table what is to be appended (None: nothing)."""

    result: BatchResult
    rows: dict[str, Any]


class TableWriter:
    """Appends batches to the tables; the subclasses say how rows are written and committed."""

    def __init__(
        self,
        tables: Mapping[str, OwnTable],
        write: Callable[[DataFrame, BatchTask], AbstractContextManager[Written]],
    ):
        self._tables = dict(tables)  # "dlq", where there is one, before "bronze"
        self._write = write
        self._bound: tuple[str, Place | None, Place] | None = None
        self._has_missed = False  # whether a retry has seen commits of others that nobody was told of

    @property
    def ledger(self) -> dict[str, TopicLedger]:
        """What bronze knows of each topic, as of the last look."""
        return self._tables["bronze"].note.ledger

    def has_changed(self) -> bool:
        """Whether anybody committed to a table since this was last asked, other than through this object.

        Raises:
            BronzeError: A table is another one, or was altered.
            ConfigError: Another run has given bronze another DLQ.
        """
        has_changed, self._has_missed = self._look() or self._has_missed, False
        return has_changed

    def _look(self) -> bool:
        changed = [table.refresh() for table in self._tables.values()]  # a list: each must look
        self._check_bound()
        return any(changed)

    def append(
        self,
        batch: DataFrame,
        task: BatchTask,
        source: Source,
        find_present: Callable[[], OffsetRanges],
        check_topic: Callable[[], None] = lambda: None,
    ) -> BatchResult:
        """Write a batch and commit it to both tables.

        Where others appended meanwhile, what they appended is left out of it before the next attempt.

        Args:
            batch: Kafka records.
            task: What the tasks need; ``present`` as of the last ``has_changed``.
            source: What the commits say of the batch.
            find_present: Looks up again which of the batch's offsets are in the tables.
            check_topic: Raises where what was read are not the topic's records; called before anything is committed.

        Raises:
            AppendConflictError: Others committed first, each time.
        """
        task = self._mark_counted(task, source)
        committed: dict[str, BatchResult] = {}
        with ExitStack() as stack:
            written = stack.enter_context(self._write(batch, task))

            def commit(has_conflict: bool) -> BatchResult:
                nonlocal task, written
                renewed = self._mark_counted(replace(task, present=find_present()), source) if has_conflict else task
                if renewed != task:
                    task = renewed
                    stack.close()
                    written = stack.enter_context(self._write(batch, task))
                check_topic()
                self._commit(written, committed, source, task.batch_id)
                for table in self._tables.values():
                    table.keep_log_short(batch.sparkSession)
                return _count_committed(committed)

            return self._retry(commit, f"Batch {task.batch_id}")

    def change_ledger(self, topic: str, change: Callable[[TopicLedger], TopicLedger]) -> None:
        """Commit a change of what bronze knows of a topic; nothing where it changes nothing.

        Raises:
            AppendConflictError: Others committed first, each time.
        """

        def commit(_: bool) -> None:
            before = self.ledger.get(topic, TopicLedger())
            if (after := change(before)) != before:
                note = new_note("ledger", topic=topic, ledger={**self.ledger, topic: after})
                self._tables["bronze"].commit(None, note)

        self._retry(commit, f"Ledger of {topic}")

    def bind(
        self, topic: str, change: Callable[[TopicLedger], TopicLedger], bronze: Place, owner: Place | None = None
    ) -> None:
        """Commit to the DLQ which bronze table it belongs to, and to bronze which DLQ; from now on both are watched.

        Args:
            topic: Kafka topic.
            change: Makes the new ledger of the topic.
            bronze: The bronze table.
            owner: The bronze table that the DLQ belonged to when it was checked.

        Raises:
            ConfigError: Another bronze table has taken the DLQ since.
        """
        if dlq := self._tables.get("dlq"):

            def commit(_: bool) -> None:
                found = dlq.note.bronze.get(topic)
                if found and found.id not in (bronze.id, owner.id if owner else ""):
                    raise taken_dlq_error(dlq.path, topic, found.path)
                if found != bronze:
                    dlq.commit(None, new_note("ledger", topic=topic, bronze={**dlq.note.bronze, topic: bronze}))

            self._retry(commit, f"DLQ of {topic}")
        self.change_ledger(topic, change)
        self._bound = (topic, self.ledger[topic].dlq, bronze)

    def renew(self) -> None:
        """Commit once more what the newest commits of ours say of the tables, without rows.

        A writer of ours that has looked up a table before must look again then; and no clean-up of the log takes it.
        """
        for table in self._tables.values():

            def commit(_: bool, table: OwnTable = table) -> None:
                table.commit(None, new_note("ledger", ledger=table.note.ledger, bronze=table.note.bronze))

            self._retry(commit, f"Ledger of {table.path}")

    def _check_bound(self) -> None:
        """Raise where another run has changed the DLQ of bronze, or the bronze table of the DLQ."""
        if self._bound:
            topic, place, bronze = self._bound
            dlq, named = self._tables.get("dlq"), self.ledger.get(topic, TopicLedger()).dlq
            owner = dlq.note.bronze.get(topic, bronze) if dlq else bronze
            if (named and named.id) != (place and place.id) or owner.id != bronze.id:
                raise changed_dlq_error(bronze.path, topic, named.path if named else "")

    def _retry(self, commit: Callable[[bool], Answer], name: str) -> Answer:
        """Commit until no other commit of ours came first; from the second time on, with the tables' newest state."""
        path = ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return commit(attempt > 1)
            except ConflictError as conflict:
                path = str(conflict)
                log.info("%s: others appended to %s, attempt %d", name, path, attempt)
            if attempt < ATTEMPTS:
                time.sleep(random.uniform(0.05, 0.2) * 2**attempt)
                self._has_missed = self._look() or self._has_missed
        raise AppendConflictError(
            f"could not commit to {path} in {ATTEMPTS} attempts, because other writers kept committing first",
            hint="nothing was lost, run the same command again",
        )

    def _mark_counted(self, task: BatchTask, source: Source) -> BatchTask:
        known = self.ledger.get(source.topic, TopicLedger()).read
        counted = merge_all(select_overlap(known, find_bounds(source.covered)), source.uncertain)
        return replace(task, counted=counted)

    def _commit(self, written: Written, committed: dict[str, BatchResult], source: Source, batch_id: int) -> None:
        """Commit to each table that was not committed to yet.

        Bronze is committed to also where a batch has no rows for it: it must know which offsets were read.
        """
        is_news = source.is_news(self.ledger.get(source.topic, TopicLedger()))
        for table in self._tables.values():
            table.check_unchanged()
        for name, table in self._tables.items():
            if name not in committed:
                must_know = name == "bronze" and is_news
                if written.rows.get(name) is not None or must_know:
                    note = _make_note(table.note, source, written.result, batch_id)
                    if must_know:
                        note = _add_read(note, source, written.result)
                    table.commit(written.rows.get(name), note)
                committed[name] = written.result


def _make_note(before: CommitNote, source: Source, result: BatchResult, batch_id: int) -> CommitNote:
    """What a commit says of its batch, and what the commit before said of the table."""
    invalid = sum(result.invalid.values())
    return new_note(
        source.kind,
        query_id=source.query_id,
        batch_id=batch_id,
        topic=source.topic,
        offsets=source.covered,
        counts={"total": result.total, "valid": result.valid, "invalid": invalid, "present": result.present},
        ledger=before.ledger,
        bronze=before.bronze,
    )


def _add_read(note: CommitNote, source: Source, result: BatchResult) -> CommitNote:
    """The note with the batch added to the ledger."""
    known = note.ledger.get(source.topic, TopicLedger()).add_read(source.covered, result.fresh, source.begins)
    return msgspec.structs.replace(note, ledger={**note.ledger, source.topic: known})


def _count_committed(committed: dict[str, BatchResult]) -> BatchResult:
    """The counts of what each table got, where an attempt that lost had counted more."""
    bronze = committed["bronze"]
    invalid = committed.get("dlq", bronze).invalid
    present = bronze.total - bronze.valid - sum(invalid.values())
    return msgspec.structs.replace(bronze, invalid=invalid, present=present)


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


@contextmanager
def _write_rows(batch: DataFrame, task: BatchTask) -> Iterator[Written]:
    """Decode a batch once, and keep its rows until both tables have them."""
    rows = batch.mapInArrow(partial(split_partition, task=task), ROWS_SCHEMA).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        encoded = rows.where(F.col("result").isNotNull()).select("result").collect()
        result = merge_results(msgspec.json.decode(row["result"], type=BatchResult) for row in encoded)
        counts = count_rows(result, bool(task.dlq_path))
        selected = {
            name: rows.where(F.col(name).isNotNull()).select(f"{name}.*") if count else None
            for name, count in counts.items()
        }
        yield Written(result, selected)
    finally:
        rows.unpersist()


def count_rows(result: BatchResult, has_dlq: bool) -> dict[str, int]:
    """How many rows of a batch are for each table."""
    invalid = sum(result.invalid.values())
    return {"dlq": invalid if has_dlq else 0, "bronze": result.valid + (0 if has_dlq else invalid)}


class SparkWriter(TableWriter):
    """Appends batches to the tables by Spark's own Delta writer."""

    def __init__(self, bronze_path: str, dlq_path: str = ""):
        paths = {"dlq": dlq_path, "bronze": bronze_path}
        tables = {name: SparkTable(path) for name, path in paths.items() if path}
        super().__init__(tables, _write_rows)


def check_writer(writer: str, tables: Sequence[CheckedTable]) -> str:
    """Why the direct writer cannot append to the tables correctly; empty where it can.

    Raises:
        ConfigError: It is asked for all the same.
    """
    obstacle = next(filter(None, (find_obstacle(table.path, table.state) for table in tables)), "")
    if writer == "direct" and obstacle:
        raise ConfigError(f"--writer direct cannot be used: {obstacle}", hint="use --writer auto or delta-spark")
    return obstacle


def choose_writer(writer: str, tables: Sequence[CheckedTable]) -> type[DirectWriter] | type[SparkWriter]:
    """The direct writer wherever it can append correctly, unless delta-spark is asked for; says so in the log.

    Args:
        writer: The option.
        tables: The tables as they are, not before they are created.

    Raises:
        ConfigError: The direct writer is asked for where it cannot.
    """
    obstacle = check_writer(writer, tables)
    if writer == "delta-spark" or obstacle:
        log.info("Writer: delta-spark, because %s", obstacle or "--writer asks for it")
        return SparkWriter
    log.info("Writer: direct, because %s", "--writer asks for it" if writer == "direct" else "nothing is in its way")
    return DirectWriter
