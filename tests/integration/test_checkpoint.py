"""``bronze checkpoint`` shows a checkpoint, and how to continue if it is damaged or belongs to other tables."""

from pathlib import Path

import pytest

from bronze.cli import main
from tests.support.events import make_events
from tests.support.lake import Lake
from tests.support.topic import Topic


@pytest.fixture
def checkpoint(lake: Lake, capsys: pytest.CaptureFixture[str]):
    """Run the command on the lake's checkpoint; return its exit code and its output."""

    def run(**changes: str) -> tuple[int, str]:
        names = ("kafka_topic", "checkpoint_path", "output_path", "dlq_path")
        flags = {name: changes.get(name, getattr(lake.config, name)) for name in names}
        code = main(["checkpoint", *(word for n, v in flags.items() for word in ("--" + n.replace("_", "-"), v))])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    return run


def read_row(shown: str, partition: int) -> list[str]:
    """Partition, began at, next batch starts at, planned to, already in the tables."""
    (row,) = [line.split() for line in shown.splitlines() if line.strip().startswith(f"{partition} ")]
    return row


def test_a_checkpoint_that_is_done_is_described(checkpoint, topic: Topic, lake: Lake):
    topic.produce(make_events(20), partition=1)
    lake.ingest(max_offsets_per_trigger=10)
    code, shown = checkpoint()
    assert code == 0
    assert "last planned batch     1\nlast committed batch   1\n" in shown
    assert [line.split() for line in shown.splitlines() if line.strip().startswith("1 ")] == [
        ["1", "0", "20", "20", "0"]
    ]
    assert "The tables agree." in shown


def test_a_batch_that_runs_again_is_told(checkpoint, topic: Topic, lake: Lake):
    topic.produce(make_events(20), partition=1)
    lake.ingest()
    Path(lake.config.checkpoint_path, "commits", "0").unlink()
    code, shown = checkpoint()
    assert code == 0
    assert "Batch 0 runs again at the next start" in shown
    assert [line.split() for line in shown.splitlines() if line.strip().startswith("1 ")] == [
        ["1", "0", "0", "20", "20"]
    ]


def test_tables_of_another_checkpoint_are_told(checkpoint, lake: Lake, tmp_path: Path):
    lake.ingest()
    lake.ingest(output_path=str(tmp_path / "other"), checkpoint_path=str(tmp_path / "other-checkpoint"), dlq_path="")
    code, shown = checkpoint(output_path=str(tmp_path / "other"), dlq_path="")
    assert code == 2
    assert "The tables do NOT agree: the records went into" in shown


@pytest.mark.parametrize("name", ["metadata", "offsets/0", "sources/0/0"])
def test_a_missing_file_is_named_with_the_way_on(checkpoint, topic: Topic, lake: Lake, name: str):
    topic.produce(make_events(2))
    lake.ingest()
    Path(lake.config.checkpoint_path, name).write_text("")
    code, shown = checkpoint()
    assert code == 2
    assert f"{name} is " in shown
    assert "Start with a new --checkpoint-path and --starting-offsets earliest" in shown


def test_no_checkpoint_is_told(checkpoint, lake: Lake):
    code, shown = checkpoint()
    assert code == 2
    assert "no query has planned a batch at" in shown
