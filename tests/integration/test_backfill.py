"""A backfill adds the missing records of a range once, even if others commit first, and says what it cannot add."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from deltalake import DeltaTable, Transaction

from bronze.cli import main
from bronze.delta import own_table
from bronze.delta.create import create_table
from bronze.delta.lookup import Lookup
from bronze.delta.own_table import OwnTable
from bronze.errors import ConfigError, DataLossError
from bronze.ops import backfill
from bronze.schema import get_bronze_spec
from tests.support.audit import audit
from tests.support.backfill import configure_backfill as configure
from tests.support.backfill import fill, let_commit_first
from tests.support.backfill import run_backfill as run
from tests.support.commands import list_fields, list_flags
from tests.support.events import BAD, make_events
from tests.support.lake import Lake, with_both
from tests.support.paths import ROOT
from tests.support.topic import Topic, delete_records, produce_transaction
from tests.support.waiting import run_twice_at_once


def is_each_once(lake: Lake, count: int) -> bool:
    return len(lake.positions()) == len(set(lake.positions())) == count


@with_both
def test_a_range_of_offsets_is_added_and_again_adds_nothing(topic: Topic, any_lake: Lake):
    fill(topic)
    topic.produce(BAD, partition=1)
    wanted = {"starting_offsets": {"0": 2, "1": 8, "2": -2}, "ending_offsets": {"0": 5, "1": -1, "2": 1}}
    result = run(any_lake, **wanted)
    assert any_lake.positions() == [(0, 2), (0, 3), (0, 4)] + [(1, n) for n in range(8, 18)] + [(2, 0)]
    assert (result.plan.planned, result.summary.counts.valid, result.summary.counts.invalid) == (14, 6, 8)
    again = run(any_lake, **wanted)
    assert (again.plan.planned, again.plan.present, again.summary.batch_count) == (0, 14, 0)


def test_only_the_holes_of_the_tables_are_added_in_bounded_batches(topic: Topic, lake: Lake, bronze_log):
    fill(topic, 20)
    run(lake, starting_offsets={"0": 3, "1": 10}, ending_offsets={"0": 6, "1": 11})
    result = run(lake, max_offsets_per_trigger=8)
    assert (result.plan.present, result.plan.planned, result.summary.counts.valid) == (4, 56, 56)
    assert max(batch.counts.total for batch in result.summary.batches) <= 8
    lines = list_fields(bronze_log, "backfill")[-len(result.plan.batches) :]
    assert [line["offsets"] for line in lines] == result.plan.batches
    assert sum(line["counts"]["valid"] for line in lines) == 56
    assert is_each_once(lake, 60)
    assert audit(lake, checkpoint_path="").is_complete


def test_the_plan_changes_nothing_and_says_what_is_where(topic: Topic, lake: Lake, capsys, bronze_log):
    fill(topic)
    lake.ingest()
    topic.produce(make_events(5), partition=2)
    delete_records(topic, 1, before=4)
    versions = DeltaTable(lake.config.output_path).version()
    flags = list_flags(configure(lake))
    assert main(["backfill", *flags, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[3].split() == ["2", "0", "15", "15", "10", "0", "0", "5", "0", "15"]
    assert f"31 offsets of {topic.name} are requested: 26 in the tables already, 0 lost in Kafka, 5 to do" in printed
    assert DeltaTable(lake.config.output_path).version() == versions


def test_a_dry_run_makes_no_tables(topic: Topic, lake: Lake):
    fill(topic)
    assert run(lake, dry_run=True).plan.planned == 30
    assert not Path(lake.config.output_path).exists()


def test_what_kafka_lost_and_the_tables_lack_is_refused_and_can_be_given_up(topic: Topic, lake: Lake):
    fill(topic)
    delete_records(topic, 1, before=4)
    wanted = {"starting_offsets": {"1": 2}, "ending_offsets": {"1": 12}}
    with pytest.raises(
        ConfigError, match="whole range .*partition 1 holds 4 to 9, offsets 2-3 are deleted and it ends before"
    ):
        run(lake, **wanted)
    assert not Path(lake.config.output_path).exists()
    plan = run(lake, **wanted, dry_run=True).plan
    assert (plan.lost.count, plan.planned, len(plan.outside)) == (2, 6, 1)
    assert run(lake, **wanted, allow_partial=True).summary.counts.valid == 6
    assert lake.positions() == [(1, n) for n in range(4, 10)]


def test_what_kafka_lost_but_the_tables_have_is_no_matter(topic: Topic, lake: Lake):
    fill(topic)
    run(lake, starting_offsets={"1": 0}, ending_offsets={"1": 6})
    delete_records(topic, 1, before=4)
    assert run(lake, starting_offsets={"1": 0}).summary.counts.valid == 4


def test_partitions_that_are_not_named_are_left_out_and_said_to_be(topic: Topic, lake: Lake, bronze_log):
    fill(topic)
    run(lake, starting_offsets={"2": 7})
    assert lake.positions() == [(2, 7), (2, 8), (2, 9)]
    assert "Backfill: partitions that are not named are skipped: 0, 1" in bronze_log.messages


def test_a_partition_that_does_not_exist_is_refused(topic: Topic, lake: Lake):
    with pytest.raises(ConfigError, match="--ending-offsets names partitions that .* does not have: 7"):
        run(lake, ending_offsets={"7": 5})


def produce_at(topic: Topic, partition: int, *seconds: int) -> None:
    """Records of these seconds of 2026-01-01T00:00Z."""
    producer = Producer({"bootstrap.servers": topic.brokers})
    start = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    for number, second in enumerate(seconds):
        producer.produce(topic.name, make_events(1, number)[0], partition=partition, timestamp=(start + second) * 1000)
    assert producer.flush(30) == 0


def at(second: int, zone: str = "Z", hour: int = 0) -> str:
    return f"2026-01-01T{hour:02}:00:{second:02}{zone}"


def test_a_range_of_time_is_found_by_kafka_in_each_partition(topic: Topic, lake: Lake):
    produce_at(topic, 0, 10, 20, 30, 40)
    produce_at(topic, 1, 5, 6, 20)
    produce_at(topic, 2, 50)
    run(lake, start_timestamp=at(20), end_timestamp=at(40, "+02:00", hour=2))
    assert lake.positions() == [(0, 1), (0, 2), (1, 2)]
    run(lake, start_timestamp=at(30))
    assert lake.positions() == [(0, 1), (0, 2), (0, 3), (1, 2), (2, 0)]


@pytest.mark.parametrize("times", [{"start_timestamp": at(11)}, {"end_timestamp": at(10)}])
def test_a_time_of_which_kafka_has_nothing_is_refused_with_the_times_that_it_has(topic: Topic, lake: Lake, times):
    produce_at(topic, 1, 10)
    with pytest.raises(
        ConfigError, match="whole range .*its records are from 2026-01-01T00:00:10.000Z to 2026-01-01T00:00:10.000Z"
    ):
        run(lake, **times)
    assert run(lake, **times, allow_partial=True).plan.planned == 0


def test_a_time_before_what_kafka_holds_is_refused_unless_the_tables_have_it(topic: Topic, lake: Lake):
    produce_at(topic, 0, 10, 20, 30)
    delete_records(topic, 0, before=1)
    with pytest.raises(
        ConfigError, match="whole range .*partition 0 holds 1 to 2, from 2026-01-01T00:00:20.000Z on, and records"
    ):
        run(lake, start_timestamp=at(15))
    assert run(lake, start_timestamp=at(20)).summary.counts.total == 2
    delete_records(topic, 0, before=2)
    assert run(lake, start_timestamp=at(15)).plan.planned == 0


def test_it_ends_where_the_live_query_has_planned_to(topic: Topic, lake: Lake):
    fill(topic)
    lake.ingest(starting_offsets=json.dumps({topic.name: {"0": 6, "1": -1, "2": -2}}))
    fill(topic)
    result = run(lake, checkpoint_path=lake.config.checkpoint_path)
    assert (result.summary.counts.valid, result.plan.notes) == (
        16,
        ["30 offsets that the stream has not planned yet are left to the stream"],
    )
    assert lake.ingest().counts.valid == 30
    assert is_each_once(lake, 60)


def test_a_checkpoint_without_a_batch_or_of_other_tables_is_refused(topic: Topic, lake: Lake, tmp_path):
    fill(topic)
    with pytest.raises(ConfigError, match="no query has planned a batch at"):
        run(lake, checkpoint_path=lake.config.checkpoint_path)
    lake.ingest(output_path=str(tmp_path / "other"), dlq_path="")
    with pytest.raises(ConfigError, match="not into the table at"):
        run(lake, checkpoint_path=lake.config.checkpoint_path)


def test_offsets_without_a_record_are_counted_as_such(topic: Topic, lake: Lake):
    produce_transaction(topic, make_events(4), 0, commit=True)
    produce_transaction(topic, make_events(3), 0, commit=False)
    result = run(lake)
    assert (result.plan.planned, result.summary.counts.valid, result.without_record) == (9, 4, 5)
    assert "5 offsets have no record in Kafka" in result.describe()
    assert run(lake).summary.counts.valid == 0


def test_what_the_command_prints_at_its_end(topic: Topic, lake: Lake, capsys, bronze_log):
    fill(topic)
    flags = list_flags(configure(lake))
    assert main(["backfill", *flags, "--max-offsets-per-trigger", "15"]) == 0
    assert capsys.readouterr().out.startswith("30 records appended (30 valid, 0 invalid) in ")
    assert any(m.startswith("Backfill: batch 2 of 2, 30 of 30 offsets done, 30 ") for m in bronze_log.messages)


def test_client_properties_that_spark_sets_itself_are_refused_before_tables_are_made(lake: Lake, tmp_path):
    (tmp_path / "kafka.properties").write_text("auto.offset.reset=latest\n")
    with pytest.raises(ConfigError, match="^cannot read from Kafka at .*auto.offset.reset"):
        run(lake, kafka_config=str(tmp_path / "kafka.properties"))
    assert not Path(lake.config.output_path).exists()


def test_records_that_kafka_deletes_after_the_plan_end_it_with_exit_code_3(topic: Topic, lake: Lake, monkeypatch):
    fill(topic)
    original = backfill.read_records

    def delete_first(client, bounds, *arguments, **options):
        if bounds[1] != (0, 0):
            delete_records(topic, 1, before=4)
        return original(client, bounds, *arguments, **options)

    monkeypatch.setattr(backfill, "read_records", delete_first)
    with pytest.raises(DataLossError, match="^Kafka has deleted records of the range .*--allow-partial") as caught:
        run(lake)
    assert caught.value.exit_code == 3
    assert run(lake, allow_partial=True).summary.counts.valid == 26


def drop_commit_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blind appends, as Delta makes them by default: they do not conflict with one another."""
    monkeypatch.setattr(OwnTable, "check_unchanged", lambda table: None)
    monkeypatch.setattr(own_table, "Transaction", lambda app_id, n: Transaction(f"{app_id}-{uuid4()}", n))


