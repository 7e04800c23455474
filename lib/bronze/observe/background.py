"""Runs calls in a thread, so that a slow or dead receiver neither delays nor fails a batch."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)
# Seconds between two warnings about the same receiver.
_QUIET = 600


class Background:
    """A thread that makes one call after another. A failure is a warning, at most one in ten minutes."""

    def __init__(self, name: str, waiting: int):
        """
        Args:
            name: What the calls do, for the warning: "send lineage to http://…".
            waiting: Calls that may wait; a newer one replaces the oldest.
        """
        self._name = name
        self._calls: deque[Callable[[], object]] = deque(maxlen=waiting)
        self._wake = threading.Condition()
        self._is_closed = False
        self._warned: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def submit(self, call: Callable[[], object]) -> None:
        """Make a call soon; returns at once."""
        with self._wake:
            self._calls.append(call)
            self._wake.notify()
            if self._thread.ident is None:
                self._thread.start()

    def close(self, seconds: float) -> None:
        """Wait until the calls are made, at most some seconds; the thread ends with the process."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        if self._thread.ident is None:
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._warn(f"it did not end within {seconds:g} s")

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._calls:
                    if self._is_closed:
                        return
                    self._wake.wait()
                call = self._calls.popleft()
            try:
                call()
            except Exception as error:  # whatever a receiver does, the batch goes on
                self._warn(str(error) or type(error).__name__)

    def _warn(self, reason: str) -> None:
        now = time.monotonic()
        if self._warned is None or now - self._warned >= _QUIET:
            self._warned = now
            log.warning("cannot %s: %s", self._name, " ".join(reason.split())[:300])
