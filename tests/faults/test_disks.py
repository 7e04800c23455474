"""Disks that refuse or are full: one clear line, and the same command then completes.

The small disks are separate tmpfs mounts. If the user is not allowed to mount, permissions and a process limit on file
sizes replace them.
"""

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.audit import assert_complete
from tests.support.events import BAD, make_events
from tests.support.ingestion import Ingestion
from tests.support.lake import Lake, change_path, is_untouched
from tests.support.topic import Topic
from tests.support.waiting import when

PATHS = ["output_path", "dlq_path", "checkpoint_path"]
RECORDS = 60 + len(BAD)


class Disk:
    """A small separate file system below a folder; it can be full, or read-only."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder.with_name(f"{folder.name}-aside")
        shutil.copytree(folder, aside)
        self._mount("size=8m", "-t", "tmpfs", "tmpfs")
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        shutil.rmtree(aside)

    def _mount(self, options: str, *what: str) -> None:
        subprocess.run(["mount", "-o", options, *what, str(self.folder)], check=True)

    def fill(self) -> None:
        with (self.folder / ".filler").open("wb", buffering=0) as filler:
            while True:
                try:
                    filler.write(bytes(4096))
                except OSError:
                    return

    def grow(self) -> None:
        self._mount("remount,size=64m")

    def protect(self) -> None:
        for _ in range(200):  # the mount is busy while a file is open for writing
            with suppress(subprocess.CalledProcessError):
                return self._mount("remount,ro")
            time.sleep(0.01)
        raise AssertionError(f"{self.folder} stays busy")

    def release(self) -> None:
        self._mount("remount,rw")

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


class Folder(Disk):
    """The replacement for a disk if mounting is not permitted; it can be read-only, but not full."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def protect(self) -> None:
        for path in (self.folder, *filter(Path.is_dir, self.folder.rglob("*"))):
            path.chmod(0o555)

    def release(self) -> None:
        subprocess.run(["chmod", "-R", "u+w", str(self.folder)], check=True)

    remove = release


@pytest.fixture(scope="session")
def can_mount(tmp_path_factory: pytest.TempPathFactory) -> bool:
    try:
        Disk(tmp_path_factory.mktemp("probe")).remove()
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


@pytest.fixture
def make_disk(can_mount: bool) -> Iterator[Callable[[Path], Disk]]:
    """A function that moves a folder with its content to a separate disk."""
    made: list[Disk] = []

    def make(folder: Path) -> Disk:
        made.append((Disk if can_mount else Folder)(folder))
        return made[-1]

    yield make
    for disk in made:
        disk.remove()


# 1. Not writable


@pytest.mark.parametrize("name", PATHS)
def test_a_path_that_cannot_be_written_to_is_refused_before_anything_is_written(
    bronze, lake: Lake, make_disk, tmp_path: Path, name: str
):
    disk = make_disk(tmp_path / "disk")
    disk.protect()
    code, message = bronze(**{name: str(disk.folder / "a" / "b")})
    assert code == 2
    assert message.startswith(f"--{name.replace('_', '-')}: expected a path that can be written to ({disk.folder} ")
    assert message.endswith(f"got '{disk.folder}/a/b'") or "no permission for" in message
    assert len(message.splitlines()) == 1
    assert is_untouched(lake)
    assert list(disk.folder.iterdir()) == []


@pytest.mark.parametrize(("writer", "name"), [*(("direct", name) for name in PATHS), ("delta-spark", "output_path")])
def test_a_path_that_becomes_read_only_ends_the_stream_which_goes_on_once_it_is_writable(
    bronze, topic: Topic, lake: Lake, make_disk, tmp_path: Path, name: str, writer: str
):
    topic.produce([*make_events(600), *BAD * 20], partition=0)
    path = tmp_path / "disk" / name
    # The lock of a checkpoint is open for writing, so that its file system stays busy.
    disk = make_disk(path / "offsets" if name == "checkpoint_path" else path.parent)
    moved = change_path(lake, name, path)
    protecting = when(lambda: moved.has_rows(20), disk.protect)
    code, message = bronze("--max-offsets-per-trigger", "10", "--writer", writer, **{name: str(path)})
    protecting.join()
    assert code == 1, message
    assert message.startswith(f"cannot write to {'' if writer == 'direct' else 'file:'}{path}")
    assert message.endswith("nothing was lost: make it writable, then run the same command again to continue")
    disk.release()
    assert bronze("--writer", writer, **{name: str(path)})[0] == 0
    assert_complete(moved, 760)


# 2. Full


@pytest.mark.parametrize(
    ("writer", "where"),
    [
        ("direct", "bronze"),
        ("direct", "dlq"),
        ("direct", "bronze/_delta_log"),
        ("direct", "checkpoint"),
        ("direct", "checkpoint/commits"),
        ("delta-spark", "bronze"),
        ("delta-spark", "bronze/_delta_log"),
    ],
)
def test_a_full_disk_ends_the_stream_which_goes_on_once_there_is_space(
    bronze, topic: Topic, lake: Lake, make_disk, can_mount: bool, writer: str, where: str
):
    lake.ingest()
    topic.produce(make_events(60) + BAD)
    if not can_mount:
        pytest.skip("no disk can be mounted here; test_a_file_that_may_not_grow is what is left")
    disk = make_disk(Path(lake.config.output_path).parent / where)
    disk.fill()
    code, message = bronze("--writer", writer)
    assert code == 1
    assert message.startswith("cannot write to ")
    assert f"{lake.config.output_path if 'bronze' in where else disk.folder}".removesuffix("/commits") in message
    assert " (No space left on device); nothing was lost: free space, then run the same command again" in message
    assert len(message.splitlines()) == 1
    disk.grow()
    assert bronze("--writer", writer)[0] == 0
    assert_complete(lake, RECORDS)


def test_a_file_that_may_not_grow_ends_the_stream_which_goes_on_once_it_may(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion]
):
    """No file of the ingestion and its tasks may grow beyond 1 MiB, once it runs: a limit that needs no disk."""
    lake.ingest()
    topic.produce(make_events(60) + BAD)
    ingestion = start(replace(lake.config, available_now=False, trigger_interval="1 second"))
    ingestion.wait_for("Batch 1: total")
    limit(ingestion, 1024 * 1024)
    large = [event[:-1] + b', "x": "' + os.urandom(2_000).hex().encode() + b'"}' for event in make_events(1_000)]
    topic.produce(large, partition=0)
    assert ingestion.wait() == 1, ingestion.log[-3000:]
    assert f"bronze: cannot write to {lake.config.output_path}" in ingestion.log
    assert " (File too large); nothing was lost: free space, then run the same command again" in ingestion.log
    lake.ingest()
    assert_complete(lake, RECORDS + 1_000)


def limit(ingestion: Ingestion, size: int) -> None:
    """Limit the file sizes of the processes: the driver, its JVM, and the tasks that the JVM forks."""
    listed = subprocess.check_output(["ps", "-o", "pid=", "-g", str(ingestion.process.pid)], text=True)
    for pid in map(int, listed.split()):
        with suppress(ProcessLookupError):  # a task may end between these two calls
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
