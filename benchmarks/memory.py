"""Peak memory, in MiB, of a process that decodes and writes one task's records: ``memory.py RECORDS``.

The records come as a task gets them, in Arrow batches of 10,000, and each batch is generated when it is needed. The
memory includes the Python interpreter, its modules, and the batch that is being generated.
"""

import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pyarrow as pa

from bronze.storage import Storage
from bronze.tasks import BatchTask, write_partition
from sandbox.events import SampleRecord, generate_events

START = datetime(2026, 1, 31, 6, tzinfo=UTC)
BATCH = 10_000


def build_batch(records: list[SampleRecord], first: int) -> pa.RecordBatch:
    count = len(records)
    return pa.record_batch(
        {
            "value": pa.array([record.value for record in records], pa.binary()),
            "key": pa.array([record.key for record in records], pa.binary()),
            "topic": pa.array(["benchmark"] * count),
            "partition": pa.array([0] * count, pa.int32()),
            "offset": pa.array(range(first, first + count), pa.int64()),
            "timestamp": pa.array([record.timestamp * 1000 for record in records], pa.timestamp("us", "UTC")),
            "row_hash": pa.array(range(first, first + count), pa.int64()),
        }
    )


def generate_batches(count: int) -> Iterator[pa.RecordBatch]:
    records = generate_events(count, 0, START)
    for first in range(0, count, BATCH):
        yield build_batch(list(islice(records, BATCH)), first)


def measure_peak() -> float:
    """Peak resident memory in MiB. ``getrusage`` would include the parent's memory, which exec inherits on Linux."""
    (peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    return int(peak) / 1024


def main() -> None:
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        for table in ("bronze", "dlq"):
            Path(folder, table, "_delta_log").mkdir(parents=True)
        ingested_at = int(datetime.now(UTC).timestamp()) * 1_000_000
        task = BatchTask(0, ingested_at, Storage(f"{folder}/bronze"), Storage(f"{folder}/dlq"))
        assert write_partition(generate_batches(count), task).counts.total == count
    print(measure_peak())


if __name__ == "__main__":
    main()
