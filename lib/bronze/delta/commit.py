"""The one commit rule of all appends of ours, by either writer: live, backfill and replay.

Every commit of ours in a table advances SHARED_APP_ID there from the version that its writer saw before it looked up
what the tables have. So of two writers that looked up the same state, one commits; the other one looks up again, leaves
out what is there by now, and tries again. The DLQ is committed before bronze: a crash between the two leaves a batch
that Spark runs again at the next start, and the overlap guard then leaves out what is in the tables.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec
from pyspark.sql import DataFrame, SparkSession

from bronze.delta.binding import changed_dlq_error, taken_dlq_error
from bronze.delta.ledger import CommitNote, Place, TopicLedger, new_note
from bronze.delta.own_table import ConflictError, OwnTable
from bronze.errors import AppendConflictError
from bronze.offsets import EMPTY, OffsetSet
from bronze.tasks import BatchTask
from bronze.transforms import Counts

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
    covered: OffsetSet = EMPTY
    uncertain: OffsetSet = EMPTY
    begins: Mapping[int, int] = field(default_factory=dict)

    def is_news(self, ledger: TopicLedger) -> bool:
        """Whether the ledger is to know of the batch: that it read offsets, or where a stream began.

        The offsets of a replay were read before. A stream's first batch may be empty.
        """
        return self.kind != "replay" and (bool(self.covered) or not self.begins.keys() <= ledger.begins.keys())


@dataclass(frozen=True)
class Written:
    """A batch that is ready to be committed: its counts, and for each table what is to be appended (None: nothing)."""

    counts: Counts
    rows: dict[str, Any]


class TableWriter:
    """Commits batches to the tables, the DLQ before bronze; the subclasses say how rows are written and committed."""

    def __init__(
        self,
        tables: Mapping[str, OwnTable],
        write: Callable[[DataFrame, BatchTask], AbstractContextManager[Written]],
    ):
        """
        Args:
            tables: ``dlq``, where there is one, before ``bronze``.
            write: Decodes Kafka records and writes their rows, which ``commit`` takes while the block lasts.
        """
        self._tables, self.write = dict(tables), write
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

    def mark_counted(self, task: BatchTask, source: Source) -> BatchTask:
        """The task with the offsets whose records the ledger has counted, or will count after the commit."""
        known = self.ledger.get(source.topic, TopicLedger()).read
        return replace(task, counted=(known & source.covered) | source.uncertain)

    def commit(self, written: Written, committed: dict[str, Counts], source: Source, batch_id: int) -> None:
        """Commit to each table that was not committed to yet.

        Bronze is committed to also where a batch has no rows for it: it must know which offsets were read.

        Args:
            written: The batch.
            committed: The counts of what each table has of it by now; an attempt after a conflict has the same.
            source: What the commits say of the batch.
            batch_id: Batch of the query.

        Raises:
            ConflictError: Another writer of ours has committed since the last look.
        """
        is_news = source.is_news(self.ledger.get(source.topic, TopicLedger()))
        for table in self._tables.values():
            table.check_unchanged()
        for name, table in self._tables.items():
            if name not in committed:
                must_know = name == "bronze" and is_news
                if written.rows.get(name) is not None or must_know:
                    note = _make_note(table.note, source, written.counts, batch_id)
                    table.commit(written.rows.get(name), _add_read(note, source, written.counts) if must_know else note)
                committed[name] = written.counts

    def keep_logs_short(self, spark: SparkSession) -> None:
        """After the commits of a batch: what the writer does for those who open the tables; nothing may fail by it."""
        for table in self._tables.values():
            table.keep_log_short(spark)

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

        self.retry(commit, f"Ledger of {topic}")

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

            self.retry(commit, f"DLQ of {topic}")
        self.change_ledger(topic, change)
        self._bound = (topic, self.ledger[topic].dlq, bronze)

    def renew(self) -> None:
        """Commit once more what the newest commits of ours say of the tables, without rows.

        A writer of ours that has looked up a table before must look again then; and no clean-up of the log takes it.
        """
        for table in self._tables.values():

            def commit(_: bool, table: OwnTable = table) -> None:
                table.commit(None, new_note("ledger", ledger=table.note.ledger, bronze=table.note.bronze))

            self.retry(commit, f"Ledger of {table.path}")

    def _check_bound(self) -> None:
        """Raise where another run has changed the DLQ of bronze, or the bronze table of the DLQ."""
        if self._bound:
            topic, place, bronze = self._bound
            dlq, named = self._tables.get("dlq"), self.ledger.get(topic, TopicLedger()).dlq
            owner = dlq.note.bronze.get(topic, bronze) if dlq else bronze
            if (named and named.id) != (place and place.id) or owner.id != bronze.id:
                raise changed_dlq_error(bronze.path, topic, named.path if named else "")

    def retry(self, commit: Callable[[bool], Answer], name: str) -> Answer:
        """Commit until no other commit of ours came first; from the second time on, with the tables' newest state.

        Args:
            commit: Takes whether a conflict came before.
            name: What is committed, for the log.

        Raises:
            AppendConflictError: Others committed first, each time.
        """
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


def _make_note(before: CommitNote, source: Source, counts: Counts, batch_id: int) -> CommitNote:
    """What a commit says of its batch, and what the commit before said of the table."""
    return new_note(
        source.kind,
        query_id=source.query_id,
        batch_id=batch_id,
        topic=source.topic,
        offsets=source.covered,
        counts={name: getattr(counts, name) for name in ("total", "valid", "invalid", "present")},
        ledger=before.ledger,
        bronze=before.bronze,
    )


def _add_read(note: CommitNote, source: Source, counts: Counts) -> CommitNote:
    """The note with the batch added to the ledger."""
    known = note.ledger.get(source.topic, TopicLedger()).add_read(source.covered, counts.fresh, source.begins)
    return msgspec.structs.replace(note, ledger={**note.ledger, source.topic: known})