@pytest.mark.parametrize(("first", "has_rule"), [("stream", True), ("backfill", True), ("stream", False)])
def test_who_commits_second_adds_nothing_twice_by_the_commit_rule_alone(
    topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch, has_rule: bool, first: str
):
    """Both have written the same records before the first one commits; either one may be the first."""
    fill(topic)
    topic.produce([b"{", None], partition=0)
    lake.ingest(starting_offsets="latest")
    other = replace(lake, config=replace(lake.config, checkpoint_path=lake.config.checkpoint_path + "-2"))
    if not has_rule:
        drop_commit_rule(monkeypatch)
    both = {"stream": lambda: other.ingest(starting_offsets="earliest"), "backfill": lambda: run(lake)}
    let_commit_first(monkeypatch, both.pop(first))
    (second,) = both.values()
    result = second()
    assert len(lake.positions()) == (32 if has_rule else 64)
    assert is_each_once(lake, 32) == has_rule
    if has_rule and first == "stream":
        assert (result.added_by_others, result.summary.counts.valid, result.without_record) == (32, 0, 0)


@pytest.mark.parametrize("first", ["stream", "backfill"])
def test_what_the_winner_of_a_race_appended_is_left_out_of_all_later_batches_too(
    topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch, first: str
):
    """The winner appends all records when the other one is about to commit the first of many batches."""
    fill(topic)
    lake.ingest(starting_offsets="latest")
    other = replace(lake, config=replace(lake.config, checkpoint_path=lake.config.checkpoint_path + "-2"))
    all_at_once = {"stream": lambda: other.ingest(starting_offsets="earliest"), "backfill": lambda: run(lake)}
    batches = {
        "stream": lambda: run(lake, max_offsets_per_trigger=9),
        "backfill": lambda: other.ingest(starting_offsets="earliest", max_offsets_per_trigger=9),
    }
    let_commit_first(monkeypatch, all_at_once[first])
    batches[first]()
    assert is_each_once(lake, 30)


