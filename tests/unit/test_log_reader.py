"""Reads a log from a position on: each appended file once, and never an incomplete result."""

import json
from pathlib import Path

import pytest

from bronze.delta.log import LogReader, NotAppendsError


def commit(table: Path, version: int, *actions: dict) -> None:
    actions = actions or ({"add": {"path": f"part-{version}.parquet", "dataChange": True}},)
    folder = table / "_delta_log"
    folder.mkdir(exist_ok=True)
    (folder / f"{version:020}.json").write_text("\n".join(map(json.dumps, actions)))


def clean(table: Path, *versions: int) -> None:
    for version in versions:
        (table / "_delta_log" / f"{version:020}.json").unlink()


def read(reader: LogReader) -> list[str]:
    names = [Path(file).name for _, file in reader.read_appended(100)]
    reader.advance()
    return names


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for version in range(6):
        commit(tmp_path, version)
    return tmp_path


def test_each_appended_file_is_read_once(table: Path):
    reader = LogReader(str(table))
    assert read(reader) == [f"part-{n}.parquet" for n in range(6)]
    commit(table, 6)
    assert read(reader) == ["part-6.parquet"]
    assert read(reader) == []


def test_a_log_that_is_cleaned_while_it_is_read_is_not_taken_for_read(table: Path):
    reader = LogReader(str(table))
    files = reader.read_appended(100)
    assert [Path(next(files)[1]).name for _ in range(3)] == [f"part-{n}.parquet" for n in range(3)]
    clean(table, *range(5))
    assert list(files) == []
    with pytest.raises(NotAppendsError, match="the last commit no longer exists"):
        reader.advance()


def test_a_position_whose_commit_is_cleaned_is_lost(table: Path):
    reader = LogReader(str(table))
    read(reader)
    clean(table, *range(6))
    for version in range(6, 9):
        commit(table, version)
    with pytest.raises(NotAppendsError, match="not the log that was read before"):
        read(reader)


def test_a_log_without_its_first_commits_is_not_read_from_the_start(table: Path):
    clean(table, 0, 1)
    with pytest.raises(NotAppendsError, match="its first commits no longer exist"):
        read(LogReader(str(table)))


def test_a_position_at_the_end_reads_what_comes_after(table: Path):
    clean(table, 0, 1)
    reader = LogReader(str(table))
    reader.skip_to_end()
    commit(table, 6)
    assert read(reader) == ["part-6.parquet"]


def test_another_table_at_the_path_is_noticed(table: Path):
    reader = LogReader(str(table))
    read(reader)
    clean(table, *range(6))
    for version in range(7):
        commit(table, version, {"add": {"path": f"other-{version}.parquet", "dataChange": True}})
    with pytest.raises(NotAppendsError, match="not the log that was read before"):
        read(reader)


@pytest.mark.parametrize(
    "action",
    [
        {"remove": {"path": "part-1.parquet", "dataChange": True}},
        {"add": {"path": "part-1.parquet", "dataChange": True, "deletionVector": {"storageType": "u"}}},
    ],
)
def test_deleted_rows_are_no_appends(table: Path, action: dict):
    commit(table, 6, action)
    with pytest.raises(NotAppendsError, match="rows were deleted"):
        read(LogReader(str(table)))


def test_files_that_only_moved_are_not_new(table: Path):
    moved = {"add": {"path": "compacted.parquet", "dataChange": False}}
    commit(table, 6, moved, {"remove": {"path": "part-1.parquet", "dataChange": False}})
    assert "compacted.parquet" not in read(LogReader(str(table)))
