"""Kafka's answers about a topic."""

import pytest

from bronze.config import IngestConfig
from bronze.errors import ConfigError
from bronze.kafka.topic import Topic, check_starting_offsets, read_topic_id

PATHS = {"kafka_brokers": "a:1", "checkpoint_path": "/lake/checkpoint", "output_path": "/lake/bronze"}
CONFIG = IngestConfig(kafka_topic="events", **PATHS)
TOPIC = Topic("events", "mQ4ZcNqPTxKzZtqVJ9bLdA", (0, 1))
HELD = {0: (0, 9), 1: (4, 9)}


def test_a_topic_s_id_is_kept(bronze_log: pytest.LogCaptureFixture):
    assert read_topic_id(TOPIC.topic_id, CONFIG) == TOPIC.topic_id
    assert bronze_log.messages == []


def test_a_broker_without_topic_ids_is_warned_of(bronze_log: pytest.LogCaptureFixture):
    assert read_topic_id("AAAAAAAAAAAAAAAAAAAAAA", CONFIG) == ""
    assert bronze_log.messages[0].startswith("Kafka at a:1 has no topic ids, so this run cannot notice if events")


def test_json_offsets_of_no_partition_miss_all_of_them():
    config = IngestConfig(kafka_topic="events", starting_offsets='{"events": {}}', **PATHS)
    with pytest.raises(ConfigError, match="must name every partition of events; missing: 0, 1"):
        check_starting_offsets(config, TOPIC, HELD)


@pytest.mark.parametrize("word", ["", "earliest", "latest"])
def test_a_word_names_no_partition_and_misses_none(word: str):
    check_starting_offsets(IngestConfig(kafka_topic="events", starting_offsets=word, **PATHS), TOPIC, HELD)
