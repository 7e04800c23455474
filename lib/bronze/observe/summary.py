"""The counts of a run, batch by batch, and the line that the log has for each batch."""

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bronze.offsets import Bounds
from bronze.runtime.logs import event
from bronze.runtime.stats import BatchStats
from bronze.transforms import Counts

log = logging.getLogger(__name__)
_KEPT_BATCHES = 1_000


@dataclass(frozen=True)
class Batch:
    """A committed batch.

    Attributes:
        batch_id: Its number in the query.
        counts: Its records.
        seconds: How long it took.
        stats: How long its phases took, and how much it wrote.
        bounds: Its first offset and the one after its last, per Kafka partition.
        versions: The version of each table after its commit.
    """

    batch_id: int
    counts: Counts
    seconds: float
    stats: BatchStats = field(default_factory=BatchStats)
    bounds: Bounds = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)

    @property
    def ends(self) -> dict[int, int]:
        """The offset after the last one, per Kafka partition."""
        return {partition: end for partition, (_, end) in self.bounds.items()}


@dataclass
class IngestSummary:
    """The counts of a run, how often its query was restarted, and its latest thousand batches."""

    counts: Counts = field(default_factory=Counts)
    batch_count: int = 0
    restarts: int = 0
    batches: deque[Batch] = field(default_factory=lambda: deque(maxlen=_KEPT_BATCHES))

    def add(self, batch: Batch) -> None:
        """Count a committed batch."""
        self.counts += batch.counts
        self.batch_count += 1
        self.batches.append(batch)

    def describe_newest(self) -> str:
        """Describe the newest batch, for the log."""
        return f"after batch {self.batches[-1].batch_id}" if self.batches else "before a batch was run"


def log_batch(batch: Batch, with_metrics: bool) -> None:
    """Log one line for a batch; with metrics, its counts and the records per Kafka partition."""
    name, counts, fields = f"Batch {batch.batch_id}", batch.counts, _describe_batch(batch)
    if not counts.total:
        log.info("%s: empty", name, extra=fields)
    elif with_metrics:
        log.info("%s: total=%d, valid=%d, invalid=%d", name, counts.total, counts.valid, counts.invalid, extra=fields)
        log.info("%s partition distribution: %s", name, sorted(counts.by_partition.items()))
    else:
        log.info("%s committed: %s records in %.1f s", name, f"{counts.total:,}", batch.seconds, extra=fields)
    if counts.present:
        log.info("%s: skipped %s records that were already in the tables", name, f"{counts.present:,}")


def _describe_batch(batch: Batch) -> dict[str, Any]:
    """The fields of a batch in the JSON log; ``offsets`` has the first and the end offset per partition."""
    counts = {**describe_counts(batch.counts), "by_partition": batch.counts.by_partition}
    return event("batch", batch=batch.batch_id, offsets=batch.bounds, counts=counts, seconds=round(batch.seconds, 3))


def describe_counts(counts: Counts) -> dict[str, Any]:
    """The counts as the JSON log has them."""
    return {name: getattr(counts, name) for name in ("total", "valid", "invalid", "present", "by_error_type")}
