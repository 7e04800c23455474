"""Commits the offsets of each batch to a consumer group, in the background."""

from functools import partial

from bronze.errors import BronzeError
from bronze.kafka.client import KafkaClient
from bronze.kafka.group import commit_group_offsets
from bronze.observe.background import Background
from bronze.observe.summary import Batch

_CLOSE_SECONDS = 5


class GroupCommits:
    """Commits the newest offsets; a batch never waits for it."""

    def __init__(self, client: KafkaClient, group: str):
        self._client, self._group = client, group
        # Only the newest offsets matter.
        self._calls = Background(f"commit offsets to the consumer group {group}", waiting=1)

    def on_start(self) -> None:
        """A start commits nothing."""

    def on_batch(self, batch: Batch) -> None:
        """Commit the end of a batch."""
        self._calls.submit(partial(commit_group_offsets, self._client, self._group, batch.ends))

    def on_failure(self, error: BronzeError) -> None:
        """A restart commits nothing."""

    def on_end(self, error: BaseException | None) -> None:
        """Wait for the last commit."""
        self._calls.close(_CLOSE_SECONDS)
