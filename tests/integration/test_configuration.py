"""Wrong input ends with its exit code and one clear message, before anything is written."""

import socket
from pathlib import Path

import pytest

from bronze.cli import main
from tests.conftest import Lake, Topic, make_events


@pytest.fixture
def bronze(lake: Lake, capsys: pytest.CaptureFixture[str]):
    """``bronze ingest`` with the lake's flags, some replaced: its exit code, and what it says on standard error."""

    def ingest(*extra: str, **changes: str) -> tuple[int, str]:
        names = ("kafka_brokers", "kafka_topic", "checkpoint_path", "output_path", "dlq_path")
        values = {name: changes.get(name, getattr(lake.config, name)) for name in names}
        flags = [word for name, value in values.items() for word in ("--" + name.replace("_", "-"), value)]
        code = main(["ingest", *flags, "--available-now", *extra])
        return code, capsys.readouterr().err.strip().rpartition("bronze: ")[2]

    return ingest


def is_untouched(lake: Lake) -> bool:
    paths = (lake.config.output_path, lake.config.dlq_path, lake.config.checkpoint_path)
    return not any(Path(path).exists() for path in paths)


def test_an_unknown_topic_is_named(bronze, lake: Lake):
    code, message = bronze(kafka_topic="api-usage-event")
    assert code == 2
    assert "has no topic 'api-usage-event'" in message
    assert is_untouched(lake)


def test_a_broker_s_name_that_cannot_be_resolved_is_a_wrong_argument(bronze, lake: Lake):
    code, message = bronze(kafka_brokers="no-such-host.invalid:9092")
    assert code == 2
    assert "cannot read from Kafka at no-such-host.invalid:9092" in message
    assert is_untouched(lake)


def test_a_broker_that_does_not_answer_is_waited_for_and_then_given_up(bronze, lake: Lake):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        code, message = bronze("--startup-timeout", "2", kafka_brokers=f"127.0.0.1:{port}")
    assert code == 1
    assert "did not answer within 2 s (--startup-timeout)" in message
    assert is_untouched(lake)


def test_partitions_missing_in_json_offsets_are_listed(bronze, topic: Topic, lake: Lake):
    code, message = bronze("--starting-offsets", f'{{"{topic.name}": {{"1": 0}}}}')
    assert code == 2
    assert f"must name every partition of {topic.name}; missing: 0, 2" in message
    assert is_untouched(lake)


def test_partitions_that_do_not_exist_are_listed(bronze, topic: Topic, lake: Lake):
    code, message = bronze("--starting-offsets", f'{{"{topic.name}": {{"0": 0, "1": 0, "2": 0, "7": 0}}}}')
    assert code == 2
    assert f"names partitions that {topic.name} does not have: 7" in message
    assert is_untouched(lake)


def test_an_interval_that_spark_cannot_read_is_refused(bronze, lake: Lake):
    code, message = bronze("--trigger-interval", "every minute")
    assert code == 2
    assert "--trigger-interval: expected an interval such as '30 seconds' or '1 minute', got 'every minute'" in message
    assert is_untouched(lake)


@pytest.mark.parametrize("interval", ["-5 seconds", "0 hours -1 minutes"])
def test_a_negative_interval_is_refused(bronze, lake: Lake, interval: str):
    code, message = bronze(f"--trigger-interval={interval}")
    assert code == 2
    assert "--trigger-interval" in message
    assert is_untouched(lake)


def test_starting_offsets_beside_a_checkpoint_are_warned_of(bronze, topic: Topic, lake: Lake, bronze_log):
    topic.produce(make_events(3))
    bronze()
    code, _ = bronze("--starting-offsets", "earliest")
    assert code == 0
    assert any("--starting-offsets earliest is ignored" in message for message in bronze_log.messages)
    assert lake.bronze.count() == 3


def test_client_properties_reach_kafka_and_their_secrets_no_log(
    bronze, topic: Topic, tmp_path: Path, bronze_log: pytest.LogCaptureFixture
):
    topic.produce(make_events(3))
    properties = tmp_path / "kafka.properties"
    properties.write_text("client.id=billing\nfetch.max.bytes=1000000\nsasl.jaas.config=password-of-billing\n")
    assert bronze("--kafka-config", str(properties))[0] == 0
    said = "".join(bronze_log.messages)
    assert "password-of-billing" not in said


def test_the_plan_of_the_stream_shows_no_secret(topic: Topic, lake: Lake):
    options = {"kafka.bootstrap.servers": topic.brokers, "subscribe": topic.name, "kafka.sasl.jaas.config": "secret-42"}
    records = lake.spark.readStream.format("kafka").options(**options).load()
    plan = records._jdf.queryExecution().toString()
    assert topic.name in plan
    assert "secret-42" not in plan


def test_client_properties_that_kafka_refuses_are_a_wrong_argument(bronze, lake: Lake, tmp_path: Path):
    properties = tmp_path / "kafka.properties"
    properties.write_text("security.protocol=CARRIER_PIGEON\n")
    code, message = bronze("--kafka-config", str(properties))
    assert code == 2
    assert "security.protocol" in message
    assert is_untouched(lake)


def test_options_that_spark_sets_itself_are_refused_in_the_properties_file(bronze, lake: Lake, tmp_path: Path):
    properties = tmp_path / "kafka.properties"
    properties.write_text("auto.offset.reset=latest\n")
    code, message = bronze("--kafka-config", str(properties))
    assert code == 2
    assert "auto.offset.reset" in message
    assert is_untouched(lake)


def test_what_the_cli_says_at_its_end(bronze, topic: Topic, capsys: pytest.CaptureFixture[str], lake: Lake):
    topic.produce(make_events(3) + [b"{"])
    names = ("kafka_brokers", "kafka_topic", "checkpoint_path", "output_path", "dlq_path")
    flags = [word for name in names for word in ("--" + name.replace("_", "-"), getattr(lake.config, name))]
    assert main(["ingest", *flags, "--available-now"]) == 0
    assert capsys.readouterr().out.strip() == "4 records in 1 batches: 3 valid, 1 invalid"
