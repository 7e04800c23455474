"""A step that conflicts with other writers runs again, a limited number of times, after pauses that grow."""

import pytest

from bronze.runtime.retry import ATTEMPTS, retry_conflicts


class LostError(Exception):
    """What the step of these tests raises."""


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr("bronze.runtime.retry.sleep", found.append)
    return found


def lose(attempt: int) -> int:
    raise LostError(str(attempt))


def test_a_step_runs_again_until_it_has_no_conflict(pauses: list[float]):
    logged: list[tuple[int, str]] = []

    def win_at_last(attempt: int) -> int:
        return attempt if attempt == 3 else lose(attempt)

    assert retry_conflicts(win_at_last, LostError, lambda attempt, error: logged.append((attempt, str(error)))) == 3
    assert logged == [(1, "1"), (2, "2")]


def test_the_last_conflict_is_raised_and_no_pause_follows_it(pauses: list[float]):
    with pytest.raises(LostError, match=str(ATTEMPTS)):
        retry_conflicts(lose, LostError, pause=(1, 2))
    assert len(pauses) == ATTEMPTS - 1
    assert all(2**n <= pause <= 2 ** (n + 1) for n, pause in enumerate(pauses, 1))


def test_another_error_ends_it_at_once(pauses: list[float]):
    with pytest.raises(LostError):
        retry_conflicts(lose, (KeyError, ValueError))
    assert pauses == []
