"""A table's Delta log: which code deletes from it, when a checkpoint is due, and which commits have expired."""

import errno
import json
import os
import shutil
import time
import zlib
from contextlib import nullcontext
from itertools import accumulate
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from deltalake import DeltaTable

from bronze.delta import commit, log_files, own_table
from bronze.delta.create import publish_commit
from bronze.delta.log import find_checkpoint, find_restore
from bronze.delta.log_cleanup import LogFile, TableHistory, parse_listing
from bronze.delta.log_files import read_interval, remove_stale_checksum
from bronze.delta.own_table import TableLog
from bronze.errors import BronzeError, TransientError
from bronze.parquet import write_parquet
from bronze.schema import get_bronze_spec
from bronze.storage import Storage
from bronze.transforms import split_records
from bronze.writers import DirectWriter
from tests.support.builders import INGESTED_AT, create_table, make_records, make_value
from tests.support.delta_log import append, list_commits, make_old


def set_properties(path: str, **properties: str) -> None:
    """Commit properties exactly as given, as ALTER TABLE does; deltalake refuses some forms."""
    folder, version = Path(path, "_delta_log"), DeltaTable(path).version()
    first = (folder / f"{0:020}.json").read_text().splitlines()
    (metadata,) = [json.loads(line)["metaData"] for line in first if "metaData" in json.loads(line)]
    metadata["configuration"] |= {f"delta.{name}": value for name, value in properties.items()}
    (folder / f"{version + 1:020}.json").write_text(json.dumps({"metaData": metadata}))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return create_table(tmp_path / "bronze", get_bronze_spec())


RETENTIONS = ["365 days", "INTERVAL 365 DAYS", "interval 365 DAYS", "interval 365 days", "interval 1 days"]


@pytest.mark.parametrize("retention", RETENTIONS)
def test_the_direct_writer_deletes_nothing_from_the_log(path: str, retention: str):
    set_properties(path, logRetentionDuration=retention, enableExpiredLogCleanup="true")
    append(TableLog(path), 7)
    make_old(path, 60, range(9))
    append(TableLog(path), 12)
    assert list_commits(path) == list(range(21))


def test_a_log_that_is_cleaned_under_a_writer_ends_no_run(path: str):
    log = TableLog(path)
    append(log, 4)
    log.refresh()
    append(TableLog(path), 3)
    DeltaTable(path).create_checkpoint()
    for version in range(7):
        Path(path, "_delta_log", f"{version:020}.json").unlink()
    assert log.refresh()
    append(log)
    assert not log.refresh()
    assert DeltaTable(path).version() == 8


def test_a_shorter_log_of_another_table_ends_the_run(path: str):
    log = TableLog(path)
    append(log, 4)
    log.refresh()
    shutil.rmtree(path)
    create_table(Path(path), get_bronze_spec())
    with pytest.raises(BronzeError, match="was altered, replaced or deleted"):
        log.refresh()


