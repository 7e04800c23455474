"""One run after another over one backlog, each killed at a random moment."""

import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import replace

from sandbox.events import generate_events
from tests.support.audit import assert_complete
from tests.support.events import START
from tests.support.ingestion import Ingestion
from tests.support.lake import WRITERS, Lake
from tests.support.topic import Topic

# In seconds; a busy machine may need minutes for something that takes seconds.
LONG = 400
KILLS = int(os.environ.get("KILLS") or 6)  # make test-soak: 25
SEED = int(os.environ.get("SEED") or time.time())


def count_batches(ingestion: Ingestion) -> int:
    """Batches that a run has committed."""
    return len(re.findall(r"Batch \d+: total", ingestion.log))


def wait_for_batches(ingestion: Ingestion, number: int, seconds: float = LONG) -> None:
    end = time.monotonic() + seconds
    while count_batches(ingestion) < number:
        assert ingestion.process.poll() is None, ingestion.log[-3000:]
        assert time.monotonic() < end, ingestion.log[-3000:]
        time.sleep(0.02)


def wait_at_random(ingestion: Ingestion, chance: random.Random, number: int) -> None:
    """Wait for a random moment: during the start, before the first commit, or (mostly) between later commits."""
    if number % 5 == 0:
        time.sleep(chance.uniform(0.5, 5))
    elif number % 5 == 1:
        ingestion.wait_for(" writer (", LONG)
        time.sleep(chance.uniform(0, 3))
    else:
        wait_for_batches(ingestion, chance.randint(1, 3))
        time.sleep(chance.uniform(0, 1))


def assert_survives_kills(lake: Lake, topic: Topic, start: Callable[..., Ingestion], kills: int) -> None:
    """Kill one run after another over one backlog, alternating the writers; then ingest the rest, and audit."""
    chance, records, batches = random.Random(SEED), 2_000 * kills, []
    print(f"\n{kills} kills, SEED={SEED}")
    topic.produce([record.value for record in generate_events(records, SEED, START, invalid_ratio=0.05)])
    for number in range(kills):
        ingestion = start(replace(lake.config, writer=WRITERS[number % 2], max_offsets_per_trigger=200))
        wait_at_random(ingestion, chance, number)
        assert ingestion.process.poll() is None, ingestion.log[-3000:]
        ingestion.kill()
        batches.append(count_batches(ingestion))
    print(f"batches committed before each kill: {batches}")
    assert sum(number > 0 for number in batches) >= kills / 2
    assert min(batches) == 0
    assert lake.ingest().counts.total > 0
    assert_complete(lake, records)
    assert lake.dlq.count() == records * 0.05
