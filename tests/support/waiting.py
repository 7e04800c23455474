"""Waits for another thread or process, or acts at the same time."""

import threading
import time
from collections.abc import Callable
from typing import Any


def wait_until(is_reached: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for another thread or process."""
    end = time.monotonic() + seconds
    while not is_reached():
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.2)


def when(is_reached: Callable[[], bool], act: Callable[[], Any]) -> threading.Thread:
    """Do something as soon as a condition holds, while the test continues."""

    def wait() -> None:
        wait_until(is_reached, 120)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def run_twice_at_once(action: Callable[[], object]) -> list[Exception]:
    """Run a function in two threads that start together; return the exceptions that they raised."""
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
