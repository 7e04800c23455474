"""The result of an audit as text, as JSON and as a table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import pandas as pd

from bronze.offsets import Range, format_ranges

# Why an offset has no row.
ACCEPTED = "deleted in Kafka before they were read, accepted with --accept-data-loss"
READ = "where Kafka had no record when they were read"
ABORTED = "of aborted transactions"
NO_RECORD = "where Kafka has no record (transaction marker, or compacted)"

Ranges = list[Range]


def count_offsets(ranges: Ranges) -> int:
    """Number of offsets in ranges."""
    return sum(last - first + 1 for first, last in ranges)


@dataclass(frozen=True)
class PartitionAudit:
    """One Kafka partition: the offsets that the tables have, and those that they should have.

    Attributes:
        partition: Kafka partition.
        first: Lowest offset in the tables; None if they have none.
        last: Highest offset in the tables.
        bronze_rows: Rows in bronze, duplicates included.
        dlq_rows: Rows in the DLQ.
        earliest: Earliest offset that Kafka holds.
        end: Kafka's end, exclusive.
        lag: Offsets that Kafka holds and the ingestion has not read yet.
        in_both: Offsets in bronze and in the DLQ.
        beyond_checkpoint: Offsets in the tables that the checkpoint has not recorded as done; their batch runs again.
        read: Offsets that were read, according to the commits.
        records: Number of records at these offsets, according to the commits.
        gaps: Always empty, because each gap is explained; kept so that the JSON output has the same keys.
        doubled: Finding: offsets that one table has more than once.
        contradicting: Finding: offsets in both tables that were not replayed from the DLQ.
        missing: Finding: offsets where Kafka has a record and the tables have none.
        unread: Finding: offsets that no commit has read and Kafka no longer holds.
        beyond_end: Finding: offsets that were read, at or beyond Kafka's end; new records would get the same offsets.
        removed: Finding: offsets of which ``removed_records`` held a committed record that no table has.
        removed_records: Number of such records.
        explained: Offsets without a row, by reason.
    """

    partition: int
    first: int | None
    last: int | None
    bronze_rows: int
    dlq_rows: int
    earliest: int
    end: int
    lag: int
    read: Ranges = field(default_factory=list)
    records: int = 0
    in_both: Ranges = field(default_factory=list)
    beyond_checkpoint: Ranges = field(default_factory=list)
    gaps: Ranges = field(default_factory=list)
    doubled: Ranges = field(default_factory=list)
    contradicting: Ranges = field(default_factory=list)
    missing: Ranges = field(default_factory=list)
    unread: Ranges = field(default_factory=list)
    beyond_end: Ranges = field(default_factory=list)
    removed: Ranges = field(default_factory=list)
    removed_records: int = 0
    explained: dict[str, Ranges] = field(default_factory=dict)

    @property
    def findings(self) -> dict[str, Ranges]:
        """The findings by name; empty if there are none."""
        named = {
            "doubled": self.doubled,
            "in both tables": self.contradicting,
            "missing": self.missing,
            "never read, and deleted in Kafka": self.unread,
            "at or beyond Kafka's end": self.beyond_end,
            f"with {self.removed_records:,} records that were committed and are no longer in any table": self.removed,
        }
        return {name: ranges for name, ranges in named.items() if ranges}

    @property
    def finding_count(self) -> int:
        """Number of offsets with a finding."""
        others = (self.doubled, self.contradicting, self.missing, self.unread, self.beyond_end)
        return sum(map(count_offsets, others)) + self.removed_records


@dataclass(frozen=True)
class AuditReport:
    """The audit of all partitions of a topic."""

    topic: str
    partitions: Sequence[PartitionAudit]

    @property
    def is_complete(self) -> bool:
        """Whether every record is exactly once in bronze or exactly once in the DLQ, as far as it was read."""
        return not any(audit.findings for audit in self.partitions)

    def to_frame(self) -> pd.DataFrame:
        """A row per partition."""
        rows = [
            {
                "partition": a.partition,
                "first": a.first,
                "last": a.last,
                "bronze": a.bronze_rows,
                "DLQ": a.dlq_rows,
                "replayed": count_offsets(a.in_both) - count_offsets(a.contradicting),
                "no record": sum(map(count_offsets, a.explained.values())),
                "findings": a.finding_count,
                "beyond checkpoint": count_offsets(a.beyond_checkpoint),
                "Kafka earliest": a.earliest,
                "Kafka end": a.end,
                "lag": a.lag,
            }
            for a in self.partitions
        ]
        return pd.DataFrame(rows).astype({"first": "Int64", "last": "Int64"}).set_index("partition")

    def to_text(self) -> str:
        """The table, every explained gap, every finding with its exact offsets, and the verdict."""
        table = self.to_frame().reset_index().to_string(index=False, na_rep="-")
        return "\n".join([table, "", *self._list_explained(), *self._list_findings(), self.verdict])

    @property
    def verdict(self) -> str:
        """The result in one line."""
        rows = sum(a.bronze_rows for a in self.partitions), sum(a.dlq_rows for a in self.partitions)
        counted = f"{rows[0]:,} in bronze, {rows[1]:,} in the DLQ"
        if replayed := sum(count_offsets(a.in_both) - count_offsets(a.contradicting) for a in self.partitions):
            counted += f", of which {replayed:,} have been replayed"
        if self.is_complete:
            lag = sum(a.lag for a in self.partitions)
            return (
                f"Complete: every record read from {self.topic} is in the tables exactly once ({counted}); lag {lag:,}"
            )
        offsets = sum(a.finding_count for a in self.partitions)
        found = f"{offsets:,} offsets of {self.topic} are missing, duplicated or beyond Kafka's end"
        return f"NOT complete: {found} ({counted})"

    def _list_explained(self) -> list[str]:
        return [
            f"partition {a.partition}: {count_offsets(ranges):,} offsets without a row, {reason}: "
            + format_ranges(ranges)
            for a in self.partitions
            for reason, ranges in a.explained.items()
        ]

    def _list_findings(self) -> list[str]:
        return [
            f"FINDING partition {a.partition}: {count_offsets(ranges):,} offsets {name}: "
            + format_ranges(ranges, shown=1_000)
            for a in self.partitions
            for name, ranges in a.findings.items()
        ]

    def to_json(self) -> str:
        """The whole report, for programs."""
        return json.dumps(
            {
                "topic": self.topic,
                "complete": self.is_complete,
                "verdict": self.verdict,
                "partitions": [asdict(audit) for audit in self.partitions],
            }
        )
