"""The commit rule of all appends of this package (ingestion, backfill, replay), for both writers.

Each commit advances the table's version of SHARED_APP_ID from the version that its writer read before it looked up the
tables. So of two writers that saw the same state, only one can commit. The other one looks up again, skips the records
that exist by now, and retries. The DLQ is committed before bronze. After a crash between the two commits, Spark runs
the batch again at the next start, and the overlap guard skips the records that are already in the tables.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from threading import Thread
from typing import Any

import msgspec
from pyspark.sql import DataFrame, SparkSession

from bronze.delta.binding import changed_dlq_error, taken_dlq_error
from bronze.delta.ledger import CommitNote, Place, TopicLedger, new_note
from bronze.delta.log_files import try_checkpoint
from bronze.delta.own_table import ConflictError, OwnTable
from bronze.errors import AppendConflictError
from bronze.offsets import EMPTY, OffsetSet
from bronze.runtime.retry import ATTEMPTS, Answer, retry_conflicts
from bronze.runtime.spark_errors import is_interrupt
from bronze.runtime.stats import BatchStats
from bronze.tasks import BatchTask
from bronze.transforms import Counts

log = logging.getLogger(__name__)
_PAUSE = (0.05, 0.2)
_CHECKPOINT_TIMEOUT = 60  # seconds


@dataclass(frozen=True)
class Source:
    """The origin of a batch, for the notes of its commits.

    Attributes:
        kind: ``ingest``, ``backfill`` or ``replay``.
        query_id: Id of the streaming query, or of the run.
        topic: Kafka topic.
        covered: Offsets that the batch reads from Kafka; for a replay, those that it appends.
        uncertain: Offsets that it read unless Kafka deleted them before; resolved after the commit.
        begins: Offset at which the stream began, per partition; empty for a backfill or replay.
    """

    kind: str
    query_id: str
    topic: str
    covered: OffsetSet = EMPTY
    uncertain: OffsetSet = EMPTY
    begins: Mapping[int, int] = field(default_factory=dict)

    def is_news(self, ledger: TopicLedger) -> bool:
        """Whether the batch changes the ledger: it read offsets, or a stream began.

        The offsets of a replay were read before. A stream's first batch may be empty.
        """
        return self.kind != "replay" and (bool(self.covered) or not self.begins.keys() <= ledger.begins.keys())


@dataclass(frozen=True)
class Written:
    """A batch that is ready to commit: its counts, and the rows to append per table (None: no rows)."""

    counts: Counts
    rows: dict[str, Any]


class TableWriter(AbstractContextManager["TableWriter"]):
    """Commits batches to the tables, the DLQ before bronze. The subclasses define how rows are written."""

    def __init__(
        self,
        tables: Mapping[str, OwnTable],
        write: Callable[[DataFrame, BatchTask], AbstractContextManager[Written]],
    ):
        """
        Args:
            tables: ``dlq``, if one is configured, before ``bronze``.
            write: Decodes Kafka records and writes their rows, within a context.
        """
        self._tables, self._write = dict(tables), write
        self.stats = BatchStats()  # of the current batch
        self._bound: tuple[str, Place | None, Place] | None = None
        self._background: Thread | None = None
        self._has_missed = False  # whether a retry saw other writers' commits that has_changed has not reported yet

    @contextmanager
    def write(self, batch: DataFrame, task: BatchTask) -> Iterator[Written]:
        """Decode Kafka records and write their rows, which ``commit`` takes within the context."""
        with ExitStack() as stack:
            with self.stats.time("write"):
                written = stack.enter_context(self._write(batch, task))
            yield written

    @property
    def ledger(self) -> dict[str, TopicLedger]:
        """Bronze's ledger of each topic, as last read."""
        return self._tables["bronze"].note.ledger

    @property
    def versions(self) -> dict[str, int]:
        """The version of each table after this object's last refresh or commit."""
        return {name: table.version for name, table in self._tables.items()}

    def has_changed(self) -> bool:
        """Whether a table has commits since the last call that this object did not make.

        Raises:
            BronzeError: A table was replaced or altered.
            ConfigError: Another run has changed the DLQ of bronze.
        """
        has_changed, self._has_missed = self._look() or self._has_missed, False
        return has_changed

    def _look(self) -> bool:
        changed = [table.refresh() for table in self._tables.values()]  # a list: each table must refresh
        self._check_bound()
        return any(changed)

    def mark_counted(self, task: BatchTask, source: Source) -> BatchTask:
        """Add to a task the offsets whose records the ledger has counted, or will count after the commit."""
        known = self.ledger.get(source.topic, TopicLedger()).read
        return replace(task, counted=(known & source.covered) | source.uncertain)

    def commit(self, written: Written, committed: dict[str, Counts], source: Source, batch_id: int) -> None:
        """Commit to each table that does not have the batch yet.

        A batch without rows for bronze is committed there too, because the ledger must have the offsets that were read.

        Args:
            written: The batch.
            committed: Counts of each table that has the batch; filled here, and kept for the attempt after a conflict.
            source: Origin of the batch, for the commits.
            batch_id: Batch of the query.

        Raises:
            ConflictError: Another writer of this package has committed since the last refresh.
        """
        with self.stats.time("commit"):
            self._commit(written, committed, source, batch_id)
        self.stats.set_files(written.rows)

    def _commit(self, written: Written, committed: dict[str, Counts], source: Source, batch_id: int) -> None:
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
        """Write due checkpoints of the logs in the background, so that the next batch need not wait for them."""
        if not (self._background and self._background.is_alive()):
            due = [due for table in self._tables.values() if (due := table.claim_checkpoint())]
            if due:
                self._background = Thread(target=_write_checkpoints, args=(spark, due), daemon=True)
                self._background.start()

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Wait for a checkpoint that is being written; after an interrupt or a long wait, it ends with the process."""
        if self._background and not (error and is_interrupt(error)):
            self._background.join(_CHECKPOINT_TIMEOUT)

    def change_ledger(self, topic: str, change: Callable[[TopicLedger], TopicLedger]) -> None:
        """Commit a change of bronze's ledger of a topic, unless the ledger stays the same.

        Raises:
            AppendConflictError: Another writer committed first on every attempt.
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
        """Commit to the DLQ the bronze table that it belongs to, and to bronze its DLQ; watch both from now on.

        Args:
            topic: Kafka topic.
            change: Returns the new ledger of the topic.
            bronze: The bronze table.
            owner: The bronze table to which the DLQ belonged at the check.

        Raises:
            ConfigError: Another bronze table has taken over the DLQ since.
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
        """Commit the newest notes of the tables again, without rows.

        Other writers of this package then look up the tables again, and log clean-up keeps the notes.
        """
        for table in self._tables.values():

            def commit(_: bool, table: OwnTable = table) -> None:
                table.commit(None, new_note("ledger", ledger=table.note.ledger, bronze=table.note.bronze))

            self.retry(commit, f"Ledger of {table.path}")

    def _check_bound(self) -> None:
        """Raise if another run has changed the DLQ of bronze, or the bronze table of the DLQ."""
        if self._bound:
            topic, place, bronze = self._bound
            dlq, named = self._tables.get("dlq"), self.ledger.get(topic, TopicLedger()).dlq
            owner = dlq.note.bronze.get(topic, bronze) if dlq else bronze
            if (named and named.id) != (place and place.id) or owner.id != bronze.id:
                raise changed_dlq_error(bronze.path, topic, named.path if named else "")

    def retry(self, commit: Callable[[bool], Answer], name: str) -> Answer:
        """Retry a commit while other writers of this package commit first, each time with the tables' newest state.

        Args:
            commit: The commit; takes whether the previous attempt had a conflict.
            name: Name of the commit, for the log.

        Raises:
            AppendConflictError: Another writer committed first on every attempt.
        """

        def look_and_commit(attempt: int) -> Answer:
            if attempt > 1:
                self._has_missed = self._look() or self._has_missed
            return commit(attempt > 1)

        def log_conflict(attempt: int, conflict: Exception) -> None:
            log.info("%s: another writer committed to %s first, attempt %d", name, conflict, attempt)

        try:
            return retry_conflicts(look_and_commit, ConflictError, log_conflict, _PAUSE)
        except ConflictError as conflict:
            raise AppendConflictError(
                f"could not commit to {conflict} in {ATTEMPTS} attempts, because another writer committed first each "
                "time",
                hint="nothing was lost, run the same command again",
            ) from None


def _write_checkpoints(spark: SparkSession, due: list[tuple[str, int, int]]) -> None:
    for path, version, interval in due:
        try_checkpoint(spark, path, version, interval)


def _make_note(before: CommitNote, source: Source, counts: Counts, batch_id: int) -> CommitNote:
    """Make a commit's note: its batch, and the ledger and binding of the previous note."""
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
    """Add the batch to the ledger of a note."""
    known = note.ledger.get(source.topic, TopicLedger()).add_read(source.covered, counts.fresh, source.begins)
    return msgspec.structs.replace(note, ledger={**note.ledger, source.topic: known})
