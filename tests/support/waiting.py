"""Waiting for what another thread or process does, and acting beside it."""

import threading
import time
from collections.abc import Callable
from typing import Any


def wait_until(is_reached: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + seconds
    while not is_reached():
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.2)


def when(is_reached: Callable[[], bool], act: Callable[[], Any]) -> threading.Thread:
    """Do something as soon as a condition holds, beside what the test does."""

    def wait() -> None:
        wait_until(is_reached, 120)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def run_twice_at_once(action: Callable[[], object]) -> list[Exception]:
    """Run it in two threads that begin together; what they raised."""
    barrier, failed = threading.Barrier(2), []

    def run() -> None:
        barrier.wait()
        try:
            action()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed
