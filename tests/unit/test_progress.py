"""The progress that a run over a backlog logs."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bronze.observe import progress
from bronze.observe.progress import Backlog, Point, count_left, count_read, format_duration, format_progress

LINE = re.compile(
    r"(?P<batches>[\d,]+) batch(es)? done, (?P<done>[\d,]+) of (?P<total>[\d,]+) records; (?P<left>[\d,]+) left"
    r"( at (?P<rate>[\d,]+) records/s, about (?P<time>[\d, a-z]+))?"
)
points = st.builds(Point, st.floats(0, 1e9), st.integers(0, 10**9), st.integers(0, 2**63))


def test_a_line_has_batches_records_rate_and_time():
    first, recent, now = Point(0, 0, 100_000), Point(60, 3, 70_000), Point(70, 4, 60_000)
    assert format_progress(first, recent, now) == (
        "4 batches done, 40,000 of 100,000 records; 60,000 left at 1,000 records/s, about 1 min"
    )


def test_where_nothing_was_read_there_is_no_rate():
    first = Point(5, 0, 10)
    assert format_progress(first, first, Point(5, 1, 5)) == "1 batch done, 5 of 10 records; 5 left"
    assert format_progress(first, first, Point(9, 1, 10)) == "1 batch done, 0 of 10 records; 10 left"


@given(points, points, points)
def test_whatever_the_points_are_no_number_is_below_zero(first: Point, recent: Point, now: Point):
    match = LINE.fullmatch(format_progress(first, recent, now))
    assert match
    done, total, left = (int(match[name].replace(",", "")) for name in ("done", "total", "left"))
    assert total == done + left
    assert left == now.left


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1 s"),
        (0.2, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3_600, "1 h"),
        (3_661, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (86_400 * 2_000, "2,000 d"),
    ],
)
def test_durations_have_the_two_largest_units(seconds: float, text: str):
    assert format_duration(seconds) == text


def make_progress(batch: int, start: dict[str, int] | None, end: dict[str, int], latest: dict[str, int], rows: int):
    texts = [json.dumps(offsets and {"events": offsets}) for offsets in (start, end, latest)]
    source = dict(zip(("startOffset", "endOffset", "latestOffset"), texts, strict=True))
    return SimpleNamespace(batchId=batch, sources=[SimpleNamespace(**source, numInputRows=rows)])


def test_what_is_left_and_read_is_counted_over_all_partitions():
    found = make_progress(7, {"0": 10, "1": 0}, {"0": 15, "1": 8}, {"0": 20, "1": 8, "2": 4}, 99)
    assert (count_left(found), count_read(found)) == (9, 13)


def test_the_first_batch_of_a_checkpoint_has_no_start_and_counts_its_records():
    assert count_read(make_progress(0, None, {"0": 15}, {"0": 20}, 5)) == 5


def test_offsets_that_went_back_leave_nothing():
    assert count_left(make_progress(0, {"0": 9}, {"0": 9}, {"0": 3}, 0)) == 0
    assert count_left(SimpleNamespace(batchId=0, sources=[])) == 0  # type: ignore[arg-type]


@dataclass
class Query:
    """A query that runs batches of ten records."""

    batches: int
    done: list[Any] = field(default_factory=list)

    def go_on(self) -> None:
        number = len(self.done)
        ends = ({"0": 10 * n} for n in (number, number + 1, self.batches))
        self.done.append(make_progress(number + 4, *ends, rows=10))

    @property
    def recentProgress(self) -> list[Any]:  # noqa: N802
        return self.done

    @property
    def lastProgress(self) -> Any:  # noqa: N802
        return self.done[-1] if self.done else None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [1_000.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    yield now


def run(query: Query, clock: list[float], seconds: int = 3) -> None:
    """Check the progress every second, as the stream does, while each batch takes some seconds."""
    backlog = Backlog(query)  # type: ignore[arg-type]
    while len(query.done) < query.batches:
        for _ in range(seconds):
            clock[0] += 1
            backlog.look()
        query.go_on()
    backlog.look()


def test_a_line_comes_every_ten_seconds_at_the_most(clock: list[float], bronze_log: pytest.LogCaptureFixture):
    run(Query(14), clock)
    assert list(dict.fromkeys(bronze_log.messages)) == [
        "Progress: 3 batches done, 30 of 140 records; 110 left at 3 records/s, about 37 s",
        "Progress: 7 batches done, 70 of 140 records; 70 left at 3 records/s, about 22 s",
        "Progress: 11 batches done, 110 of 140 records; 30 left at 3 records/s, about 9 s",
    ]


def test_a_run_of_one_batch_says_nothing(clock: list[float], bronze_log: pytest.LogCaptureFixture):
    run(Query(1), clock, seconds=500)
    assert bronze_log.messages == []
    run(Query(0), clock)
    assert bronze_log.messages == []
