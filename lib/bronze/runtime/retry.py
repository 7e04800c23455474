"""Repeats a step that conflicts with other writers."""

import random
from collections.abc import Callable
from time import sleep
from typing import TypeVar

Answer = TypeVar("Answer")
ATTEMPTS = 5


def retry_conflicts(
    step: Callable[[int], Answer],
    conflicts: type[Exception] | tuple[type[Exception], ...],
    log_conflict: Callable[[int, Exception], None] = lambda attempt, conflict: None,
    pause: tuple[float, float] = (0, 0),
) -> Answer:
    """Run a step until it has no conflict, at most ATTEMPTS times. The last conflict is raised.

    Args:
        step: Takes the number of the attempt, from 1.
        conflicts: Errors after which the step runs again.
        log_conflict: Takes the number of the attempt and its conflict.
        pause: Limits of the random pause in seconds; they double before each attempt.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return step(attempt)
        except conflicts as conflict:
            log_conflict(attempt, conflict)
            if attempt == ATTEMPTS:
                raise
        sleep(random.uniform(*pause) * 2**attempt)
    raise AssertionError("the last attempt returns or raises")
