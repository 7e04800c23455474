"""The one commit rule of all appends of ours, by either writer: live, backfill and replay.

Every commit of ours in a table advances SHARED_APP_ID there from the version that its writer saw before it looked up
what the tables have. So of two writers that looked up the same state, one commits; the other one looks up again, leaves
out what is there by now, and tries again. The DLQ is committed before bronze: a crash between the two leaves a batch
that Spark runs again at the next start, and the overlap guard then leaves out what is in the tables.
"""

import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec
from pyspark.sql import DataFrame, SparkSession

from bronze.ledger import CommitNote, FoundNote, Place, TopicLedger, find_note, find_restore, merge_all, new_note
from bronze.offsets import OffsetRanges, find_bounds, select_overlap
from bronze.storage_errors import AppendConflict, DlqChanged, DlqTaken
from bronze.tables import read_commit
from bronze.writer import BatchResult, BatchTask

log = logging.getLogger(__name__)
ATTEMPTS = 5
Answer = TypeVar("Answer")


class ConflictError(Exception):
    """Raised when somebody else of ours appended to a table since it was looked up."""


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
            TableChanged: It is another table, or was altered, since it was opened.
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
                "Warning: %s was restored to an earlier version while this run uses it; bronze audit says what is "
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
            TableChanged: It is another table, or was altered.
        """
        self.check_unchanged()
        assert self._state is not None
        version, shared = self._state
        self._append(rows, note, shared + 1)
        # Where others committed in between, the table's version is higher, and the next ``refresh`` says so.
        self._state = (version + 1, shared + 1)
        self.found = FoundNote(version + 1, note)


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
            TableChanged: A table is another one, or was altered.
            DlqChanged: Another run has given bronze another DLQ.
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
            AppendConflict: Others committed first, each time.
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
            AppendConflict: Others committed first, each time.
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
            DlqTaken: Another bronze table has taken the DLQ since.
        """
        if dlq := self._tables.get("dlq"):

            def commit(_: bool) -> None:
                found = dlq.note.bronze.get(topic)
                if found and found.id not in (bronze.id, owner.id if owner else ""):
                    raise DlqTaken(dlq.path, topic, found.path)
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
                raise DlqChanged(bronze.path, topic, named.path if named else "")

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
        raise AppendConflict(path, ATTEMPTS)

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
