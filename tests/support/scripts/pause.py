"""``bronze`` that pauses at one point of its first batch (PAUSE_AT), where it, or one of its tasks, can be killed."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame

from bronze import batch, cli, pipeline, tasks
from bronze.batch import BatchProcessor
from bronze.checkpoint import CheckpointFolder
from bronze.delta import commit, own_table
from bronze.delta.own_table import OwnTable

AT = os.environ["PAUSE_AT"]
SECONDS = 600
run_task, append_rows = tasks._run_task, own_table._append_rows


def pause() -> None:
    print(f"Paused {AT}, process {os.getpid()}", file=sys.stderr, flush=True)
    time.sleep(SECONDS)


def pause_task() -> None:
    """Pause in the second task of a job; if that task is lost, its next attempt does not pause."""
    context = TaskContext.get()
    if context and (context.partitionId(), context.attemptNumber()) == (1, 0):
        pause()


def pause_before(function: Callable, number: int = 1) -> Callable:
    """The function, with a pause before its call of that number."""
    calls: list[Any] = []

    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == number:
            pause()
        return function(*arguments, **options)

    return call


def pause_before_bronze(commit: Callable) -> Callable:
    """The commit, with a pause before the first commit of rows to bronze, when the DLQ already has the batch."""
    paused: list[bool] = []

    def call(table: OwnTable, rows: Any, note: Any) -> None:
        if rows is not None and "bronze" in table.path.rpartition("/")[2] and not paused:
            paused.append(True)
            pause()
        commit(table, rows, note)

    return call


def pause_after(function: Callable) -> Callable:
    def call(*arguments: Any, **options: Any) -> Any:
        function(*arguments, **options)
        pause()

    return call


def write_and_pause(batches: Iterator[pa.RecordBatch], task: tasks.BatchTask) -> Iterator[pa.RecordBatch]:
    """A task of the direct writer that has written its files, but has not reported to the driver."""
    results = list(run_task(batches, task))
    pause_task()
    yield from results


def append_and_pause(rows: DataFrame, *arguments: Any) -> None:
    """An append of Spark that has written some of its files."""

    def wait(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from batches
        pause_task()

    append_rows(rows.mapInArrow(wait, rows.schema), *arguments)


def set_pause() -> None:
    match AT:
        case "before the write":
            batch.append_batch = pause_before(batch.append_batch)  # type: ignore[attr-defined]
        case "during the write":
            tasks._run_task, own_table._append_rows = write_and_pause, append_and_pause
        case "between the commits":
            OwnTable.commit = pause_before_bronze(OwnTable.commit)  # type: ignore[method-assign]
        case "before the checkpoint's commit":
            BatchProcessor._process = pause_after(BatchProcessor._process)  # type: ignore[method-assign]
        case "during a checkpoint of the log":  # in a thread of the writer, after its first commit
            own_table.read_interval = lambda _: 1  # type: ignore[attr-defined]
            commit.try_checkpoint = pause_before(commit.try_checkpoint)  # type: ignore[attr-defined]
        case "between the tables":
            pipeline.create_table = pause_before(pipeline.create_table, 2)  # type: ignore[attr-defined]
        case "before the checkpoint is bound":
            CheckpointFolder.write_binding = pause_before(CheckpointFolder.write_binding)  # type: ignore[method-assign]
        case _:
            raise ValueError(f"PAUSE_AT={AT}")


if __name__ == "__main__":
    set_pause()
    sys.exit(cli.main())
