"""What our commits say of themselves: one JSON in ``commitInfo.userMetadata``, the same from both writers.

Each commit of ours names its batch, and carries the table's ledger on: which offsets of a topic were read so far, how
many records they held, whose loss was accepted, and which DLQ the invalid ones went to. All commits of ours in a table
follow one another (SHARED_APP_ID), so the newest ledger is the whole truth. RESTORE does not revert it, as it is not
part of the table's state, and only ``bronze maintain`` cleans the log, which keeps the newest commit of ours.

A later version may add fields: unknown ones are ignored, and missing ones have defaults.
"""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import msgspec

from bronze.offsets import EMPTY, OffsetSet

# Everything of ours that appends to a table, by either writer, advances this application's version in it: so two such
# commits conflict, which Delta lets blind appends not do by themselves.
SHARED_APP_ID = "bronze-writer"


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
    read: OffsetSet = EMPTY
    records: dict[int, int] = {}
    lost: OffsetSet = EMPTY
    dlq: Place | None = None
    earlier: tuple[Place, ...] = ()
    bronze_path: str = ""

    @property
    def dlqs(self) -> list[Place]:
        """The DLQ and the earlier ones."""
        return [*([self.dlq] if self.dlq else []), *self.earlier]

    def add_read(self, covered: OffsetSet, records: Mapping[int, int], begins: Mapping[int, int]) -> "TopicLedger":
        """The ledger after a batch.

        Args:
            covered: Offsets that the batch read.
            records: How many records it found at offsets that were not read before, per partition.
            begins: Where its stream began; empty for a backfill.
        """
        return msgspec.structs.replace(
            self,
            begins=dict(begins) | {p: min(first, begins.get(p, first)) for p, first in self.begins.items()},
            read=self.read | covered,
            records={p: self.records.get(p, 0) + records.get(p, 0) for p in sorted({*self.records, *records})},
        )

    def add_lost(self, lost: OffsetSet) -> "TopicLedger":
        """The ledger after a loss was accepted."""
        return msgspec.structs.replace(self, lost=self.lost | lost)


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
    offsets: OffsetSet = EMPTY
    counts: dict[str, int] = {}
    ledger: dict[str, TopicLedger] = {}
    bronze: dict[str, Place] = {}

    def to_json(self) -> str:
        """The text for ``userMetadata``."""
        return msgspec.json.encode(self, enc_hook=dict).decode()


def new_note(kind: str, **values: object) -> CommitNote:
    """A note with a new commit id."""
    return CommitNote(kind, commit=uuid4().hex, **values)  # type: ignore[arg-type]


def decode_note(text: Any) -> CommitNote | None:
    """The note of a commit's ``userMetadata``; None where it is not ours."""
    try:
        return _DECODER.decode(text if isinstance(text, str) else "")
    except (msgspec.DecodeError, UnicodeError):
        return None


def _decode_offsets(kind: type, ranges: dict[str, Any]) -> OffsetSet:
    return OffsetSet({int(partition): each for partition, each in ranges.items()})


_DECODER = msgspec.json.Decoder(CommitNote, dec_hook=_decode_offsets)
