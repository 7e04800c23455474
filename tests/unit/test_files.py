"""Files written from Arrow rows become, once committed, a Delta table with those rows."""

import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import types as T

from bronze import columns, tasks
from bronze.delta.ledger import new_note
from bronze.delta.own_table import TableLog
from bronze.parquet import DataFile, collect_stats, write_parquet
from bronze.runtime.object_store import find_storage
from bronze.schema import get_bronze_spec, get_dlq_spec
from bronze.storage import Storage
from bronze.tasks import BatchTask, write_partition
from bronze.transforms import split_records
from tests.support.builders import INGESTED_AT, create_table, make_records, make_value, read_rows

BRONZE, DLQ = get_bronze_spec(), get_dlq_spec()
MIB = 1024 * 1024
BAD = [None, b"", b"\xff", b"{", b"[]", b"{}"]


def at_hour(hour: int) -> str:
    return (datetime(2025, 1, 1, 0, 30, tzinfo=UTC) + timedelta(hours=hour)).isoformat()


def make_hours(hours: list[int]) -> list[bytes | None]:
    return [make_value(event_timestamp=at_hour(hour), geo={"city": f"c{n}"}) for n, hour in enumerate(hours)]


def make_bronze(values: list[bytes | None], use_dlq: bool = False, **records: Any) -> pa.Table:
    return split_records(make_records(values, **records), 3, INGESTED_AT, use_dlq).bronze


def write_bronze(folder: Path, rows: pa.Table) -> DeltaTable:
    """Write and commit rows to a new bronze table."""
    path = create_table(folder, BRONZE)
    return commit_files(path, write_parquet(rows, Storage(path), BRONZE, 3))


def commit_files(path: str, files: list[DataFile]) -> DeltaTable:
    TableLog(path).commit(files, new_note("ingest"))
    return DeltaTable(path)


def test_the_rows_that_were_written_are_those_that_are_read(tmp_path: Path):
    rows = make_bronze(make_hours([0, 5, 0, 30, 5]))
    found = write_bronze(tmp_path / "b", rows).to_pyarrow_table()
    assert read_rows(found) == read_rows(rows)


def test_dlq_rows_that_were_written_are_those_that_are_read(tmp_path: Path):
    path = create_table(tmp_path / "dlq", DLQ)
    rows = split_records(make_records(BAD), 3, INGESTED_AT, use_dlq=True).dlq
    table = commit_files(path, write_parquet(rows, find_storage(f"file://{path}"), DLQ, 3))
    assert read_rows(table.to_pyarrow_table()) == read_rows(rows)


def test_rows_without_an_event_time_are_readable_with_null_partition_values(tmp_path: Path):
    rows = make_bronze([*make_hours([0]), *BAD])
    table = write_bronze(tmp_path / "b", rows)
    assert read_rows(table.to_pyarrow_table()) == read_rows(rows)


def test_a_null_partition_value_is_null_in_the_log_and_not_the_name_of_its_folder(tmp_path: Path):
    (file,) = write_parquet(make_bronze(BAD), Storage(str(tmp_path)), BRONZE, 3)
    assert file.partition_values == {"_event_date": None, "_event_hour": None}
    assert file.path.startswith("_event_date=__HIVE_DEFAULT_PARTITION__/_event_hour=__HIVE_DEFAULT_PARTITION__/")


def test_partition_values_are_those_of_the_rows(tmp_path: Path):
    files = write_parquet(make_bronze(make_hours([23, 0])), Storage(str(tmp_path)), BRONZE, 3)
    assert [f.partition_values for f in files] == [
        {"_event_date": "2025-01-01", "_event_hour": "0"},
        {"_event_date": "2025-01-01", "_event_hour": "23"},
    ]


def test_each_partition_value_has_one_file(tmp_path: Path):
    files = write_parquet(make_bronze(make_hours([1, 2, 1, 26, 2, 1])), Storage(str(tmp_path)), BRONZE, 3)
    assert [json.loads(f.stats)["numRecords"] for f in files] == [3, 2, 1]
    assert len({tuple(f.partition_values.values()) for f in files}) == 3


