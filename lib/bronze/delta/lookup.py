"""Looks up the offsets that the tables hold: once with Spark, and then only in the commits since.

A look-up with Spark takes seconds. Next to a writer that commits every second, its result would always be outdated
before the next commit. So the driver reads the files of a few new commits itself, and all files of a small new table.
"""

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from bronze.delta.log import LogReader, NotAppendsError
from bronze.delta.positions import find_ingested, list_ranges
from bronze.offsets import EMPTY, Bounds, OffsetSet
from bronze.storage import Storage

log = logging.getLogger(__name__)
# If there are more new files, a look-up with Spark is faster.
_MAX_FILES = 100


class Lookup:
    """Finds which offsets of a topic are in any of some tables."""

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
        # Bounds of Spark's look-up; None until there is one, because the logs then have all commits.
        self._bounds: Bounds | None = None
        self._ingested = EMPTY

    def find_ingested(self, bounds: Bounds) -> OffsetSet:
        """Find which offsets within the bounds are in any table, including all commits before this call."""
        try:
            self._add_committed(bounds)
        except (NotAppendsError, OSError, ValueError, KeyError, pa.ArrowException) as reason:
            log.debug("Looking up with Spark: %s: %s", type(reason).__name__, reason)
            readers = [LogReader(table) for table in self.tables]
            for reader in readers:  # before Spark's look-up: commits during it are read twice, but none is missed
                reader.skip_to_end()
            found = find_ingested(self._spark, self.tables, self._topic, bounds)
            # Only now: if the look-up fails, the next one must not take the skipped commits for read.
            self._readers, self._bounds, self._ingested = readers, bounds, found
        return self._ingested.clip(bounds)

    def _add_committed(self, bounds: Bounds) -> None:
        """Add the commits since the last look-up, which must have included the bounds."""
        for partition, (first, end) in bounds.items():
            known = (0, end) if self._bounds is None else self._bounds.get(partition, (0, -1))
            if first < end and not known[0] <= first <= end <= known[1]:
                raise NotAppendsError("not looked up before")
        files = [file for reader in self._readers for file in reader.read_appended(_MAX_FILES)]
        if len(files) > _MAX_FILES:
            raise NotAppendsError(f"{len(files)} new files")
        self._ingested |= OffsetSet.union(read_file_positions(*file, self._topic) for file in files)
        for reader in self._readers:
            reader.advance()


def read_file_positions(table: Storage, file: str, topic: str) -> OffsetSet:
    """Read the offsets of a topic in a table's file."""
    rows = pq.ParquetFile(table.open(file)).read(["_kafka_topic", "_kafka_partition", "_kafka_offset"])
    rows = rows.filter(pc.equal(rows["_kafka_topic"], topic))
    partitions, offsets = (rows[name].to_numpy() for name in ("_kafka_partition", "_kafka_offset"))
    return OffsetSet({int(p): list_ranges(offsets[partitions == p]) for p in np.unique(partitions)})
