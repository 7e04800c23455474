"""Producers whose rate and share of bad records change over time."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from confluent_kafka import Producer

from sandbox.events import generate_events
from tests.support.events import BAD

_POOL = 5_000
_STEP = 0.05  # seconds
_WINDOW = timedelta(minutes=30)


def _just_now() -> datetime:
    return datetime.now(UTC) - _WINDOW


@dataclass
class Load:
    """A producer in a thread.

    Attributes:
        rate: Records per second.
        bad_share: Share of the records that are invalid.
        sent: Records that Kafka has confirmed.
    """

    brokers: str
    topic: str
    rate: float = 1_000
    bad_share: float = 0.0
    sent: int = 0
    failed: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> Callable[[], None]:
        """Start to send; the result ends it and waits for the last confirmation."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()

        def stop() -> None:
            self._ended.set()
            thread.join()

        return stop

    def _run(self) -> None:
        pool = [(each.key, each.value) for each in generate_events(_POOL, 7, _just_now(), 0.0, _WINDOW)]
        limits = {"queue.buffering.max.messages": 1_000_000, "queue.buffering.max.kbytes": 600_000}
        settings = {"compression.type": "zstd", "linger.ms": 50, "message.timeout.ms": 900_000}
        producer = Producer({"bootstrap.servers": self.brokers, "enable.idempotence": True, **limits, **settings})
        number, due, last = 0, 0.0, time.monotonic()
        while not self._ended.is_set():
            now = time.monotonic()
            due = min(due + (now - last) * self.rate, self.rate)  # a full queue is not caught up with later
            last = now
            with suppress(BufferError):  # the broker is away: the upstream services drop what they cannot send
                while due >= 1:
                    key, value = pool[number % _POOL]
                    if self.bad_share and number % 1_000 < 1_000 * self.bad_share:
                        value = BAD[number % len(BAD)]
                    producer.produce(self.topic, value, key=key, on_delivery=self._note)
                    number, due = number + 1, due - 1
            producer.poll(_STEP)
        assert producer.flush(300) == 0

    def _note(self, error: object, _message: object) -> None:
        self.sent, self.failed = self.sent + (error is None), self.failed + (error is not None)
