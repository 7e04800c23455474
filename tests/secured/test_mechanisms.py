"""Spark reads the topic through each mechanism, with nothing but the properties file."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bronze import BackfillConfig, StatusConfig, backfill, status
from sandbox.secured import SecuredKafka
from tests.support.audit import assert_complete
from tests.support.events import BAD, make_events
from tests.support.lake import Lake
from tests.support.secured import list_mechanisms
from tests.support.topic import Topic

MECHANISMS = ["tls", "tls-pem", "tls-jks", "mtls", "scram", "plain", "plain-without-tls", "oauth"]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_record_arrives(mechanism: str, kafka: SecuredKafka, topic: Topic, through: Callable[..., Lake]):
    lake = through(*list_mechanisms(kafka)[mechanism])
    topic.produce(make_events(20) + BAD)
    lake.ingest()
    assert_complete(lake, 20 + len(BAD))


def test_each_mechanism_is_tried(kafka: SecuredKafka):
    assert list(list_mechanisms(kafka)) == MECHANISMS


def test_the_other_commands_use_the_same_file(kafka: SecuredKafka, topic: Topic, through: Callable[..., Lake]):
    lake = through(*list_mechanisms(kafka)["scram"])
    topic.produce(make_events(20))
    lake.ingest(starting_offsets="latest")
    config = lake.configure(BackfillConfig, starting_offsets="earliest", checkpoint_path="", max_offsets_per_trigger=9)
    assert backfill(config, lake.spark).summary.counts.valid == 20
    assert status(lake.configure(StatusConfig), lake.spark) is not None


def test_a_host_name_works_as_well_as_an_address(kafka: SecuredKafka, topic: Topic, through: Callable[..., Lake]):
    lake = through(*list_mechanisms(kafka)["tls"])
    topic.produce(make_events(5))
    brokers = f"localhost:{kafka.ports['TLS']}"
    assert replace(lake, config=replace(lake.config, kafka_brokers=brokers)).ingest().counts.valid == 5
