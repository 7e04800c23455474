"""The note that both writers put into each commit, as JSON in ``commitInfo.userMetadata``.

A note names the batch and carries the table's ledger: the offsets of each topic that were read so far, the number of
their records, the offsets whose loss was accepted, and the DLQ. All commits of this package to a table are serialized
(SHARED_APP_ID), so the newest note has the complete ledger. RESTORE does not revert it, because it is not part of the
table's state. Only ``bronze maintain`` cleans the log, and it keeps the newest commit of this package.

A later version may add fields: unknown ones are ignored, and missing ones have defaults.
"""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import msgspec

from bronze.offsets import EMPTY, OffsetSet
from bronze.runtime.logs import RUN_ID

# Each commit of this package, by either writer, advances this application's version in the table. So two concurrent
# commits conflict; Delta alone would accept both, because they are blind appends.
SHARED_APP_ID = "bronze-writer"


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """A table: its id, its last known path, and for a bronze table the topic's id."""

    id: str
    path: str = ""
    topic_id: str = ""


class TopicLedger(msgspec.Struct, frozen=True, omit_defaults=True):
    """A bronze table's ledger of one topic.

    Attributes:
        topic_id: Kafka's id of the topic.
        begins: First offset that a stream had to read, per partition; earlier ones need not be in the tables.
        read: Offsets that were read, with or without a record. One without a row had no record in Kafka.
        records: Number of records at the read offsets, per partition; the tables must have as many positions.
        lost: Offsets that Kafka deleted before they were read, and whose loss was accepted.
        dlq: The DLQ of the topic; None if invalid records stay in bronze.
        earlier: Previous DLQs; their positions still count.
        bronze_path: Path of bronze when its DLQ was bound.
    """

    topic_id: str = ""
    begins: dict[int, int] = {}
    read: OffsetSet = EMPTY
    records: dict[int, int] = {}
    lost: OffsetSet = EMPTY
    dlq: Place | None = None
    earlier: tuple[Place, ...] = ()
    bronze_path: str = ""

    @property
    def dlqs(self) -> list[Place]:
        """The current DLQ and the earlier ones."""
        return [*([self.dlq] if self.dlq else []), *self.earlier]

    def add_read(self, covered: OffsetSet, records: Mapping[int, int], begins: Mapping[int, int]) -> "TopicLedger":
        """Return the ledger after a batch.

        Args:
            covered: Offsets that the batch read.
            records: Number of records at offsets that were not read before, per partition.
            begins: Offset at which its stream began, per partition; empty for a backfill.
        """
        return msgspec.structs.replace(
            self,
            begins=dict(begins) | {p: min(first, begins.get(p, first)) for p, first in self.begins.items()},
            read=self.read | covered,
            records={p: self.records.get(p, 0) + records.get(p, 0) for p in sorted({*self.records, *records})},
        )

    def add_lost(self, lost: OffsetSet) -> "TopicLedger":
        """Return the ledger after a loss was accepted."""
        return msgspec.structs.replace(self, lost=self.lost | lost)


class CommitNote(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="writer", tag="bronze-ingestion"):
    """The note of one commit.

    Attributes:
        kind: ``ingest``, ``backfill``, ``replay``, or ``ledger`` for a commit that changes only the ledger.
        commit: Id of this commit, with which its writer finds it again.
        run_id: Id of the process that committed, which is also in its log.
        query_id: Id of the streaming query, or of the run of a backfill or replay.
        batch_id: Batch of that query.
        topic: Topic of the batch.
        offsets: Offsets that the batch read, per partition; for a replay, those that it appended.
        counts: Records of the batch: ``total``, ``valid``, ``invalid``, ``present`` (already in the tables).
        ledger: In a bronze table: its ledger, by topic.
        bronze: In a DLQ: the bronze table of its records, by topic.
    """

    kind: str
    commit: str = ""
    run_id: str = ""
    query_id: str = ""
    batch_id: int = -1
    topic: str = ""
    offsets: OffsetSet = EMPTY
    counts: dict[str, int] = {}
    ledger: dict[str, TopicLedger] = {}
    bronze: dict[str, Place] = {}

    def to_json(self) -> str:
        """Return the text for ``userMetadata``."""
        return msgspec.json.encode(self, enc_hook=dict).decode()


def new_note(kind: str, **values: object) -> CommitNote:
    """Make a note of this run with a new commit id."""
    return CommitNote(kind, commit=uuid4().hex, run_id=RUN_ID, **values)  # type: ignore[arg-type]


def decode_note(text: Any) -> CommitNote | None:
    """Decode the note in a commit's ``userMetadata``; None if this package did not write it."""
    try:
        return _DECODER.decode(text if isinstance(text, str) else "")
    except (msgspec.DecodeError, UnicodeError):
        return None


def _decode_offsets(kind: type, ranges: dict[str, Any]) -> OffsetSet:
    return OffsetSet({int(partition): each for partition, each in ranges.items()})


_DECODER = msgspec.json.Decoder(CommitNote, dec_hook=_decode_offsets)
