"""CPU time of a task, in µs per record, with everything and with one feature left out: ``features.py RECORDS``.

One process writes the same records in turn with each variant, five times, and prints a line of JSON per variant: its
name and its samples. No option switches these features off, so a patch of the module leaves them out.
"""

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
from memory import generate_batches

from bronze import columns, parquet, transforms
from bronze.storage import Storage
from bronze.tasks import BatchTask, write_partition

ROUNDS = 5


def drop_raw_value() -> AbstractContextManager[object]:
    return patch.object(transforms, "_read_raw_values", lambda values, _: pa.nulls(len(values), pa.string()))


def drop_statistics() -> AbstractContextManager[object]:
    return patch.object(parquet, "collect_stats", lambda rows, _: {"numRecords": len(rows)})


def decode_by_rows() -> AbstractContextManager[object]:
    return patch.object(columns, "_choose_judge", lambda _: None)


VARIANTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "everything": nullcontext,
    "without the raw value": drop_raw_value,
    "without statistics in the log": drop_statistics,
    "without the DLQ (invalid records in bronze)": nullcontext,
    "with the row decoder alone": decode_by_rows,
}


def measure(batches: list[pa.RecordBatch], name: str) -> float:
    """CPU seconds to decode and write the batches; the write to the disk itself is not CPU time."""
    with tempfile.TemporaryDirectory() as folder, VARIANTS[name]():
        tables = [Path(folder, table) for table in ("bronze", "dlq")]
        for table in tables:
            (table / "_delta_log").mkdir(parents=True)
        bronze, dlq = (Storage(str(table)) for table in tables)
        started = time.process_time()
        write_partition(iter(batches), BatchTask(1, time.time_ns() // 1000, bronze, None if "DLQ" in name else dlq))
        return time.process_time() - started


def main(records: int) -> None:
    batches, samples = list(generate_batches(records)), defaultdict(list)
    for number in range(ROUNDS + 1):
        for name in VARIANTS:
            seconds = measure(batches, name)
            if number:  # the first round is a warm-up
                samples[name].append(seconds / records * 1e6)
    for name, found in samples.items():
        print(json.dumps([name, found]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
