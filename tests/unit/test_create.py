"""The first commit of a table: complete, and written by one process only."""

from multiprocessing import get_context
from pathlib import Path

from bronze.delta.create import publish_commit

PROCESSES = 4
COMMITS = 50


def publish_all(folder: str, content: bytes) -> int:
    """Publish commits that other processes publish too; return how many this process wrote."""
    return sum(publish_commit(Path(folder, f"{version}.json"), content) for version in range(COMMITS))


def test_a_commit_is_written_by_one_of_many_processes(tmp_path: Path):
    contents = [str(number).encode() * 10_000 for number in range(PROCESSES)]
    with get_context("spawn").Pool(PROCESSES) as pool:
        written = pool.starmap(publish_all, [(str(tmp_path), content) for content in contents])
    assert sum(written) == COMMITS
    assert {file.read_bytes() for file in tmp_path.iterdir()} <= set(contents)
    assert len(list(tmp_path.iterdir())) == COMMITS


def test_a_commit_that_exists_is_kept(tmp_path: Path):
    commit = tmp_path / "_delta_log" / "0.json"
    assert publish_commit(commit, b"first")
    assert not publish_commit(commit, b"second")
    assert commit.read_bytes() == b"first"
