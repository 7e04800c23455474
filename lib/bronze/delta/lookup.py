"""What the tables hold, kept up to date: looked up by Spark once, afterwards only in what was committed since.

A look-up by Spark takes seconds. Next to a writer that commits every second, the answer would be old before the next
commit, again and again. The files of a few commits are read at once, here on the driver; of a young table, all.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from bronze.delta.log import LogReader, NotAppendsError
from bronze.delta.positions import find_ingested
from bronze.offsets import EMPTY, Bounds, OffsetSet, list_ranges

log = logging.getLogger(__name__)
# With more new files than that, a look-up by Spark takes less time.
_MAX_FILES = 100


class Lookup:
    """Which offsets of a topic are in some tables."""

    def __init__(self, spark: SparkSession, tables: Sequence[str], topic: str):
        """
        Args:
            spark: Session.
            tables: Paths of existing tables.
            topic: Kafka topic.
        """
        self.tables = tuple(tables)
        self._spark, self._topic = spark, topic
        self._readers = [LogReader(table) for table in tables]
        self._bounds: Bounds | None = None  # what Spark was asked; nothing yet, all is in the logs
        self._ingested = EMPTY

    def find(self, bounds: Bounds) -> OffsetSet:
        """Which offsets within the bounds are in any of the tables, with all that was committed before this call."""
        try:
            self._add_committed(bounds)
        except (NotAppendsError, OSError, ValueError, KeyError, pa.ArrowException) as reason:
            log.debug("Looked up by Spark: %s: %s", type(reason).__name__, reason)
            self._readers = [LogReader(table) for table in self.tables]
            for reader in self._readers:  # before Spark looks: what is committed meanwhile is read twice
                reader.skip_to_end()
            self._bounds, self._ingested = bounds, find_ingested(self._spark, self.tables, self._topic, bounds)
        return self._ingested.clip(bounds)

    def _add_committed(self, bounds: Bounds) -> None:
        """Add what was committed since the last look-up, which must have covered the bounds."""
        for partition, (first, end) in bounds.items():
            known = (0, end) if self._bounds is None else self._bounds.get(partition, (0, -1))
            if first < end and not known[0] <= first <= end <= known[1]:
                raise NotAppendsError("not looked up before")
        files = [file for reader in self._readers for file in reader.read_appended(_MAX_FILES)]
        if len(files) > _MAX_FILES:
            raise NotAppendsError(f"{len(files)} new files")
        for file in files:
            self._ingested |= read_file_positions(file, self._topic)
        for reader in self._readers:
            reader.advance()


def read_file_positions(file: Path, topic: str) -> OffsetSet:
    """The offsets of a topic that a table's file holds."""
    rows = pq.ParquetFile(file).read(["_kafka_topic", "_kafka_partition", "_kafka_offset"])
    rows = rows.filter(pc.equal(rows["_kafka_topic"], topic))
    partitions, offsets = (rows[name].to_numpy() for name in ("_kafka_partition", "_kafka_offset"))
    return OffsetSet({int(p): list_ranges(offsets[partitions == p]) for p in np.unique(partitions)})
