"""Two tables and a checkpoint, and how to fill and read them."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from bronze import ingest as run
from bronze.checkpoint import CheckpointFolder
from bronze.config import IngestConfig
from bronze.notebook.cells import AnyConfig
from bronze.observe.summary import IngestSummary
from bronze.runtime.object_store import find_storage

WRITERS = ("direct", "delta-spark")
# Many tests with delta-spark's writer repeat what a few have shown of it: CI has no time for them.
EITHER_WRITER = ("direct", pytest.param("delta-spark", marks=pytest.mark.soak))
with_both = pytest.mark.parametrize("any_lake", WRITERS, indirect=True)


@dataclass(frozen=True)
class Lake:
    """Two tables and a checkpoint, and how to fill and read them."""

    config: IngestConfig
    spark: SparkSession

    def ingest(self, **changes: Any) -> IngestSummary:
        """Ingest what the topic holds."""
        return run(replace(self.config, **changes), self.spark)

    def configure(self, kind: type[AnyConfig], **changes: Any) -> AnyConfig:
        """Another command's configuration, with the values that it shares with the ingestion's."""
        shared = {field.name for field in fields(kind)} & {field.name for field in fields(self.config)}
        return kind(**{name: getattr(self.config, name) for name in shared} | changes)

    def read(self, path: str) -> DataFrame:
        return self.spark.read.format("delta").load(path)

    @property
    def bronze(self) -> DataFrame:
        return self.read(self.config.output_path)

    @property
    def dlq(self) -> DataFrame:
        return self.read(self.config.dlq_path)

    def list_checkpoint(self, folder: str) -> list[Path]:
        """The files in a folder of the checkpoint."""
        return sorted(Path(self.config.checkpoint_path, folder).iterdir())

    def has_rows(self, count: int) -> bool:
        """Whether bronze has that many rows; false while the table or a file of its newest version does not exist."""
        try:
            return open_table(self.config.output_path).count() >= count
        except Exception:
            return False

    def positions(self) -> list[tuple[int, int]]:
        """(partition, offset) of every row of both tables, sorted; duplicates included."""
        columns = ["_kafka_partition", "_kafka_offset"]
        paths = filter(None, (self.config.output_path, self.config.dlq_path))
        tables = [open_table(path).to_pyarrow_table(columns=columns) for path in paths]
        return sorted(zip(*(pa.concat_tables(tables)[name].to_pylist() for name in columns), strict=True))


def open_table(path: str) -> DeltaTable:
    """A table on a local disk or in an object store."""
    place = find_storage(path)
    return DeltaTable(place.uri, storage_options=place.options)


def change_path(lake: Lake, name: str, path: Path) -> Lake:
    """The lake, with one of its paths changed."""
    return replace(lake, config=replace(lake.config, **{name: str(path)}))


def read_end(lake: Lake) -> int:
    """The number of offsets that the stream has completed, according to its checkpoint."""
    checkpoint = CheckpointFolder(lake.spark, lake.config.checkpoint_path, lake.config.kafka_topic).read()
    return sum(checkpoint.next_offsets.values()) if checkpoint else 0


def is_untouched(lake: Lake) -> bool:
    paths = (lake.config.output_path, lake.config.dlq_path, lake.config.checkpoint_path)
    return not any(Path(path).exists() for path in paths)
