"""The counts of a run, batch by batch, and the line that the log has for each batch."""

import logging
from collections import deque
from dataclasses import dataclass, field

from bronze.transforms import Counts

log = logging.getLogger(__name__)
_KEPT_BATCHES = 1_000


@dataclass(frozen=True)
class Batch:
    """A committed batch: its number, its counts, and how many seconds it took."""

    batch_id: int
    counts: Counts
    seconds: float


@dataclass
class IngestSummary:
    """The counts of a run, and its latest thousand batches."""

    counts: Counts = field(default_factory=Counts)
    batch_count: int = 0
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
    name, counts = f"Batch {batch.batch_id}", batch.counts
    if not counts.total:
        log.info("%s: empty", name)
    elif with_metrics:
        log.info("%s: total=%d, valid=%d, invalid=%d", name, counts.total, counts.valid, counts.invalid)
        log.info("%s partition distribution: %s", name, sorted(counts.by_partition.items()))
    else:
        log.info("%s committed: %s records in %.1f s", name, f"{counts.total:,}", batch.seconds)
    if counts.present:
        log.info("%s: skipped %s records that were already in the tables", name, f"{counts.present:,}")