def test_a_table_that_is_gone_ends_the_run(path: str):
    log = TableLog(path)
    shutil.rmtree(path)
    with pytest.raises(BronzeError, match="was altered, replaced or deleted"):
        log.refresh()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The files and folders that were written to the disk at once."""
    found: set[str] = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: found.add(str(Path(f"/proc/self/fd/{descriptor}").readlink())))
    return found


def test_a_commit_is_on_the_disk_before_its_batch_is_done(path: str, synced: set[str]):
    append(TableLog(path), 2)
    assert {f"{path}/_delta_log/{version:020}.json" for version in (1, 2)} <= synced
    assert {path, f"{path}/_delta_log"} <= synced


def test_the_files_of_a_batch_are_on_the_disk_before_their_commit(path: str, synced: set[str]):
    rows = split_records(make_records([make_value()]), 3, INGESTED_AT, False).bronze
    (file,) = write_parquet(rows, Storage(path), get_bronze_spec(), 3)
    assert {f"{path}/{part}" for part in accumulate(file.path.split("/"), "{}/{}".format)} <= synced


def test_the_first_commit_of_a_table_is_on_the_disk(tmp_path: Path, synced: set[str]):
    folder = tmp_path / "new" / "_delta_log"
    assert publish_commit(folder / f"{0:020}.json", b"{}")
    assert {str(folder / f"{0:020}.json"), str(folder), str(folder.parent)} <= synced


@pytest.mark.parametrize(("code", "ends"), [(errno.EINVAL, False), (errno.EACCES, False), (errno.EIO, True)])
def test_a_disk_that_cannot_sync_ends_no_run_but_an_error_of_the_disk_does(
    path: str, monkeypatch: pytest.MonkeyPatch, code: int, ends: bool
):
    def fail(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(TransientError, match="Input/output error") if ends else nullcontext():
        append(TableLog(path), 1)


def test_a_commit_that_was_cut_off_below_a_checkpoint_is_no_restore():
    texts = {2: '{"commitInfo":{"operation":"RESTORE"}}', 3: "\0" * 40}
    assert find_restore(texts.get, 1, 3) == 2


class Written(list[int]):
    """The versions at which a checkpoint was written, with a stand-in for delta-spark's function."""

    def __init__(self, path: str, monkeypatch: pytest.MonkeyPatch):
        self.path, self.error = path, ""
        monkeypatch.setattr(log_files, "write_checkpoint", self.write)
        set_properties(path, checkpointInterval="5")

    def write(self, *_: Any) -> None:
        if self.error:
            raise OSError(self.error)
        self.append(DeltaTable(self.path).version())
        self.point_to(self[-1])

    def point_to(self, version: int) -> None:
        Path(self.path, "_delta_log", "_last_checkpoint").write_text(json.dumps({"version": version}))

    def go_on(self, table: TableLog, commits: int) -> None:
        for _ in range(commits):
            append(table)
            if due := table.claim_checkpoint():
                log_files.try_checkpoint(None, *due)  # type: ignore[arg-type]


@pytest.fixture
def written(path: str, monkeypatch: pytest.MonkeyPatch) -> Written:
    return Written(path, monkeypatch)


def test_a_checkpoint_is_due_after_as_many_commits_as_the_table_says(path: str, written: Written):
    written.go_on(TableLog(path), 15)
    assert written == [4, 9, 14]


def test_commits_of_others_count_whatever_their_versions_are(path: str, written: Written):
    table = TableLog(path)
    for _ in range(4):
        append(TableLog(path), 3)
        table.refresh()
        written.go_on(table, 1)
    assert written == [5, 13]


def test_a_checkpoint_of_others_counts_too(path: str, written: Written):
    table = TableLog(path)
    written.go_on(table, 6)
    written.point_to(7)
    written.go_on(table, 8)
    assert written == [4, 14]


def test_one_is_found_without_the_pointer_to_it(path: str):
    append(TableLog(path), 3)
    assert find_checkpoint(path) == -1
    DeltaTable(path).create_checkpoint()
    Path(path, "_delta_log", "_last_checkpoint").write_text("{")
    assert find_checkpoint(path) == 3


def test_a_checkpoint_that_fails_is_a_warning_and_tried_again_an_interval_later(
    path: str, written: Written, caplog: pytest.LogCaptureFixture
):
    table, written.error = TableLog(path), "No space left on device"
    written.go_on(table, 7)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cannot write a checkpoint of the log of" in caplog.text and "No space left on device" in caplog.text
    written.error = ""
    written.go_on(table, 3)
    assert written == [9]


def test_nothing_is_read_while_none_is_due(path: str, written: Written, monkeypatch: pytest.MonkeyPatch):
    table = TableLog(path)
    written.go_on(table, 4)
    monkeypatch.setattr(log_files, "find_checkpoint", lambda path: pytest.fail("it was read"))
    written.go_on(table, 3)
    assert written == [4]


def test_a_slow_checkpoint_delays_no_batch_and_none_is_written_at_the_same_time(
    path: str, monkeypatch: pytest.MonkeyPatch
):
    written, gate = [], Event()
    monkeypatch.setattr(commit, "try_checkpoint", lambda spark, path, *_: gate.wait(60) and written.append(path))
    monkeypatch.setattr(own_table, "read_interval", lambda properties: 5)
    with DirectWriter(path) as writer:
        for _ in range(15):
            append(TableLog(path))
            writer.has_changed()
            writer.keep_logs_short(None)  # type: ignore[arg-type]
        assert not written
        gate.set()
    assert written == [path]


