"""One secured broker for all tests, and a function that ingests through one of its ports."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import AclOperation

from sandbox.secured import SecuredKafka
from tests.support.lake import Lake
from tests.support.secured import USERS, write_properties

IDLE_MS, REAUTH_MS = 5_000, 3_000


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """The broker: alice and the client certificate "billing" may read every topic, carol may only describe it."""
    sandbox = SecuredKafka(tmp_path_factory.mktemp("secured"), USERS, IDLE_MS, REAUTH_MS)
    sandbox.authority.issue("billing")
    with sandbox:
        for user, password in USERS.items():
            sandbox.set_password(user, password)
        for user in ("alice", "billing"):
            sandbox.allow(user, AclOperation.READ, "test-")
        sandbox.allow("carol", AclOperation.DESCRIBE, "test-")
        yield sandbox


@pytest.fixture
def through(kafka: SecuredKafka, lake: Lake, tmp_path: Path) -> Callable[..., Lake]:
    """A function that returns the lake with the address of a listener and with client properties."""

    def connect(listener: str, properties: dict[str, str]) -> Lake:
        file = write_properties(tmp_path / "client.properties", properties)
        return replace(lake, config=replace(lake.config, kafka_brokers=kafka.get_address(listener), kafka_config=file))

    return connect
