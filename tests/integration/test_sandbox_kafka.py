"""The sandbox's broker and producer, for real: one broker on a free port for the whole module."""

import json
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from bronze.errors import BronzeError, InvalidOptionError
from sandbox.__main__ import main
from sandbox.events import generate_events
from sandbox.kafka import KafkaSandbox, ensure_sandbox
from sandbox.produce import PRODUCER_CONFIG, produce
from sandbox.topics import TopicSize, create_topic, measure_topics

LONG_AGO = datetime(2025, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSandbox]:
    with KafkaSandbox(tmp_path_factory.mktemp("sand box"), port=0) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def environment(sandbox: KafkaSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands without flags use this module's broker; if a test stopped it, it is started again for the next one."""
    sandbox.start()
    monkeypatch.setenv("SANDBOX_DATA_DIR", str(sandbox.data_dir))
    monkeypatch.setenv("SANDBOX_PORT", str(sandbox.port))


def read_topic(brokers: str, topic: str) -> list[Message]:
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "none"})
    size = measure_topics(brokers)[topic]
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(size.partitions)])
    messages = consumer.consume(size.records, timeout=20)
    consumer.close()
    return messages


def read_event_ids(brokers: str, topic: str) -> list[str]:
    return [msgspec.json.decode(message.value() or b"")["event_id"] for message in read_topic(brokers, topic)]


def test_up_twice_says_that_it_runs_already(sandbox: KafkaSandbox, capsys: pytest.CaptureFixture) -> None:
    pid = sandbox.pid
    assert main(["up"]) == 0
    assert f"already running at {sandbox.brokers} (pid {pid})" in capsys.readouterr().out


def test_status_lists_topics_with_their_records(sandbox: KafkaSandbox, capsys: pytest.CaptureFixture) -> None:
    produce(sandbox.brokers, "listed", 60, partitions=3)
    assert main(["status"]) == 0
    assert re.search(r"listed +3 partitions +60 records", capsys.readouterr().out)


def test_what_was_generated_is_what_the_topic_holds(sandbox: KafkaSandbox) -> None:
    produce(sandbox.brokers, "exact", 400, 0.2, seed=3, start_time=LONG_AGO)
    held = {(m.key(), m.value(), m.timestamp()[1]) for m in read_topic(sandbox.brokers, "exact")}
    assert held == {record[:3] for record in generate_events(400, 3, LONG_AGO, 0.2)}


def test_a_tenants_records_are_all_in_one_partition(sandbox: KafkaSandbox) -> None:
    produce(sandbox.brokers, "keyed", 300)
    places = {(message.key(), message.partition()) for message in read_topic(sandbox.brokers, "keyed")}
    assert len(places) == len({key for key, _ in places})


def test_the_summary_counts_invalid_records_by_type(sandbox: KafkaSandbox) -> None:
    summary = produce(sandbox.brokers, "summed", 100, 0.09)
    assert (summary.records, summary.valid, sum(summary.invalid.values())) == (100, 91, 9)
    assert summary.invalid["tombstone"] == 2


def test_booked_usage_comes_last_and_is_counted_by_itself(sandbox: KafkaSandbox) -> None:
    summary = produce(sandbox.brokers, "booked", 100, 0.09, booked=5)
    assert (summary.records, summary.valid, sum(summary.invalid.values()), summary.booked) == (105, 91, 9, 5)
    assert "91 valid, 9 invalid (" in str(summary)
    assert str(summary).endswith("), 5 stamped a day ahead, valid in 45 s")
    now = datetime.now(UTC).timestamp()
    ahead = [
        m.timestamp()[1] / 1000 - now for m in read_topic(sandbox.brokers, "booked") if m.timestamp()[1] > now * 1000
    ]
    assert len(ahead) == 5
    assert 0 < min(ahead) <= max(ahead) <= 45


