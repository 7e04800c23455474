"""Wrong input ends with its exit code and one clear message, before anything is written."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from bronze.cli import main
from tests.support.commands import list_flags
from tests.support.events import make_event, make_events
from tests.support.lake import Lake, is_untouched
from tests.support.paths import ROOT
from tests.support.topic import Topic, delete_records


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


def test_offsets_beyond_the_end_are_refused_with_what_there_is(bronze, topic: Topic, lake: Lake):
    topic.produce(make_events(5), partition=1)
    code, message = bronze("--starting-offsets", f'{{"{topic.name}": {{"0": 0, "1": 6, "2": -1}}}}')
    assert code == 2
    assert "does not hold offset 6 of partition 1 (it holds 0 to 4)" in message
    assert is_untouched(lake)


def test_records_that_kafka_deleted_unread_are_named_and_can_be_given_up(bronze, topic: Topic, lake: Lake, bronze_log):
    topic.produce(make_events(10), partition=1)
    bronze()
    topic.produce(make_events(10), partition=1)
    delete_records(topic, 1, before=15)
    code, message = bronze()
    assert code == 3
    assert "deleted records before they were read: partition 1, offsets 10-14." in message
    assert bronze("--accept-data-loss")[0] == 0
    assert "data loss is accepted, Kafka no longer has partition 1, offsets 10-14" in bronze_log.messages
    assert lake.positions() == [(1, offset) for offset in [*range(10), *range(15, 20)]]


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
    assert main(["ingest", *list_flags(lake.config)]) == 0
    assert capsys.readouterr().out.strip() == "4 records in 1 batches: 3 valid, 1 invalid"


@pytest.mark.parametrize("name", ["output_path", "dlq_path", "checkpoint_path"])
def test_a_file_system_that_spark_lacks_is_named_with_its_package(bronze, lake: Lake, name: str):
    code, message = bronze(**{name: "s3a://lake/somewhere"})
    assert code == 2
    flag = f"--{name.replace('_', '-')}"
    assert message.startswith(f"{flag}: expected a path that Spark can use (no file system for scheme 's3a'; ")
    assert "submit with --packages org.apache.hadoop:hadoop-aws:3." in message
    assert is_untouched(lake)


@pytest.mark.parametrize(
    ("path", "cure"),
    [
        ("foo://x", "correct it, or add its file system to --packages"),
        ("foo://x/b", "correct it, or add its file system to --packages"),
        ("gs://lake/b", "add --packages org.apache.hadoop:hadoop-gcp:3."),
        ("abfss://lake@account.dfs.core.windows.net/b", "submit with --packages org.apache.hadoop:hadoop-azure:3."),
    ],
)
def test_an_unknown_scheme_is_a_wrong_argument(bronze, lake: Lake, path: str, cure: str):
    code, message = bronze(output_path=path)
    assert code == 2
    assert message.startswith("--output-path: expected a path that Spark can use (no file system for scheme '")
    assert cure in message
    assert is_untouched(lake)


@pytest.mark.parametrize("path", ["hdfs://no-such-host.invalid:9000/b", "hdfs:///b", "a:b"])
def test_a_path_that_hadoop_cannot_use_is_a_wrong_argument(bronze, lake: Lake, path: str):
    code, message = bronze(output_path=path)
    assert code == 2
    assert message.startswith("--output-path: expected a path that Spark can use (")
    assert len(message.splitlines()) == 1
    assert is_untouched(lake)


@pytest.mark.parametrize("name", ["output_path", "dlq_path", "checkpoint_path"])
@pytest.mark.parametrize("below", ["", "/a/b"])
def test_a_path_that_is_or_lies_below_a_file_is_refused(bronze, lake: Lake, tmp_path: Path, name: str, below: str):
    (tmp_path / "file").touch()
    code, message = bronze(**{name: f"{tmp_path}/file{below}"})
    assert code == 2
    assert message.startswith(f"--{name.replace('_', '-')}: expected a folder, or a path below folders")
    assert f"{tmp_path}/file is a file" in message
    assert is_untouched(lake)


def test_a_storage_that_does_not_answer_is_one_line_and_exit_1(bronze, lake: Lake):
    code, message = bronze(output_path="hdfs://127.0.0.1:1/b")
    assert code == 1
    assert (
        message
        == "failed: ConnectException: Connection refused; nothing was lost, run the same command again to continue"
    )
    assert is_untouched(lake)


def test_json_offsets_of_no_partition_are_refused(bronze, topic: Topic, lake: Lake):
    code, message = bronze("--starting-offsets", f'{{"{topic.name}": {{}}}}')
    assert code == 2
    assert f"must name every partition of {topic.name}; missing: 0, 1, 2" in message
    assert is_untouched(lake)


def test_the_message_of_an_unreadable_record_is_a_way_past_it_without_loss(
    bronze, make_topic: Callable[..., Topic], lake: Lake
):
    topic = make_topic(1, **{"message.timestamp.after.max.ms": str(2**63 - 1)})
    topic.produce(make_events(2))
    producer = Producer({"bootstrap.servers": topic.brokers})
    producer.produce(topic.name, make_event(), timestamp=2**63 - 1)
    assert producer.flush(30) == 0
    topic.produce(make_events(2, first=3))

    code, message = bronze(kafka_topic=topic.name)
    assert code == 1
    assert f"partition 0, offset 2 of {topic.name}" in message
    first, second = (f"{lake.config.checkpoint_path}-{number}" for number in (1, 2))
    bronze("--max-offsets-per-trigger", "1", kafka_topic=topic.name, checkpoint_path=first)
    offsets = json.dumps({topic.name: {"0": 3}})
    assert bronze("--starting-offsets", offsets, kafka_topic=topic.name, checkpoint_path=second)[0] == 0
    assert lake.positions() == [(0, 0), (0, 1), (0, 3), (0, 4)]


def test_an_interrupt_while_a_broker_is_waited_for_leaves_no_traceback(lake: Lake):
    flags = ["--kafka-brokers", "127.0.0.1:1", "--checkpoint-path", lake.config.checkpoint_path]
    command = [sys.executable, "-m", "bronze.cli", "ingest", *flags, "--output-path", lake.config.output_path]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    said = ""
    while "does not answer" not in said:
        said += process.stderr.readline()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.count("bronze: interrupted; run the same command again to continue") == 1
    assert "Traceback" not in said
