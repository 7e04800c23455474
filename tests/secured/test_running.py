"""A broker that restarts, and credentials that end while a stream runs."""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from bronze.errors import ConfigError, UnknownTopicError
from bronze.kafka.client import KafkaClient
from bronze.kafka.topic import fetch_topic, request_topic
from sandbox.secured import SecuredKafka
from tests.support.audit import assert_complete
from tests.support.events import make_events
from tests.support.lake import Lake
from tests.support.secured import (
    USERS,
    Ended,
    list_mechanisms,
    log_in,
    present,
    run_ingest,
    trust,
    write_properties,
)
from tests.support.topic import Topic, read_group_offset
from tests.support.waiting import when

LIFETIME = 45  # seconds of a certificate; the stream has read its first batch before


@pytest.fixture
def stream(capsys: pytest.CaptureFixture[str], bronze_log: pytest.LogCaptureFixture) -> Callable[..., Ended]:
    """A function that streams until an error or the stop file ends it; its message has no secret and no restart."""

    def run(lake: Lake, interval: str, stop_file: str = "") -> Ended:
        config = replace(lake.config, available_now=False, trigger_interval=interval, stop_file=stop_file)
        ended = run_ingest(config, capsys)
        assert not any("restart 1 of" in line for line in bronze_log.messages)
        return ended

    return run


def assert_refused(ended: Ended, setting: str) -> None:
    assert ended.code == 1, ended.message
    assert ended.message.startswith("Kafka no longer accepts this client: ")
    assert setting in ended.message
    assert "Nothing was lost" in ended.message


def test_a_broker_that_restarts_at_the_start_is_waited_for(kafka: SecuredKafka, topic, through, capsys, bronze_log):
    lake = through(*list_mechanisms(kafka)["scram"])
    topic.produce(make_events(20))
    kafka.kill()
    starting = when(lambda: "does not answer" in bronze_log.text, kafka.start)
    assert run_ingest(replace(lake.config, startup_timeout=120), capsys).code == 0
    starting.join()
    assert_complete(lake, 20)


def test_a_broker_that_restarts_under_a_stream_is_waited_for(
    kafka: SecuredKafka, topic: Topic, through, stream, tmp_path: Path
):
    lake = through(*list_mechanisms(kafka)["mtls"])

    def restart() -> None:
        kafka.stop()
        time.sleep(3)
        kafka.start()
        topic.produce(make_events(20, first=20))

    topic.produce(make_events(20))
    restarting = when(partial(lake.has_rows, 20), restart)
    stopping = when(partial(lake.has_rows, 40), (tmp_path / "stop").touch)
    assert stream(lake, "1 second", str(tmp_path / "stop")).code == 0
    restarting.join()
    stopping.join()
    assert_complete(lake, 40)


def test_one_wrong_answer_of_a_broker_is_not_final(kafka: SecuredKafka, topic: Topic, through):
    lake = through(*list_mechanisms(kafka)["tls"])
    client = KafkaClient(lake.spark, lake.config)
    missing = KafkaClient(lake.spark, replace(lake.config, kafka_topic="no-such"))
    for answers, fails in (([missing, client], False), ([missing, missing], True)):
        left = iter(answers)
        try:
            client.call_with_retry(lambda left=left: request_topic(next(left)).get())
        except UnknownTopicError:
            assert fails
        else:
            assert not fails


def test_one_failure_to_create_the_client_is_not_final(
    kafka: SecuredKafka, topic, through, tmp_path: Path, monkeypatch
):
    late, trusted = tmp_path / "late.p12", trust(kafka.authority)
    lake = through("TLS", trusted | {"ssl.truststore.location": str(late)})
    pauses: list[float] = []

    def mount(seconds: float) -> None:
        pauses.append(seconds)
        shutil.copy(trusted["ssl.truststore.location"], late)

    monkeypatch.setattr("bronze.kafka.client.sleep", mount)
    assert fetch_topic(KafkaClient(lake.spark, lake.config)).name == topic.name
    assert len(pauses) == 1


def test_errors_that_take_turns_end_with_the_time_to_wait(kafka: SecuredKafka, topic, through):
    lake = through(*list_mechanisms(kafka)["tls"])
    client = KafkaClient(lake.spark, replace(lake.config, startup_timeout=2))
    errors = cycle(map(ConfigError, ("one", "two")))

    def fail() -> None:
        raise next(errors)

    with pytest.raises(ConfigError, match="one|two"):
        client.call_with_retry(fail)


def test_a_password_that_is_changed_under_a_stream(kafka: SecuredKafka, topic: Topic, through, stream):
    lake = through(*list_mechanisms(kafka)["scram"])
    topic.produce(make_events(20))
    changing = when(partial(lake.has_rows, 20), partial(kafka.set_password, "alice", "new-secret"))
    try:
        assert_refused(stream(lake, "1 second"), "sasl.jaas.config")
        changing.join()
        renewed = trust(kafka.authority) | log_in("SCRAM-SHA-512", password="new-secret")
        write_properties(Path(lake.config.kafka_config), renewed)
        topic.produce(make_events(20, first=20))
        lake.ingest()
        assert_complete(lake, 40)
    finally:
        kafka.set_password("alice", USERS["alice"])


def test_a_client_certificate_that_expires_under_a_stream(kafka: SecuredKafka, topic: Topic, through, stream):
    keystore = kafka.authority.issue("billing-short", lifetime=f"-1d+{LIFETIME}S")
    kafka.allow("billing-short", AclOperation.READ, "test-")
    lake = through("MTLS", trust(kafka.authority) | present(keystore))
    topic.produce(make_events(20))
    assert_refused(stream(lake, "8 seconds"), "ssl.keystore.location")
    assert lake.has_rows(20)
    shutil.copy(kafka.authority.folder / "billing.p12", keystore)
    topic.produce(make_events(20, first=20))
    lake.ingest()
    assert_complete(lake, 40)


def test_a_right_that_is_taken_away_under_a_stream(kafka: SecuredKafka, topic: Topic, through, stream):
    kafka.set_password("dora", USERS["alice"])
    kafka.allow("dora", AclOperation.READ, topic.name)
    lake = through("SASL", trust(kafka.authority) | log_in("SCRAM-SHA-512", "dora", USERS["alice"]))
    topic.produce(make_events(20))

    def take() -> None:
        kafka.forbid("dora", AclOperation.READ, topic.name)
        topic.produce(make_events(20, first=20))

    taking = when(partial(lake.has_rows, 20), take)
    assert_refused(stream(lake, "1 second"), "grant READ on the topic")
    taking.join()
    kafka.allow("dora", AclOperation.READ, topic.name)
    lake.ingest()
    assert_complete(lake, 40)


def test_the_lag_of_a_group_needs_its_right_and_a_missing_right_is_a_warning(
    kafka: SecuredKafka, topic: Topic, through, bronze_log
):
    lake = through(*list_mechanisms(kafka)["scram"])
    topic.produce(make_events(20), partition=0)
    lake.ingest(commit_group="lag")
    (warning,) = (line for line in bronze_log.messages if "consumer group lag" in line)
    assert warning.endswith("this client has no right to it; grant READ and DESCRIBE on the group lag")
    assert lake.has_rows(20)
    for operation in (AclOperation.READ, AclOperation.DESCRIBE):
        kafka.allow("alice", operation, "lag", ResourceType.GROUP)
    topic.produce(make_events(10, first=20), partition=0)
    lake.ingest(commit_group="lag")
    assert read_group_offset(topic, "lag") == 30