def test_5000_hours_in_one_call_are_5000_files_of_one_readable_table(tmp_path: Path):
    names = ["event_timestamp", "_kafka_offset", "_event_date", "_event_hour"]
    few = T.StructType([BRONZE.schema[name] for name in names])  # with 24 columns it would take half a minute
    spec = replace(BRONZE, schema=few, stats_columns=("_kafka_offset",))
    rows = make_bronze(make_hours(list(range(5_000)))).select(names)
    table = commit_files(create_table(tmp_path, spec), write_parquet(rows, Storage(str(tmp_path)), spec, 3))
    assert len(table.file_uris()) == 5_000
    assert table.to_pyarrow_table(columns=names).sort_by("_kafka_offset").equals(rows.replace_schema_metadata(None))


def test_rows_of_a_file_keep_their_order(tmp_path: Path):
    offsets = [9, 3, 7, 1, 8, 2]
    rows = make_bronze(make_hours([1, 2, 1, 2, 1, 2]), offsets=offsets)
    files = write_parquet(rows, Storage(str(tmp_path)), BRONZE, 3)
    found = [pq.ParquetFile(tmp_path / f.path).read(["_kafka_offset"])["_kafka_offset"].to_pylist() for f in files]
    assert found == [offsets[::2], offsets[1::2]]


def test_a_parquet_file_has_all_columns_but_those_of_the_partition_in_zstd(tmp_path: Path):
    (file,) = write_parquet(make_bronze(make_hours([1, 1])), Storage(str(tmp_path)), BRONZE, 3)
    parquet = pq.ParquetFile(tmp_path / file.path)
    assert parquet.schema_arrow.names == [n for n in BRONZE.schema.names if n not in BRONZE.partition_columns]
    group = parquet.metadata.row_group(0)
    assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}


def test_a_file_is_described_by_its_name_and_size(tmp_path: Path):
    (file,) = write_parquet(make_bronze(make_hours([1])), Storage(str(tmp_path)), BRONZE, 42)
    assert file.size == (tmp_path / file.path).stat().st_size
    assert Path(file.path).name.startswith("part-00000042-")
    assert file.path.endswith(".zstd.parquet")


def test_two_calls_never_write_the_same_file(tmp_path: Path):
    rows = make_bronze(make_hours([1]))
    names = [f.path for _ in range(2) for f in write_parquet(rows, Storage(str(tmp_path)), BRONZE, 3)]
    assert len(set(names)) == 2


def test_a_table_whose_path_has_spaces_and_signs_is_written_and_read(tmp_path: Path):
    rows = make_bronze(make_hours([1]))
    table = write_bronze(tmp_path / "a b % ü #1", rows)
    assert read_rows(table.to_pyarrow_table()) == read_rows(rows)


def stats_of(rows: pa.Table) -> dict[str, Any]:
    return collect_stats(rows, BRONZE.stats_columns)


def test_statistics_are_minimum_maximum_and_nulls_of_the_columns_that_are_looked_up():
    values = [make_value(event_id="b"), make_value(event_id="a"), None]
    stats = stats_of(make_bronze(values, partitions=[4, 2, 3], offsets=[9, 8, 7]))
    assert stats["numRecords"] == 3
    assert (stats["minValues"]["_kafka_partition"], stats["maxValues"]["_kafka_partition"]) == (2, 4)
    assert (stats["minValues"]["_kafka_offset"], stats["maxValues"]["_kafka_offset"]) == (7, 9)
    assert (stats["minValues"]["event_id"], stats["maxValues"]["event_id"]) == ("a", "b")
    assert (stats["nullCount"]["event_id"], stats["nullCount"]["_kafka_offset"]) == (1, 0)


def test_times_in_statistics_have_milliseconds_and_a_z():
    stats = stats_of(make_bronze(make_hours([1, 1]), timestamps=[1_748_736_000_001_000, None]))
    assert stats["minValues"]["_kafka_timestamp"] == "2025-06-01T00:00:00.001Z"
    assert stats["maxValues"]["_ingested_at"] == "2026-06-01T12:00:05.000Z"
    assert stats["nullCount"]["_kafka_timestamp"] == 1


