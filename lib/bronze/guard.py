"""The overlap guard: finds which offsets of a batch the tables already have.

The tables may have some of them after a start (a crash between the two commits, a deleted or restored checkpoint), and
after an append of another writer (a backfill). So at the start and after each such append, the guard looks up which
offsets from the next batch on are in the tables. For any other batch, it costs one comparison.
"""

from bronze.checkpoint import CheckpointFolder
from bronze.config import IngestConfig
from bronze.delta.lookup import Lookup
from bronze.errors import BronzeError
from bronze.kafka.client import KafkaClient
from bronze.kafka.topic import fetch_offsets
from bronze.offsets import EMPTY, MAX_OFFSET, Bounds, OffsetSet
from bronze.resume import truncated_topic_error


class OverlapGuard:
    """The guard of one streaming query."""

    def __init__(self, config: IngestConfig, checkpoint: CheckpointFolder, lookup: Lookup):
        """
        Args:
            config: Configuration of the ingestion.
            checkpoint: The query's checkpoint, which has the offsets of its batches.
            lookup: Looks up positions in all tables.
        """
        self._config, self._checkpoint, self._lookup = config, checkpoint, lookup
        self.first_offsets: dict[int, int] = {}  # at which the query started, once it has planned a batch
        # The offsets of this query's own batches only increase, so the guard need not add them.
        self._ingested = EMPTY
        self._known: set[int] = set()  # partitions that were looked up

    def plan(self, query_id: str, batch_id: int) -> Bounds:
        """Return the offsets that a batch of the running query covers.

        Raises:
            BronzeError: The checkpoint has other offsets: it was replaced, or another process uses it too.
            DataLossError: The topic ends before the offsets that were read, and Spark accepts data loss.
        """
        self.first_offsets = self.first_offsets or self._checkpoint.read_first_offsets()
        bounds = self._checkpoint.get_planned_range(query_id, self.first_offsets)
        if self._checkpoint.read_batch_range(batch_id) != bounds:
            raise BronzeError(
                f"another process uses the checkpoint {self._checkpoint.path}, or it was deleted or replaced.",
                hint="Make sure that no other run uses it, then run the same command again: it skips what the tables "
                "have. If it warns that they lack records, add those with bronze backfill",
            )
        if beyond := OffsetSet.between({p: (end, first) for p, (first, end) in bounds.items()}):
            raise truncated_topic_error(self._config.kafka_topic, beyond)
        return bounds

    def find_overlap(self, bounds: Bounds, has_changed: bool) -> OffsetSet:
        """Find which offsets of a batch the tables have; look up again after other appends, or for a new partition."""
        if has_changed or not bounds.keys() <= self._known:
            return self.look_up(bounds)
        return self._ingested.clip(bounds)

    def look_up(self, bounds: Bounds) -> OffsetSet:
        """Look up what the tables have from a batch on, without an upper bound: later batches may overlap too."""
        self._ingested = self._lookup.find_ingested({p: (first, MAX_OFFSET) for p, (first, _) in bounds.items()})
        self._known = set(bounds)
        return self._ingested.clip(bounds)

    def find_covered(self, bounds: Bounds, client: KafkaClient, timeout: float) -> OffsetSet:
        """Find which offsets of a batch Spark has certainly read.

        If data loss is accepted, Kafka may have deleted offsets below its earliest one before Spark read them.
        """
        covered = OffsetSet.between(bounds)
        if self._config.fail_on_data_loss:  # Spark itself fails the query if they are lost
            return covered
        available = fetch_offsets(client, bounds, timeout)
        return covered - OffsetSet.between({p: (0, earliest) for p, (earliest, _) in available.items()})

    def find_lost(self, uncertain: OffsetSet) -> OffsetSet:
        """Find which uncertain offsets were deleted before Spark read them: those that no table has."""
        return uncertain - self._lookup.find_ingested(uncertain.bounds)