def test_wait_ends_when_booked_records_are_valid(
    sandbox: KafkaSandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sandbox.produce.CLOCK_AHEAD", timedelta(seconds=2))
    produce(sandbox.brokers, "ahead", 10, booked=2)
    assert main(["wait", "--topic", "ahead"]) == 0
    assert "until the booked records" in capsys.readouterr().err
    assert max(message.timestamp()[1] for message in read_topic(sandbox.brokers, "ahead")) < time.time() * 1000
    assert main(["wait", "--topic", "ahead"]) == 0
    assert capsys.readouterr().err == ""
    create_topic(sandbox.brokers, "nothing", 2)
    assert main(["wait", "--topic", "nothing"]) == 0
    producer = Producer({"bootstrap.servers": sandbox.brokers})
    producer.produce("nothing", b"", timestamp=int(time.time() + 1_800) * 1_000)
    assert producer.flush(20) == 0
    assert main(["wait", "--topic", "nothing"]) == 0


def test_a_late_start_leaves_out_the_first_records_of_the_largest_partition(
    sandbox: KafkaSandbox, capsys: pytest.CaptureFixture
) -> None:
    produce(sandbox.brokers, "late", 300, partitions=3)
    sizes = Counter(message.partition() for message in read_topic(sandbox.brokers, "late"))
    ((largest, size),) = sizes.most_common(1)
    for records, left_out in ((20, 20), (100_000, size // 2)):
        assert main(["late-start", "--topic", "late", "--records", str(records)]) == 0
        offsets = {int(p): offset for p, offset in json.loads(capsys.readouterr().out)["late"].items()}
        assert offsets == {0: -2, 1: -2, 2: -2} | {largest: left_out}


@pytest.mark.parametrize("command", ["wait", "late-start"])
def test_a_topic_that_is_not_there_is_named_by_kafka(command: str, capsys: pytest.CaptureFixture) -> None:
    assert main([command, "--topic", "never"]) == 1
    assert "Unknown topic or partition" in capsys.readouterr().err


def test_producing_twice_gives_different_events(sandbox: KafkaSandbox) -> None:
    for _ in range(2):
        produce(sandbox.brokers, "twice", 150, invalid_ratio=0)
    assert len(set(read_event_ids(sandbox.brokers, "twice"))) == 300


def test_by_default_the_events_end_about_now(sandbox: KafkaSandbox) -> None:
    produce(sandbox.brokers, "recent", 200)
    latest = max(message.timestamp()[1] for message in read_topic(sandbox.brokers, "recent")) / 1000
    assert timedelta(0) < datetime.now(UTC) - datetime.fromtimestamp(latest, UTC) < timedelta(minutes=3)


def test_with_a_rate_records_arrive_as_they_are_sent(sandbox: KafkaSandbox) -> None:
    begun = datetime.now(UTC).timestamp()
    assert produce(sandbox.brokers, "paced", 40, rate=40).seconds > 0.9
    arrivals = [message.timestamp()[1] / 1000 for message in read_topic(sandbox.brokers, "paced")]
    assert begun - 0.01 < min(arrivals) < max(arrivals) < datetime.now(UTC).timestamp()


def test_ensure_sandbox_fills_a_topic_once(sandbox: KafkaSandbox) -> None:
    for _ in range(2):
        assert ensure_sandbox("ensured", count=50, partitions=2) == sandbox.brokers
    assert measure_topics(sandbox.brokers)["ensured"] == TopicSize(2, 50, 50)


def test_a_topic_takes_records_of_twelve_megabytes(sandbox: KafkaSandbox) -> None:
    create_topic(sandbox.brokers, "large", 1)
    producer = Producer({"bootstrap.servers": sandbox.brokers, "message.max.bytes": 13_000_000})
    producer.produce("large", b"x" * 12_000_000)
    assert producer.flush(20) == 0
    assert measure_topics(sandbox.brokers)["large"].records == 1


def test_creating_a_topic_that_exists_is_an_error(sandbox: KafkaSandbox) -> None:
    create_topic(sandbox.brokers, "once", 1, {"retention.ms": "1000"})
    with pytest.raises(KafkaException, match="already exists"):
        create_topic(sandbox.brokers, "once", 1)


def test_topics_survive_down_and_up(sandbox: KafkaSandbox, capsys: pytest.CaptureFixture) -> None:
    produce(sandbox.brokers, "kept", 80)
    assert [main([command]) for command in ("down", "status", "down", "up", "status")] == [0, 1, 0, 0, 0]
    assert "Kafka is stopped" in (out := capsys.readouterr().out)
    assert "Kafka is not running (data:" in out
    assert measure_topics(sandbox.brokers)["kept"].records == 80


def test_records_that_the_broker_does_not_take_are_an_error(
    sandbox: KafkaSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRODUCER_CONFIG, "message.timeout.ms", 1_000)
    create_topic(sandbox.brokers, "interrupted", 1)
    threading.Timer(0.5, sandbox.kill).start()
    with pytest.raises(BronzeError, match=r"producing to interrupted failed after .* records"):
        produce(sandbox.brokers, "interrupted", 300, rate=100)


def test_up_recovers_from_a_killed_broker(sandbox: KafkaSandbox) -> None:
    produce(sandbox.brokers, "survivor", 80)
    brokers = sandbox.brokers
    os.kill(sandbox.pid or 0, signal.SIGKILL)
    assert main(["up"]) == 0
    assert sandbox.brokers == brokers
    assert measure_topics(brokers)["survivor"].records == 80


def test_a_pid_that_went_to_another_program_is_not_the_broker(sandbox: KafkaSandbox, tmp_path: Path) -> None:
    (tmp_path / "sandbox.json").write_text(f'{{"pid": {os.getpid()}, "port": {sandbox.port}}}')
    stale = KafkaSandbox(tmp_path)
    assert stale.pid is None
    assert stale.stop() is False


def test_produce_leaves_a_broker_alone_that_is_not_the_sandboxes(tmp_path: Path, sandbox: KafkaSandbox) -> None:
    topics = measure_topics(sandbox.brokers)
    assert main(["produce", "--data-dir", str(tmp_path), "--topic", "foreign"]) == 1
    assert measure_topics(sandbox.brokers) == topics


def test_a_port_in_use_is_named(tmp_path: Path, sandbox: KafkaSandbox, capsys: pytest.CaptureFixture) -> None:
    assert main(["up", "--data-dir", str(tmp_path)]) == 2
    assert f"port {sandbox.port} of 127.0.0.1 cannot be used: Address already in use" in capsys.readouterr().err


def test_another_port_than_the_running_brokers_is_refused(sandbox: KafkaSandbox) -> None:
    with pytest.raises(InvalidOptionError, match=f"--port: expected {sandbox.port}, .*, got 1024"):
        KafkaSandbox(port=1024).start()


def test_a_broker_that_dies_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "kafka").write_text("a file where the log directory should be")
    with pytest.raises(BronzeError, match=r"(?s)the end of .*kafka\.log:\n.*kafka"):
        KafkaSandbox(tmp_path, port=0).start()


def test_produce_without_a_broker_names_the_cure(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        brokers = f"127.0.0.1:{unused.getsockname()[1]}"
        assert main(["produce", "--brokers", brokers]) == 1
    assert f"no Kafka broker answers at {brokers}; python -m sandbox up" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["produce", "--count", "-5"], "--count: expected a whole number, 0 or more, got -5"),
        (["produce", "--count", "many"], "argument --count: invalid int value: 'many'"),
        (["produce", "--invalid-ratio", "1.5"], "--invalid-ratio: expected a number from 0 to 1, got 1.5"),
        (["produce", "--partitions", "0"], "--partitions: expected a whole number"),
        (["produce", "--seed", "-1"], "--seed: expected a whole number"),
        (["produce", "--booked", "-1"], "--booked: expected a whole number, 0 or more, got -1"),
        (["produce", "--rate", "nan"], "--rate: expected records per second"),
        (
            ["produce", "--start-time", "2025-06-01T12:00:00"],
            "--start-time: expected a time with a zone",
        ),
        (
            ["produce", "--start-time", "2999-01-01T00:00Z"],
            "--start-time: expected 2000-01-03T00:00Z to",
        ),
        (["produce", "--start-time", "noon"], "argument --start-time: 'noon' is not a time such as"),
        (["up", "--port", "99999"], "--port: expected 1 to 65535, or 0 for a free port"),
        (["sideways"], "invalid choice: 'sideways'"),
    ],
)
def test_bad_values_end_with_exit_code_2_and_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr().err
    assert (code, printed.count("\n")) == (2, 1)
    assert message in printed


def test_a_bad_sandbox_port_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SANDBOX_PORT", "kafka")
    with pytest.raises(InvalidOptionError, match=r"SANDBOX_PORT\), got 'kafka'"):
        KafkaSandbox(tmp_path).start()
