"""``bronze`` with batches whose tasks take a minute each, to test faults in the middle of a batch."""

import logging
import sys
import time
from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import DataFrame

from bronze import cli, writers
from bronze.tasks import BatchResult, BatchTask, write_batch

SECONDS = 60


def write_slowly(batch: DataFrame, task: BatchTask) -> BatchResult:
    def wait(records: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        time.sleep(SECONDS)
        yield from records

    logging.getLogger("bronze").info("Slow: the batch begins")
    return write_batch(batch.mapInArrow(wait, batch.schema), task)


if __name__ == "__main__":
    writers.write_batch = write_slowly  # type: ignore[attr-defined]
    sys.exit(cli.main())
