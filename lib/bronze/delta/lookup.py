"""What the tables hold, kept up to date: looked up by Spark once, afterwards only in what was committed since.

A look-up by Spark takes seconds. Beside a writer that commits every second, the answer would be old before the next
commit, again and again. The files of a few commits are read at once, here on the driver; of a young table, all.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from bronze.delta.positions import find_present
from bronze.offsets import OffsetRanges, PlannedOffsets, clip_ranges, merge_ranges
from bronze.runtime.paths import to_local_path

log = logging.getLogger(__name__)
# With more new files than that, a look-up by Spark takes less time.
_MAX_FILES = 100


class _NotSimpleError(Exception):
    """Raised when what was committed is more than a few added files that can be read here."""


class Lookup:
    """Which offsets of a topic are in some tables."""

    def __init__(self, spark: SparkSession, tables: Sequence[str], topic: str):
        self._spark, self._tables, self._topic = spark, list(tables), topic
        self._logs = [_Log(table) for table in tables]
        self._planned: PlannedOffsets | None = None  # what Spark was asked; nothing yet, all is in the logs
        self._present: OffsetRanges = {}

    def find_present(self, planned: PlannedOffsets) -> OffsetRanges:
        """Which of the planned offsets are in any of the tables, with all that was committed before this call.

        Args:
            planned: First and end (exclusive) offset per partition.

        Returns:
            Ranges for each planned partition; an empty list where nothing is there.
        """
        try:
            self._add_committed(planned)
        except (_NotSimpleError, OSError, ValueError, KeyError, pa.ArrowException) as reason:
            log.debug("Looked up by Spark: %s: %s", type(reason).__name__, reason)
            self._logs = [_Log(table) for table in self._tables]
            for log_ in self._logs:  # before Spark looks: what is committed meanwhile is read twice
                log_.skip_to_end()
            self._planned, self._present = planned, find_present(self._spark, self._tables, self._topic, planned)
        found = {p: self._present.get(p, []) for p in planned}
        return {p: clip_ranges(found[p], first, end) if first < end else [] for p, (first, end) in planned.items()}

    def _add_committed(self, planned: PlannedOffsets) -> None:
        """Add what was committed since the last look-up, which must have covered the plan."""
        for partition, (first, end) in planned.items():
            known = (0, end) if self._planned is None else self._planned.get(partition, (0, -1))
            if first < end and not known[0] <= first <= end <= known[1]:
                raise _NotSimpleError("not looked up before")
        files = [file for log_ in self._logs for file in log_.read_added()]
        if len(files) > _MAX_FILES:
            raise _NotSimpleError(f"{len(files)} new files")
        for file in files:
            for partition, ranges in read_file_positions(file, self._topic).items():
                self._present[partition] = merge_ranges(self._present.get(partition, []), ranges)
        for log_ in self._logs:
            log_.go_on()


class _Log:
    """Position in the Delta log of one table, before its first commit."""

    def __init__(self, table: str):
        self._table = Path(to_local_path(table) or "/nowhere")
        self._folder = self._table / "_delta_log"
        self._version = self._read_to = -1
        self._identity: tuple[int, int] | None = None

    def _identify(self) -> tuple[int, int] | None:
        """Of the last commit that was read; another table at the path has another."""
        if self._version < 0:
            return None
        found = self._file(self._version).stat()
        return found.st_ino, found.st_mtime_ns

    def _file(self, version: int) -> Path:
        return self._folder / f"{version:020}.json"

    def read_added(self) -> list[Path]:
        """The files that were appended since; rows that OPTIMIZE only moved are not new."""
        if self._identity != self._identify():
            raise _NotSimpleError("not the log that was read before")
        if not self._file(self._version + 1).is_file() and self._version < 0:
            raise _NotSimpleError("its first commits are gone")
        files: list[Path] = []
        self._read_to = self._version
        while (file := self._file(self._read_to + 1)).is_file() and len(files) <= _MAX_FILES:
            self._read_to += 1
            files += (self._table / unquote(add["path"]) for add in _list_appended(file))
        return files

    def go_on(self) -> None:
        """What was read need not be read again."""
        self._version = self._read_to
        self._identity = self._identify()

    def skip_to_end(self) -> None:
        """Leave out what was committed until now."""
        versions = [int(file.stem) for file in self._folder.glob("*.json") if file.stem.isdecimal()]
        self._read_to = max(versions, default=-1)
        self.go_on()


def _list_appended(commit: Path) -> Iterator[dict[str, Any]]:
    for line in commit.read_text().splitlines():
        action = json.loads(line)
        if action.get("remove", {}).get("dataChange"):
            raise _NotSimpleError("rows were deleted")
        if action.get("add", {}).get("deletionVector"):
            raise _NotSimpleError("rows of a file are deleted")
        if action.get("add", {}).get("dataChange"):
            yield action["add"]


def read_file_positions(file: Path, topic: str) -> OffsetRanges:
    """The offsets of a topic that a table's file holds, per partition."""
    rows = pq.ParquetFile(file).read(["_kafka_topic", "_kafka_partition", "_kafka_offset"])
    rows = rows.filter(pc.equal(rows["_kafka_topic"], topic))
    partitions, offsets = (rows[name].to_numpy() for name in ("_kafka_partition", "_kafka_offset"))
    return {int(p): list_ranges(offsets[partitions == p]) for p in np.unique(partitions)}


def list_ranges(offsets: np.ndarray) -> list[tuple[int, int]]:
    """Ascending ranges of some offsets."""
    each = np.unique(offsets)
    starts = np.append(True, np.diff(each) > 1)
    return list(zip(each[starts].tolist(), each[np.append(starts[1:], True)].tolist(), strict=True))
