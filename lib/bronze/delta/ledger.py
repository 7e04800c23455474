"""What our commits say of themselves: one JSON in ``commitInfo.userMetadata``, the same from both writers.

Each commit of ours names its batch, and carries the table's ledger on: which offsets of a topic were read so far, how
many records they held, whose loss was accepted, and which DLQ the invalid ones went to. All commits of ours in a table
follow one another (SHARED_APP_ID), so the newest ledger is the whole truth. RESTORE does not revert it, as it is not
part of the table's state, and only ``bronze maintain`` cleans the log, which keeps the newest commit of ours.

A later version may add fields: unknown ones are ignored, and missing ones have defaults.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import msgspec

from bronze.offsets import OffsetRanges, merge_ranges

# Everything of ours that appends to a table, by either writer, advances this application's version in it: so two such
# commits conflict, which Delta lets blind appends not do by themselves.
SHARED_APP_ID = "bronze-writer"
# Commits to look back through for a ledger, behind commits of an older version of this product, which have none.
_LOOK_BACK = 1_000
# Commits to look back through for a RESTORE; what an older one took away, the audit says.
_LOOK_BACK_RESTORE = 200


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """A table: its id, where it was last seen, and for a bronze table the topic's id there."""

    id: str
    path: str = ""
    topic_id: str = ""