def test_a_column_of_nulls_has_a_null_count_and_no_bounds():
    stats = stats_of(make_bronze(BAD))
    assert stats["nullCount"]["event_id"] == len(BAD)
    assert "event_id" not in stats["minValues"]
    assert "event_id" not in stats["maxValues"]


@pytest.mark.parametrize("kafka_time", [10**18, -(10**17), 9 * 10**18])
def test_a_kafka_timestamp_that_no_calendar_has_is_written_without_bounds(tmp_path: Path, kafka_time: int):
    rows = make_bronze(make_hours([1]), timestamps=[kafka_time])
    assert "_kafka_timestamp" not in stats_of(rows)["minValues"]
    table = write_bronze(tmp_path / "b", rows)
    assert read_rows(table.to_pyarrow_table())[0]["_kafka_timestamp"] == kafka_time


LONG = ["a" * 64, "a" * 65, "a" * 64 + "\U0010ffff", "a" * 64 + "\U0010ffffb", "é" * 100, "\uffff" * 70, "😀" * 65]
STARTS = st.sampled_from(["", "a" * 63, "é" * 64, "\U0010ffff" * 64])
IDS = st.builds(str.__add__, STARTS, st.text(st.characters(exclude_categories=["Cs"]), max_size=5))


@pytest.mark.parametrize("text", LONG)
def test_a_long_string_is_within_its_bounds(text: str):
    stats = collect_stats(pa.table({"event_id": [text]}), ("event_id",))
    low, high = stats["minValues"]["event_id"], stats["maxValues"]["event_id"]
    assert low.encode() <= text.encode() <= high.encode()


@given(st.lists(IDS, min_size=1, max_size=5))
def test_all_strings_are_within_their_bounds_in_the_order_of_their_bytes(texts: list[str]):
    stats = collect_stats(pa.table({"event_id": texts}), ("event_id",))
    low, high = stats["minValues"]["event_id"].encode(), stats["maxValues"]["event_id"].encode()
    assert all(low <= text.encode() <= high for text in texts)


def test_a_string_of_ordinary_characters_has_bounds_of_at_most_65():
    stats = collect_stats(pa.table({"event_id": ["x" * 1_000_000]}), ("event_id",))
    assert stats["minValues"]["event_id"] == "x" * 64
    assert len(stats["maxValues"]["event_id"]) == 65


def test_the_log_has_the_statistics_that_were_collected(tmp_path: Path):
    rows = make_bronze(make_hours([1, 1]), offsets=[5, 6])
    write_bronze(tmp_path, rows)
    lines = (tmp_path / "_delta_log" / f"{1:020d}.json").read_text().splitlines()
    (added,) = [json.loads(line)["add"] for line in lines if "add" in json.loads(line)]
    assert json.loads(added["stats"]) == stats_of(rows)


def make_task(folder: Path, with_dlq: bool = True) -> BatchTask:
    bronze = Storage(create_table(folder / "bronze", BRONZE))
    return BatchTask(3, INGESTED_AT, bronze, Storage(create_table(folder / "dlq", DLQ)) if with_dlq else None)


def make_batches(count: int, size: int = 20) -> Iterator[pa.RecordBatch]:
    """Batches of which every fifth record is invalid; their rows take about 2 kB each."""
    for batch in range(count):
        values = [b"{" if n % 5 == 0 else make_value(request={"path": "/" + "x" * 2_000}) for n in range(size)]
        yield make_records(values, offsets=range(batch * size, (batch + 1) * size))


def read_offsets(path: str, files: list[Any]) -> list[int]:
    return sorted(commit_files(path, files).to_pyarrow_table(columns=["_kafka_offset"])["_kafka_offset"].to_pylist())


