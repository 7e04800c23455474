"""The overlap guard: which offsets a batch covers, and which of them are in the tables already."""

from dataclasses import dataclass, replace
from functools import cached_property

from pyspark.sql import SparkSession

from bronze.checkpoint import read_begins, read_planned_offsets
from bronze.config import IngestConfig
from bronze.delta.lookup import Lookup
from bronze.kafka.topic import Topic, list_offsets
from bronze.offsets import OffsetRanges, PlannedOffsets, subtract_all


@dataclass(frozen=True)
class TableGuard:
    """The overlap guard of one query: what the checkpoint plans, what the tables hold."""

    spark: SparkSession
    config: IngestConfig
    lookup: Lookup
    kafka_topic: Topic
    checkpoint_path: str
    patience: float | None = None  # seconds to wait for Kafka; startup_timeout where not given

    @property
    def topic(self) -> str:
        """Name of the Kafka topic."""
        return self.kafka_topic.name

    def read_planned(self, batch_id: int) -> PlannedOffsets:
        """First and end offset of a batch, per partition."""
        return read_planned_offsets(self.spark, self.checkpoint_path, batch_id, self.topic)

    @cached_property
    def begins(self) -> dict[int, int]:
        """Where the query began, per partition."""
        return read_begins(self.spark, self.checkpoint_path, self.topic)

    def find_present(self, planned: PlannedOffsets) -> OffsetRanges:
        """Which of the planned offsets are in the tables."""
        return self.lookup.find_present(planned)

    def find_covered(self, planned: PlannedOffsets) -> OffsetRanges:
        """Which of the planned offsets the batch has read for certain.

        Where a loss is accepted, Kafka may have deleted some below its earliest before they were read.
        """
        covered = {p: [(first, end - 1)] for p, (first, end) in planned.items() if first < end}
        if self.config.fail_on_data_loss:  # Spark itself ends the query
            return covered
        topic = replace(self.kafka_topic, partitions=tuple(planned))  # some may be new
        held = list_offsets(self.spark, self.config, topic, self.patience)
        certain = {p: subtract_all(r, [(0, held[p][0] - 1)] if held[p][0] else []) for p, r in covered.items()}
        return {p: ranges for p, ranges in certain.items() if ranges}
