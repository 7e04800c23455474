"""The code that Spark runs on executors needs only the packages that ``make env-archive`` packs."""

import pickle
import re
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from bronze.ops.drift import count_drift
from bronze.runtime.jars import list_executor_packages
from bronze.schema import get_bronze_spec, get_dlq_spec
from bronze.storage import Storage
from bronze.tasks import BatchResult, BatchTask, _run_task, add_results, diagnose_records, return_rows, split_partition
from bronze.transforms import Counts
from tests.support.builders import INGESTED_AT, create_table, make_records, make_value
from tests.support.paths import ROOT

# Task: its arguments, and the number of rows that it returns for two valid records and an invalid one.
TASKS = {
    return_rows: ((), 3),
    _run_task: (("task",), 1),
    split_partition: (("task",), 4),
    diagnose_records: (("ingested_at",), 3),
    count_drift: (("mask", "length"), 1),
}
_EXECUTE = "import pickle, sys; task, batch = pickle.load(sys.stdin.buffer); print(sum(map(len, task(iter([batch])))))"


@pytest.fixture(scope="module")
def executor_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the modules that an executor can import: the packed ones, those of Spark, and this package."""
    folder = tmp_path_factory.mktemp("env")
    for name in (*list_executor_packages(), "pyspark", "py4j"):
        for found in Path(sysconfig.get_path("purelib")).glob(f"{name.partition('-')[0]}*"):  # also numpy.libs
            if not (folder / found.name).exists():  # arro3 is the folder of two packages
                (folder / found.name).symlink_to(found)
    (folder / "bronze").symlink_to(ROOT / "lib" / "bronze")
    return str(folder)


@pytest.mark.parametrize("function", TASKS)
def test_a_task_runs_with_what_the_archive_has(function, executor_path: str, tmp_path: Path):
    paths = [Storage(create_table(tmp_path / spec.name, spec)) for spec in (get_bronze_spec(), get_dlq_spec())]
    known = {"task": BatchTask(0, INGESTED_AT, *paths), "ingested_at": INGESTED_AT, "mask": [], "length": 100}
    names, rows = TASKS[function]
    records = make_records([make_value(), b"{", make_value()])
    records = records.append_column("was", pa.nulls(3, pa.string())).append_column(
        "is_replayed", pa.nulls(3, pa.bool_())
    )
    sent = pickle.dumps((partial(function, **{name: known[name] for name in names}), records))
    command = [sys.executable, "-S", "-c", _EXECUTE]
    done = subprocess.run(command, input=sent, capture_output=True, env={"PYTHONPATH": executor_path})
    assert (done.stdout, done.stderr) == (f"{rows}\n".encode(), b"")


def test_the_bounds_of_timestamps_need_no_database_of_time_zones(executor_path: str):
    code = (
        "import pyarrow as pa; from bronze.parquet import collect_stats; "
        "rows = pa.table({'t': pa.array([1_500_000], pa.timestamp('us', 'UTC'))}); "
        "print(collect_stats(rows, ('t',))['maxValues'])"
    )
    environment = {"PYTHONPATH": executor_path, "PYTHONTZPATH": ""}
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("{'t': '1970-01-01T00:00:01.500Z'}\n", "")


def test_a_task_of_the_delta_spark_writer_writes_nothing_where_it_sees_no_table(tmp_path: Path):
    task = BatchTask(0, INGESTED_AT, Storage(str(tmp_path / "bronze")), None)
    with pytest.raises(FileNotFoundError, match="No such table"):
        next(split_partition(iter([make_records([make_value()])]), task))


class Collected:
    """The results of two tasks, as Spark returns them."""

    def __init__(self, *has_builder: bool):
        self.results = [BatchResult(Counts(by_partition={0: 2}), has_builder=each) for each in has_builder]

    def collect(self) -> list[dict[str, bytes]]:
        return [{"result": msgspec.json.encode(result)} for result in self.results]


def test_the_driver_warns_once_if_executors_lack_the_fast_decoder(bronze_log: pytest.LogCaptureFixture):
    assert add_results(Collected(True, True)).counts.total == 4  # type: ignore[arg-type]
    assert bronze_log.messages == []
    assert add_results(Collected(True, False)).counts.total == 4  # type: ignore[arg-type]
    warnings = bronze_log.messages
    assert warnings[0].startswith("the executors' Python lacks arro3-io")
    add_results(Collected(True, False))  # type: ignore[arg-type]
    assert bronze_log.messages == warnings


def test_there_are_no_other_tasks():
    sources = "".join(file.read_text() for file in (ROOT / "lib" / "bronze").rglob("*.py"))
    calls = re.findall(r"\b(?:mapIn\w+|applyIn\w+|foreachPartition|udf|pandas_udf)\(", sources)
    assert len(calls) == len(TASKS)