def test_of_two_that_create_the_same_table_at_once_neither_fails(topic: Topic, lake: Lake):
    create = partial(create_table, lake.spark, lake.config.output_path, get_bronze_spec())
    assert run_twice_at_once(create) == []
    assert lake.bronze.count() == 0


def test_what_was_committed_since_is_found_without_another_query(topic: Topic, lake: Lake, monkeypatch):
    fill(topic)
    lake.ingest(dlq_path="")
    lookup, everything = Lookup(lake.spark, [lake.config.output_path], topic.name), dict.fromkeys(range(3), (0, 99))
    assert lookup.find_ingested(everything) == {0: [(0, 9)], 1: [(0, 9)], 2: [(0, 9)]}
    topic.produce(make_events(5), partition=1)
    lake.ingest(dlq_path="")
    lake.spark.sql(f"OPTIMIZE delta.`{lake.config.output_path}`").collect()
    with monkeypatch.context() as without:
        without.setattr("bronze.delta.lookup.find_ingested", None)
        assert lookup.find_ingested({0: (8, 99), 1: (8, 99)}) == {0: [(8, 9)], 1: [(8, 14)]}
    lake.spark.sql(f"DELETE FROM delta.`{lake.config.output_path}` WHERE _kafka_offset = 14").collect()
    assert lookup.find_ingested(everything)[1] == [(0, 13)]


def test_an_interrupt_ends_it_at_once_and_the_next_run_adds_the_rest(topic: Topic, lake: Lake):
    fill(topic, 400)
    flags = list_flags(configure(lake))
    command = [sys.executable, "-m", "bronze.cli", "backfill", *flags]
    command += ["--max-offsets-per-trigger", "30"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "batch 3 of" in line:
                break
        process.send_signal(signal.SIGINT)
        printed, log = process.communicate(timeout=60)
    assert process.returncode == 130, log
    assert "offsets are left; run the same command again" in printed
    assert "Traceback" not in log
    done = len(lake.positions())
    assert 90 <= done < 1_200
    assert run(lake).summary.counts.valid == 1_200 - done
    assert is_each_once(lake, 1_200)


def test_an_interrupt_ends_a_wait_that_is_no_spark_job(topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch):
    """Such as for a broker that does not answer; the session stays usable."""

    def wait(_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    fill(topic)
    started = time.monotonic()
    with monkeypatch.context() as silent:
        silent.setattr("bronze.kafka.watch.TopicWatch.check_topic", wait)
        result = run(lake)
    assert (result.is_interrupted, result.done_offsets, time.monotonic() - started < 50) == (True, 0, True)
    assert run(lake).summary.counts.valid == 30
