"""Is the ingestion healthy? The answer of ``/health``."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

# Seconds without a commit, in addition to the trigger interval, while records wait.
STUCK_SECONDS = 900


@dataclass
class Health:
    """The facts from which the state of a run follows; several threads set them.

    Attributes:
        patience: Seconds without a commit after which a query with lag is stuck.
        failure: Why the query does not run; empty while it does.
        kafka: Why Kafka does not answer; empty while it does.
        silent_since: Since when Kafka has not answered, on the monotonic clock.
        lag: Offsets that were not read yet; None if unknown.
        progressed: Time of the last commit or start, or when the lag was last 0, on the monotonic clock.
    """

    patience: float = STUCK_SECONDS
    failure: str = ""
    kafka: str = ""
    silent_since: float = 0.0
    lag: int | None = None
    progressed: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def note_progress(self) -> None:
        """A batch has committed."""
        with self._lock:
            self.progressed, self.failure = time.monotonic(), ""

    def note_lag(self, lag: int | None) -> None:
        """Kafka has answered; the lag is None while it is not known where the ingestion continues."""
        with self._lock:
            self.lag, self.kafka, self.silent_since = lag, "", 0.0
            if not lag:
                self.progressed = time.monotonic()

    def note_silence(self, reason: str) -> None:
        """Kafka has not answered."""
        with self._lock:
            self.kafka, self.silent_since = reason, self.silent_since or time.monotonic()

    def list_reasons(self) -> list[str]:
        """Why the run is not healthy; empty if it is."""
        now, reasons = time.monotonic(), []
        if self.failure:
            reasons.append(f"the query does not run: {self.failure}")
        if self.kafka:
            reasons.append(f"Kafka has not answered for {now - self.silent_since:.0f} s: {self.kafka}")
        if self.lag and now - self.progressed > self.patience:
            reasons.append(f"no batch was committed for {now - self.progressed:.0f} s, and {self.lag:,} records wait")
        return reasons

    def describe(self) -> dict[str, Any]:
        """The state as JSON."""
        with self._lock:
            reasons = self.list_reasons()
            seconds = round(time.monotonic() - self.progressed, 1)
            return {
                "status": "unhealthy" if reasons else "ok",
                "reasons": reasons,
                "lag": self.lag,
                "seconds_since_progress": seconds,
            }