def test_a_task_writes_each_record_to_one_of_the_two_tables(tmp_path: Path):
    task = make_task(tmp_path)
    result = write_partition(make_batches(5), task)
    bronze, dlq = read_offsets(task.bronze.uri, result.bronze), read_offsets(task.dlq.uri, result.dlq)
    assert dlq == list(range(0, 100, 5))
    assert sorted(bronze + dlq) == list(range(100))


def test_a_task_counts_what_it_read(tmp_path: Path):
    result = write_partition(make_batches(5), make_task(tmp_path))
    assert result.counts.by_partition == {0: 100}
    assert result.counts.by_error_type == {"malformed_json": 20}
    assert result.counts.present == 0


def test_small_batches_become_one_file_of_each_table(tmp_path: Path):
    result = write_partition(make_batches(5), make_task(tmp_path))
    assert (len(result.bronze), len(result.dlq)) == (1, 1)


def test_a_task_that_reaches_its_limit_writes_more_files_with_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tasks, "FLUSH_BYTES", 100_000)
    task = make_task(tmp_path)
    result = write_partition(make_batches(10), task)
    assert len(result.bronze) > 3
    found = read_offsets(task.bronze.uri, result.bronze) + read_offsets(task.dlq.uri, result.dlq)
    assert sorted(found) == list(range(200))


def test_a_task_without_records_writes_no_file(tmp_path: Path):
    result = write_partition(iter([]), make_task(tmp_path))
    assert (result.bronze, result.dlq, result.counts.by_partition, result.counts.by_error_type) == ([], [], {}, {})
    assert list(tmp_path.rglob("*.parquet")) == []


def test_a_task_of_empty_batches_writes_no_file(tmp_path: Path):
    write_partition(iter([make_records([])] * 3), make_task(tmp_path))
    assert list(tmp_path.rglob("*.parquet")) == []


@pytest.mark.parametrize("with_dlq", [True, False])
def test_a_task_of_invalid_records_only_writes_them_to_one_table(tmp_path: Path, with_dlq: bool):
    task = make_task(tmp_path, with_dlq)
    result = write_partition(iter([make_records(BAD)]), task)
    written, other = (result.dlq, result.bronze) if with_dlq else (result.bronze, result.dlq)
    assert other == []
    assert read_offsets((task.dlq or task.bronze).uri, written) == list(range(len(BAD)))


def test_a_task_leaves_out_what_is_present_and_counts_it(tmp_path: Path):
    task = BatchTask(3, INGESTED_AT, Storage(create_table(tmp_path / "b", BRONZE)), None, present={0: [(0, 59)]})
    result = write_partition(make_batches(5), task)
    assert result.counts.present == 60
    assert read_offsets(task.bronze.uri, result.bronze) == list(range(60, 100))


# Arrow's pool does not see the memory of arrow-rs, which builds the columns other than the raw value.
@pytest.mark.parametrize(("has_builder", "least"), [(False, 4 * MIB), (True, 0)])
def test_a_task_holds_no_more_than_a_few_times_its_limit(
    has_builder: bool, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(columns, "HAS_BUILDER", has_builder)
    monkeypatch.setattr(tasks, "FLUSH_BYTES", 4 * MIB)
    default, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        write_partition(make_batches(100, size=200), make_task(tmp_path))  # 40 MB of paths, and 40 MB of raw values
    finally:
        pa.set_memory_pool(default)
    assert least <= pool.max_memory() <= 20 * MIB


@pytest.mark.parametrize("collected", [True, False])
def test_a_task_leaves_garbage_collection_as_it_was(tmp_path: Path, collected: bool):
    (gc.enable if collected else gc.disable)()
    try:
        write_partition(iter([make_records([b"{"])]), BatchTask(3, INGESTED_AT, Storage(str(tmp_path)), None))
        assert gc.isenabled() is collected
    finally:
        gc.enable()


def test_a_task_makes_no_folder_where_the_table_is_gone(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="No such table: '.*/gone'"):
        write_partition(make_batches(1), BatchTask(3, INGESTED_AT, Storage(str(tmp_path / "gone")), None))
    assert not (tmp_path / "gone").exists()
