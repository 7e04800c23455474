"""The overlap guard: which offsets a batch covers, and which of them are in the tables already.

Offsets may be in the tables already after any start (a crash between the two commits, a deleted or restored checkpoint)
and after others appended (a backfill). So what the tables hold from the next offsets on is looked up at the start and
whenever others appended; for any other batch the guard costs a comparison.
"""

from functools import cached_property

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
            config: Of the ingestion.
            checkpoint: Where the query plans its batches.
            lookup: Looks up positions in all tables.
        """
        self._config, self._checkpoint, self._lookup = config, checkpoint, lookup
        # Offsets of this query's own batches only ever rise, so they need not be added.
        self._ingested = EMPTY
        self._known: set[int] = set()  # partitions that were looked up
        self._ends: dict[int, int] = {}  # of the batch before

    @cached_property
    def first_offsets(self) -> dict[int, int]:
        """Where the query began, per partition."""
        return self._checkpoint.read_first_offsets()

    def plan(self, batch_id: int) -> Bounds:
        """The offsets that a batch covers.

        Raises:
            BronzeError: It does not start where the batch before ended: the checkpoint is another one now.
            DataLossError: The topic now ends before what was read, and Spark was told to accept data loss.
        """
        bounds = self._checkpoint.read_batch_range(batch_id)
        if any(bounds.get(p, (end, end))[0] != end for p, end in self._ends.items()):
            raise BronzeError(
                f"the checkpoint {self._checkpoint.path} was deleted or replaced while the query was running",
                hint="nothing was lost: run the same command again, which goes on from the checkpoint that is there "
                "now",
            )
        self._ends |= {p: end for p, (_, end) in bounds.items()}
        if backwards := {p: (end, first) for p, (first, end) in bounds.items() if end < first}:
            raise truncated_topic_error(self._config.kafka_topic, backwards)
        return bounds

    def find_overlap(self, bounds: Bounds, has_changed: bool) -> OffsetSet:
        """Which of the batch's offsets the tables have; a partition that is new to the query is looked up too."""
        if has_changed or not bounds.keys() <= self._known:
            return self.look_up(bounds)
        return self._ingested.clip(bounds)

    def look_up(self, bounds: Bounds) -> OffsetSet:
        """Look up what the tables have from a batch on, for later batches too, as what others append may reach."""
        self._ingested = self._lookup.find({p: (first, MAX_OFFSET) for p, (first, _) in bounds.items()})
        self._known = set(bounds)
        return self._ingested.clip(bounds)

    def find_covered(self, bounds: Bounds, client: KafkaClient, timeout: float) -> OffsetSet:
        """Which of the batch's offsets it has read for certain.

        Where a loss is accepted, Kafka may have deleted some below its earliest before they were read.
        """
        covered = OffsetSet.between(bounds)
        if self._config.fail_on_data_loss:  # Spark itself ends the query
            return covered
        available = fetch_offsets(client, bounds, timeout)
        return covered - OffsetSet.between({p: (0, earliest) for p, (earliest, _) in available.items()})

    def find_lost(self, uncertain: OffsetSet) -> OffsetSet:
        """Which of the offsets that Kafka has deleted by now were deleted before they were read: no table has them."""
        return uncertain - self._lookup.find(uncertain.bounds)
