"""The state that the state machine computes without the product: records, offsets that were read, and all rows."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from bronze.ops.audit_report import AuditReport

Position = tuple[int, int]  # Kafka partition and offset
_COLUMNS = ("_kafka_partition", "_kafka_offset", "_ingested_at")


@dataclass(frozen=True)
class Count:
    """Every row of bronze and of all DLQs.

    Attributes:
        present: Positions that are in any table.
        doubled: Positions that bronze, or the DLQs together, have more than once.
        contradicting: Positions in bronze and in a DLQ that were not replayed; a replay's row is valid and newer.
    """

    present: frozenset[Position]
    bronze: frozenset[Position]
    doubled: frozenset[Position]
    contradicting: frozenset[Position]

    @property
    def wrong(self) -> frozenset[Position]:
        return self.doubled | self.contradicting


def count_rows(bronze_path: str, dlq_paths: Iterable[str]) -> Count:
    """Read all positions of the tables, without Spark and without the product."""
    bronze = _read(bronze_path, *_COLUMNS, "_is_valid")
    dlq = [row for path in dlq_paths for row in _read(path, *_COLUMNS)]
    counted = [Counter(row[:2] for row in rows) for rows in (bronze, dlq)]
    in_dlq = {row[:2]: row[2] for row in dlq}
    return Count(
        present=frozenset({*counted[0], *counted[1]}),
        bronze=frozenset(counted[0]),
        doubled=frozenset(position for each in counted for position, rows in each.items() if rows > 1),
        contradicting=frozenset(
            row[:2] for row in bronze if row[:2] in in_dlq and not (row[3] and row[2] > in_dlq[row[:2]])
        ),
    )


def _read(path: str, *columns: str) -> list[tuple]:
    if not DeltaTable.is_deltatable(path):
        return []
    table: pa.Table = DeltaTable(path).to_pyarrow_table(columns=list(columns))
    return list(zip(*(table[name].to_pylist() for name in columns), strict=True))


@dataclass
class Facts:
    """The records that were produced, read and given up.

    Attributes:
        records: Positions that hold a record; those of markers and of aborted transactions do not.
        read: Positions that a checkpoint or a finished backfill covers, and those that bronze has ever had.
        seen: Positions that any table has ever had.
        accepted: Positions that Kafka had deleted before they were read, when a run accepted such a loss.
        begins: First offset that a stream read, per partition.
        starts: First offset that Kafka still holds, per partition.
        tolerated: Positions that a RESTORE, and not a writer, duplicated.
    """

    records: set[Position] = field(default_factory=set)
    read: set[Position] = field(default_factory=set)
    seen: set[Position] = field(default_factory=set)
    accepted: set[Position] = field(default_factory=set)
    begins: dict[int, int] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    tolerated: set[Position] = field(default_factory=set)

    def note(self, count: Count) -> None:
        """Note the positions that the tables have."""
        self.seen |= count.present
        self.read |= count.bronze

    def note_checkpoint(self, path: Path) -> None:
        """Note the batches that Spark has completed, according to its own files."""
        begins, ends = read_checkpoint(path)
        for partition, end in ends.items():
            begin = begins.get(partition, 0)
            self.begins[partition] = min(begin, self.begins.get(partition, begin))
            self.read |= {(partition, offset) for offset in range(begin, end)}

    def find_behind(self, checkpoint: Path) -> set[int]:
        """Partitions of which Spark plans to read deleted offsets, even if a backfill has read these."""
        begins, ends = read_checkpoint(checkpoint)
        return {p for p, start in self.starts.items() if begins and (ends or begins).get(p, 0) < start}

    def find_deleted(self, count: Count) -> set[Position]:
        """Positions that Kafka deleted, and that have not been read, as far as is known."""
        deleted = {(p, offset) for p, start in self.starts.items() for offset in range(start)}
        return deleted - self.read - self.accepted - count.present

    def find_holes(self, count: Count) -> set[Position]:
        """The lost positions that the ingestion should have read: records at or after its start."""
        return {(p, o) for p, o in self.find_deleted(count) & self.records if o >= self.begins.get(p, o + 1)}

    def find_missing(self, count: Count) -> set[Position]:
        """Records that should be in a table and are not, whatever is read from now on."""
        return self.find_holes(count) | ((self.records & self.read) - count.present - self.accepted)

    def find_suspicious(self, count: Count, has_checkpoint: bool) -> set[Position]:
        """Positions that an audit may name as missing: it may know of more read offsets than the model."""
        found = self.find_missing(count) | self.find_deleted(count) | (self.seen - count.present)
        if not has_checkpoint:  # then all records before the last row should be in the tables
            known = self.read | count.present
            last = {p: max(o for q, o in known if q == p) for p in {p for p, _ in known}}
            found |= {(p, o) for p, o in self.records - count.present if o <= last.get(p, -1)}
        return found


def read_checkpoint(path: Path) -> tuple[dict[int, int], dict[int, int]]:
    """The start of a checkpoint's first batch and the end of its newest completed one; empty before the first."""
    done = max((int(f.name) for f in (path / "commits").glob("*") if f.name.isdecimal()), default=None)
    source = path / "sources" / "0" / "0"
    begins = _read_offsets(source) if source.exists() else {}
    return begins, {} if done is None else _read_offsets(path / "offsets" / str(done))


def _read_offsets(file: Path) -> dict[int, int]:
    (by_partition,) = json.loads(file.read_text().splitlines()[-1]).values()
    return {int(partition): offset for partition, offset in by_partition.items()}


def assert_agrees(report: AuditReport, facts: Facts, count: Count, has_checkpoint: bool) -> None:
    """The audit agrees with the plain count."""
    missing, suspicious = facts.find_missing(count), facts.find_suspicious(count, has_checkpoint)
    text = report.to_text()
    assert _list(report, "doubled") == count.doubled, text
    assert _list(report, "contradicting") == count.contradicting, text
    told = _list(report, "missing") | _list(report, "unread")
    assert told <= suspicious, f"not missing, but told: {sorted(told - suspicious)}\n{text}"
    if missing or count.wrong:
        assert not report.is_complete, f"missing: {sorted(missing)}, twice: {sorted(count.wrong)}, untold\n{text}"
    elif not suspicious:
        assert report.is_complete, text


def _list(report: AuditReport, name: str) -> set[Position]:
    return {
        (audit.partition, offset)
        for audit in report.partitions
        for first, last in getattr(audit, name)
        for offset in range(first, last + 1)
    }