def test_an_interrupt_does_not_wait_for_a_checkpoint(path: str, monkeypatch: pytest.MonkeyPatch):
    gate = Event()
    monkeypatch.setattr(commit, "try_checkpoint", lambda *_: gate.wait(60))
    monkeypatch.setattr(own_table, "read_interval", lambda properties: 1)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), DirectWriter(path) as writer:
        writer.keep_logs_short(None)  # type: ignore[arg-type]
        raise KeyboardInterrupt
    assert time.monotonic() - started < 20
    gate.set()


@pytest.mark.parametrize(("interval", "expected"), [("25", 25), ("", 10), ("0", 10), ("-5", 10), ("ten", 10)])
def test_the_interval_is_the_table_s_or_delta_s_own(interval: str, expected: int):
    assert read_interval({"delta.checkpointInterval": interval}) == expected
    assert read_interval({}) == 10


@pytest.mark.parametrize(("content", "is_left"), [(b"x" * 1_200, True), (b"x" * 1_199, False), (b"y" * 1_200, False)])
def test_a_checksum_of_another_checkpoint_s_pointer_is_removed(path: str, content: bytes, is_left: bool):
    folder = Path(path, "_delta_log")
    sums = b"".join(zlib.crc32(b"x" * size).to_bytes(4) for size in (512, 512, 176))
    (folder / "._last_checkpoint.crc").write_bytes(b"crc\0" + (512).to_bytes(4) + sums)
    (folder / "_last_checkpoint").write_bytes(content)
    remove_stale_checksum(path)
    assert (folder / "._last_checkpoint.crc").exists() == is_left


def test_a_table_without_a_checkpoint_has_no_checksum_to_remove(path: str):
    remove_stale_checksum(path)
    assert list_commits(path) == [0]


def test_a_listing_of_any_file_system_is_understood():
    name = "_delta_log/00000000000000000007"
    rest = "length=221; replication=1; blocksize=33554432; modification_time=1794802855151; access_time=0; owner=}"
    local = f"{{DeprecatedRawLocalFileStatus{{path=file:/a {{b}},[c]/{name}.json; isDirectory=false; {rest},"
    s3 = (
        f"S3AFileStatus{{path=s3a://lake/b/{name}.checkpoint.parquet; isDirectory=false; {rest} isEmptyDirectory=FALSE,"
    )
    others = f"S3AFileStatus{{path=s3a://lake/b/_delta_log/_last_checkpoint; isDirectory=false; {rest},"
    folder = f"S3AFileStatus{{path=s3a://lake/b/{name}.json; isDirectory=true; modification_time=5; access_time=0}}}}"
    assert parse_listing(local + s3 + others + folder) == (
        LogFile(7, "checkpoint.parquet", 1794802855151),
        LogFile(7, "json", 1794802855151),
    )


def describe(*modified: int, checkpoints: tuple[int, ...] = ()) -> TableHistory:
    """A log of commits with the given times; each checkpoint has the time of its commit."""
    files = [LogFile(version, "json", time) for version, time in enumerate(modified)]
    files += [LogFile(version, "checkpoint.parquet", modified[version]) for version in checkpoints]
    return TableHistory(tuple(sorted(files)), max(checkpoints, default=-1), 10, 30, is_kept=False)


def test_what_can_go_ends_at_a_checkpoint_that_all_before_it_are_old_enough_for():
    history = describe(1, 2, 3, 4, 5, 6, checkpoints=(2, 4))
    assert [history.find_end(cutoff) for cutoff in (1, 2, 3, 4, 9)] == [0, 2, 2, 4, 4]
    assert history.count_commits(4) == 4


def test_without_a_checkpoint_nothing_can_go():
    assert describe(1, 2, 3).find_end(9) == 0


def test_an_old_commit_after_a_young_one_is_as_young():
    assert describe(1, 8, 1, 9, checkpoints=(3,)).find_end(5) == 0
    assert describe(1, 8, 1, 20, checkpoints=(3,)).find_end(9) == 3


def test_what_is_to_be_kept_lengthens_the_retention():
    hour = 3_600_000
    history = describe(1 * hour, 5 * hour, 9 * hour, checkpoints=(2,))
    assert history.find_retention(None, 20 * hour) == hour
    assert history.find_retention(1, 20 * hour) == 16 * hour
