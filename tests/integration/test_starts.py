"""A run opens one Kafka client, reads its properties once, and uses one look-up for the tables."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from bronze import BackfillConfig, backfill
from bronze.delta.lookup import Lookup
from bronze.kafka import client
from tests.support.events import BAD, make_events
from tests.support.lake import EITHER_WRITER, Lake
from tests.support.topic import Topic


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The number of clients, property files and look-ups that were opened."""
    counts: Counter[str] = Counter()

    def count(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            counts[name] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr(client, "_create_admin", count("admin", client._create_admin))
    monkeypatch.setattr(client, "read_client_properties", count("properties", client.read_client_properties))
    monkeypatch.setattr(Lookup, "__init__", count("lookup", Lookup.__init__))
    return counts


@pytest.mark.parametrize("writer", EITHER_WRITER)
def test_a_run_opens_each_once_at_the_first_start_and_at_the_next(
    topic: Topic, lake: Lake, opened: Counter[str], writer: str
):
    for _ in range(2):
        topic.produce(make_events(5) + BAD)
        opened.clear()
        lake.ingest(writer=writer, max_offsets_per_trigger=5)
        assert opened == {"admin": 1, "properties": 1, "lookup": 1}


def test_a_backfill_opens_each_once(topic: Topic, lake: Lake, opened: Counter[str]):
    topic.produce(make_events(5) + BAD)
    lake.ingest(starting_offsets="latest")
    opened.clear()
    config = lake.configure(BackfillConfig, starting_offsets="earliest", checkpoint_path="", max_offsets_per_trigger=9)
    assert backfill(config, lake.spark).summary.counts.valid == 5
    assert opened == {"admin": 1, "properties": 1, "lookup": 1}