class TopicLedger(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a bronze table knows of one topic.

    Attributes:
        topic_id: Kafka's id of the topic.
        begins: First offset that a stream was to read, per partition; before it nothing is promised.
        read: Offsets that were read, with or without a record. One without a row had no record in Kafka.
        records: How many records the read offsets held, per partition; as many positions must be in the tables.
        lost: Offsets that Kafka deleted before they were read, whose loss was accepted.
        dlq: The DLQ of the topic; None where invalid records stay in bronze.
        earlier: DLQs that it had before; their positions still count.
        bronze_path: Where bronze was when its DLQ was bound.
    """

    topic_id: str = ""
    begins: dict[int, int] = {}
    read: OffsetRanges = {}
    records: dict[int, int] = {}
    lost: OffsetRanges = {}
    dlq: Place | None = None
    earlier: tuple[Place, ...] = ()
    bronze_path: str = ""

    @property
    def dlqs(self) -> list[Place]:
        """The DLQ and the earlier ones."""
        return [*([self.dlq] if self.dlq else []), *self.earlier]

    def add_read(self, covered: OffsetRanges, records: Mapping[int, int], begins: Mapping[int, int]) -> "TopicLedger":
        """The ledger after a batch.

        Args:
            covered: Offsets that the batch read.
            records: How many records it found at offsets that were not read before, per partition.
            begins: Where its stream began; empty for a backfill.
        """
        return msgspec.structs.replace(
            self,
            begins=dict(begins) | {p: min(first, begins.get(p, first)) for p, first in self.begins.items()},
            read=merge_all(self.read, covered),
            records={p: self.records.get(p, 0) + records.get(p, 0) for p in sorted({*self.records, *records})},
        )

    def add_lost(self, lost: OffsetRanges) -> "TopicLedger":
        """The ledger after a loss was accepted."""
        return msgspec.structs.replace(self, lost=merge_all(self.lost, lost))


class CommitNote(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="writer", tag="bronze-ingestion"):
    """What one commit says.

    Attributes:
        kind: ``ingest``, ``backfill``, ``replay``, or ``ledger`` for a commit that changes the ledger only.
        commit: Id of this commit, by which its writer knows it again.
        query_id: The streaming query, or the run of a backfill or replay.
        batch_id: Batch of that query.
        topic: Topic of the batch.
        offsets: Offsets that the batch read, per partition; of a replay, those that it appended.
        counts: Records of the batch: ``total``, ``valid``, ``invalid``, ``present`` (in the tables before).
        ledger: In a bronze table: what it knows, by topic.
        bronze: In a DLQ: the bronze table that its records of a topic belong to.
    """

    kind: str
    commit: str = ""
    query_id: str = ""
    batch_id: int = -1
    topic: str = ""
    offsets: OffsetRanges = {}
    counts: dict[str, int] = {}
    ledger: dict[str, TopicLedger] = {}
    bronze: dict[str, Place] = {}

    def to_json(self) -> str:
        """The text for ``userMetadata``."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True)
class FoundNote:
    """The newest commit of ours in a table, and its version; ``note`` is None where it is of an older product."""

    version: int = -1
    note: CommitNote | None = None


def new_note(kind: str, **values: object) -> CommitNote:
    """A note with a new commit id."""
    return CommitNote(kind, commit=uuid4().hex, **values)  # type: ignore[arg-type]


def merge_all(ranges: OffsetRanges, others: OffsetRanges) -> OffsetRanges:
    """The offsets of either, per partition."""
    merged = {p: merge_ranges(ranges.get(p, []), others.get(p, [])) for p in sorted({*ranges, *others})}
    return {p: found for p, found in merged.items() if found}


class _Transaction(msgspec.Struct, rename="camel"):
    app_id: str
    version: int


class _CommitInfo(msgspec.Struct, rename="camel"):
    operation: Any = ""  # another engine may write anything there
    user_metadata: Any = None
    timestamp: Any = 0


class _Action(msgspec.Struct, rename="camel"):
    """The parts of a log line that are read here."""

    txn: _Transaction | None = None
    commit_info: _CommitInfo | None = None


@dataclass(frozen=True)
class ReadCommit:
    """One commit of a log: operation, version of SHARED_APP_ID (-1 where none), note, time in ms (0 where unknown)."""

    operation: str
    shared: int
    note: CommitNote | None
    timestamp: int


def parse_commit(text: str) -> ReadCommit:
    """Read a commit's JSON lines; a note that is not ours is None."""
    # Only a line feed ends an action: JSON may hold the other signs that Python takes for the end of a line.
    actions = [msgspec.json.decode(line, type=_Action) for line in text.split("\n") if line.strip()]
    info = next((a.commit_info for a in actions if a.commit_info), _CommitInfo())
    shared = max((a.txn.version for a in actions if a.txn and a.txn.app_id == SHARED_APP_ID), default=-1)
    timestamp = info.timestamp if isinstance(info.timestamp, int) else 0
    return ReadCommit(str(info.operation), shared, _parse_note(info.user_metadata), timestamp)


def _parse_note(text: Any) -> CommitNote | None:
    try:
        return msgspec.json.decode(text if isinstance(text, str) else "", type=CommitNote)
    except (msgspec.DecodeError, UnicodeError):
        return None


def find_note(read_commit: Callable[[int], str | None], version: int, shared: int) -> FoundNote:
    """The newest commit of ours that carries a note: behind those of others, and those of an older product.

    Args:
        read_commit: Text of a commit by its version; None where it is gone.
        version: Newest version of the table.
        shared: The table's version of SHARED_APP_ID; 0 where no commit of ours is in it.

    Returns:
        What was found; without a note where commits of ours have none, or are gone.
    """
    newest = -1
    for candidate in range(version if shared else -1, -1, -1):
        text = read_commit(candidate)
        if text is None or (newest >= 0 and candidate < newest - _LOOK_BACK):
            break
        commit = parse_commit(text)
        if commit.shared == shared:
            newest = candidate
        if commit.note and commit.shared >= 0:
            return FoundNote(candidate, commit.note)
    return FoundNote(newest)


def find_restore(read_commit: Callable[[int], str | None], first: int, last: int) -> int | None:
    """The version of the newest RESTORE from first to last, among the newest commits; None where there is none."""
    newest = range(last, max(first, last - _LOOK_BACK_RESTORE) - 1, -1)
    return next((v for v in newest if parse_commit(read_commit(v) or "").operation == "RESTORE"), None)
