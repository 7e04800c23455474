"""One DLQ per bronze table and topic, identified by its table id: a different one is refused, or chosen permanently."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bronze import audit as run_audit
from bronze import backfill, replay
from bronze.config import AuditConfig, BackfillConfig, CreateTablesConfig, ReplayConfig
from bronze.delta.ddl import create_table_statement
from bronze.delta.own_table import OwnTable
from bronze.errors import BronzeError, ConfigError
from bronze.ops.create_tables import create_tables
from bronze.schema import get_bronze_spec, get_dlq_spec
from tests.support.audit import assert_complete
from tests.support.events import BAD, make_event, make_events
from tests.support.lake import Lake, change_path
from tests.support.topic import Topic


def run_backfill(lake: Lake, **changes):
    changes = {"starting_offsets": "earliest", "max_offsets_per_trigger": 100, "checkpoint_path": ""} | changes
    return backfill(lake.configure(BackfillConfig, **changes), lake.spark)


COMMANDS: dict[str, Callable[[Lake], object]] = {
    "ingest": lambda lake: lake.ingest(),
    "backfill": run_backfill,
    "replay": lambda lake: replay(lake.configure(ReplayConfig), lake.spark),
    "audit": lambda lake: run_audit(lake.configure(AuditConfig, checkpoint_path=""), lake.spark),
}


@pytest.fixture
def filled(topic: Topic, lake: Lake) -> Lake:
    """A lake with valid and invalid records of one ingestion."""
    topic.produce(make_events(5) + BAD)
    lake.ingest()
    return lake


def count_commits(lake: Lake) -> list[int]:
    paths = (lake.config.output_path, lake.config.dlq_path)
    return [len(list(Path(path, "_delta_log").glob("*.json"))) for path in paths]


@pytest.mark.parametrize(
    ("command", "dlq"),
    [("ingest", "another"), ("ingest", "none"), ("backfill", "another"), ("backfill", "none"), ("replay", "another")],
)
def test_another_dlq_or_none_is_refused_before_anything_is_written(
    filled: Lake, tmp_path: Path, command: str, dlq: str
):
    other = replace(filled, config=replace(filled.config, dlq_path=str(tmp_path / "dlq2") if dlq == "another" else ""))
    if command == "replay":
        filled.spark.sql(create_table_statement(get_dlq_spec(), other.config.dlq_path))
    before = count_commits(filled)
    with pytest.raises(ConfigError, match="and this run has .*--change-dlq") as refused:
        COMMANDS[command](other)
    assert refused.value.exit_code == 2
    assert f"Give --dlq-path file:{filled.config.dlq_path}" in str(refused.value)
    assert count_commits(filled) == before
    assert command == "replay" or not (tmp_path / "dlq2").exists()


def test_the_first_dlq_is_no_change(topic: Topic, lake: Lake):
    topic.produce(make_events(3) + [b"{"])
    lake.ingest(dlq_path="")
    topic.produce([b"{"])
    lake.ingest()
    assert (lake.bronze.count(), lake.dlq.count()) == (4, 1)
    assert_complete(lake, 5)


def test_what_the_dlq_before_holds_counts_after_a_change(filled: Lake, topic: Topic, tmp_path: Path):
    other = change_path(filled, "dlq_path", tmp_path / "dlq2")
    topic.produce(BAD)
    other.ingest(change_dlq=True)
    shutil.rmtree(other.config.checkpoint_path)
    assert other.ingest().counts.present == 5 + 2 * len(BAD)
    assert (filled.dlq.count(), other.dlq.count()) == (len(BAD), len(BAD))
    assert_complete(other, 5 + 2 * len(BAD))
    with pytest.raises(ConfigError, match="and this run has"):
        filled.ingest()


def test_a_dlq_that_is_no_longer_the_bound_one_can_be_replayed(topic: Topic, lake: Lake, tmp_path: Path):
    topic.produce(make_events(2) + [b"{"])
    lake.ingest()
    lake.ingest(dlq_path=str(tmp_path / "dlq2"), change_dlq=True)
    assert COMMANDS["replay"](lake).counts["open"] == 1


def test_a_running_writer_notices_a_change_before_its_next_commit(
    topic: Topic, filled: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The change happens between the two commits: the invalid records of the batch are once, in the previous DLQ."""
    topic.produce(make_events(3) + [b"{"])
    other = change_path(filled, "dlq_path", tmp_path / "dlq2")
    original, done = OwnTable.commit, []

    def commit(table: OwnTable, rows, note):
        if rows is not None and table.path.endswith(filled.config.output_path) and not done:
            done.append(True)
            run_backfill(other, change_dlq=True)
        original(table, rows, note)

    with monkeypatch.context() as patch:
        patch.setattr(OwnTable, "commit", commit)
        with pytest.raises(ConfigError, match="now names the DLQ file:.*dlq2,") as refused:
            filled.ingest()
    assert refused.value.exit_code == 2
    other.ingest()
    assert_complete(other, 5 + len(BAD) + 4)


def test_a_link_to_the_dlq_is_the_dlq(filled: Lake, tmp_path: Path, topic: Topic):
    (tmp_path / "link").symlink_to(tmp_path)
    linked = filled
    for name in ("output_path", "dlq_path", "checkpoint_path"):
        linked = change_path(linked, name, tmp_path / "link" / Path(getattr(filled.config, name)).name)
    assert_complete(linked, 5 + len(BAD))
    topic.produce(BAD)
    linked.ingest()
    for lake in (linked, filled, replace(filled, config=replace(filled.config, dlq_path=f"file:{tmp_path}/dlq"))):
        assert_complete(lake, 5 + 2 * len(BAD))


def test_a_lake_that_was_moved_is_the_same(filled: Lake, tmp_path: Path, topic: Topic):
    """The earlier DLQ is found too, next to the other tables."""
    filled.ingest(dlq_path=str(tmp_path / "dlq2"), change_dlq=True)
    moved = filled
    for name, folder in (("output_path", "bronze"), ("dlq_path", "dlq2"), ("checkpoint_path", "checkpoint")):
        moved = change_path(moved, name, tmp_path / "moved" / folder)
    (tmp_path / "moved").mkdir()
    for name in ("bronze", "dlq", "dlq2", "checkpoint"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    topic.produce(BAD)
    moved.ingest()
    assert_complete(moved, 5 + 2 * len(BAD))


def test_a_copy_of_the_lake_is_a_lake_with_the_configured_tables(filled: Lake, tmp_path: Path, topic: Topic):
    copy = filled
    for name in ("output_path", "dlq_path", "checkpoint_path"):
        folder = Path(getattr(filled.config, name))
        shutil.copytree(folder, tmp_path / "copy" / folder.name)
        copy = change_path(copy, name, tmp_path / "copy" / folder.name)
    topic.produce(BAD)
    copy.ingest()
    assert_complete(copy, 5 + 2 * len(BAD))
    assert filled.dlq.count() == len(BAD)


def test_a_copy_of_the_dlq_alone_is_refused_while_the_original_is_there(filled: Lake, tmp_path: Path):
    shutil.copytree(filled.config.dlq_path, tmp_path / "copy")
    copied = change_path(filled, "dlq_path", tmp_path / "copy")
    with pytest.raises(ConfigError, match=f"and this run has .*Give --dlq-path file:{filled.config.dlq_path}"):
        copied.ingest()
    shutil.rmtree(filled.config.dlq_path)
    copied.ingest()
    assert_complete(copied, 5 + len(BAD))


MAKERS: dict[str, Callable[[Lake], object]] = {
    **{name: COMMANDS[name] for name in ("ingest", "backfill")},
    "create-tables": lambda lake: create_tables(lake.configure(CreateTablesConfig, execute=True), lake.spark),
}


@pytest.mark.parametrize("command", MAKERS)
def test_no_command_creates_again_a_dlq_that_is_gone(filled: Lake, command: str):
    shutil.rmtree(filled.config.dlq_path)
    with pytest.raises(ConfigError, match="is missing, and the invalid records .*Restore it; or use --change-dlq"):
        MAKERS[command](filled)
    assert not Path(filled.config.dlq_path).exists()


def test_a_stream_of_another_topic_does_not_create_it_again_either(filled: Lake, make_topic):
    shutil.rmtree(filled.config.dlq_path)
    with pytest.raises(ConfigError, match="is missing, and the invalid records"):
        filled.ingest(kafka_topic=make_topic().name, checkpoint_path=f"{filled.config.checkpoint_path}-2")


def test_a_dlq_made_again_by_hand_is_another(filled: Lake):
    shutil.rmtree(filled.config.dlq_path)
    filled.spark.sql(create_table_statement(get_dlq_spec(), filled.config.dlq_path))
    with pytest.raises(ConfigError, match="is missing, and the invalid records"):
        filled.ingest()


def test_the_way_back_from_a_dlq_that_is_gone_reads_its_records_again(filled: Lake, tmp_path: Path):
    shutil.rmtree(filled.config.dlq_path)
    assert not run_audit(filled.configure(AuditConfig), filled.spark).is_complete
    back = change_path(filled, "checkpoint_path", tmp_path / "c2")
    back.ingest(change_dlq=True)
    assert back.dlq.count() == len(BAD)
    assert_complete(back, 5 + len(BAD))


def test_two_topics_have_dlqs_of_their_own_on_one_bronze(filled: Lake, make_topic, tmp_path: Path):
    other_topic = make_topic()
    other_topic.produce(make_events(2) + BAD)
    config = replace(filled.config, kafka_topic=other_topic.name, checkpoint_path=str(tmp_path / "c2"))
    other = replace(filled, config=replace(config, dlq_path=str(tmp_path / "dlq2")))
    other.ingest()
    filled.ingest()
    assert_complete(other, 2 + len(BAD))
    assert_complete(filled, 5 + len(BAD))


def test_one_dlq_serves_two_bronze_tables_of_two_topics_but_not_of_one(filled: Lake, make_topic, tmp_path: Path):
    other_topic = make_topic()
    other_topic.produce(make_events(2) + BAD)
    other = change_path(change_path(filled, "output_path", tmp_path / "bronze2"), "checkpoint_path", tmp_path / "c2")
    with pytest.raises(ConfigError, match="for another bronze table"):
        other.ingest()
    assert not (tmp_path / "bronze2").exists()
    other = replace(other, config=replace(other.config, kafka_topic=other_topic.name))
    other.ingest()
    assert_complete(other, 2 + len(BAD))
    assert_complete(filled, 5 + len(BAD))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bronze_without_a_dlq_does_not_get_the_dlq_of_another_one(filled: Lake, tmp_path: Path, command: str):
    """A replay would append the records of one table, perhaps of an earlier topic of the same name, to another one."""
    other = change_path(change_path(filled, "output_path", tmp_path / "bronze2"), "checkpoint_path", tmp_path / "c2")
    other.ingest(dlq_path="")
    before = count_commits(other)
    with pytest.raises(ConfigError, match="keeps the invalid records of .* for another bronze table, .*/bronze;"):
        COMMANDS[command](other)
    assert count_commits(other) == before
    assert_complete(filled, 5 + len(BAD))


@pytest.mark.parametrize("name", ["output_path", "dlq_path"])
def test_a_restore_does_not_take_the_binding_back(filled: Lake, tmp_path: Path, name: str):
    """RESTORE to the version before the binding."""
    filled.spark.sql(f"RESTORE TABLE delta.`{getattr(filled.config, name)}` TO VERSION AS OF 0")
    with pytest.raises(ConfigError, match="and this run has"):
        run_backfill(filled, dlq_path=str(tmp_path / "dlq2"))
    run_backfill(filled)
    assert_complete(filled, 5 + len(BAD))


def test_a_bronze_from_a_backup_that_does_not_know_its_dlq_is_refused(topic: Topic, lake: Lake, tmp_path: Path):
    topic.produce(make_events(3))
    lake.ingest(dlq_path="")
    shutil.copytree(lake.config.output_path, tmp_path / "backup")
    topic.produce(BAD)
    lake.ingest()
    shutil.rmtree(lake.config.output_path)
    shutil.copytree(tmp_path / "backup", lake.config.output_path)
    with pytest.raises(ConfigError, match="and this run has"):
        lake.ingest(dlq_path=str(tmp_path / "dlq2"))


def downgrade(lake: Lake, **properties: str) -> None:
    """The tables as an older version of this product left them: without notes, with its table properties."""
    for path in (lake.config.output_path, *filter(None, [lake.config.dlq_path])):
        for file in Path(path, "_delta_log").glob("*.json"):
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            for line in lines:
                line.get("commitInfo", {}).pop("userMetadata", None)
            file.write_text("\n".join(map(json.dumps, lines)))
            file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
    listed = ", ".join(f"'bronze.{name}' = '{value}'" for name, value in properties.items())
    lake.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    lake.spark.sql(f"ALTER TABLE delta.`{lake.config.output_path}` SET TBLPROPERTIES ({listed})")


def test_a_table_of_an_older_version_goes_on_with_its_dlq(filled: Lake, topic: Topic, tmp_path: Path):
    downgrade(filled, dlqPaths=json.dumps([f"file:{filled.config.dlq_path}"]))
    topic.produce([*make_events(3), b"{"])
    with pytest.raises(ConfigError, match="and this run has"):
        filled.ingest(dlq_path=str(tmp_path / "dlq2"))
    filled.ingest()
    assert_complete(filled, 5 + len(BAD) + 4)


def test_a_table_of_an_older_version_with_several_dlqs_is_refused_until_one_is_chosen(
    filled: Lake, topic: Topic, tmp_path: Path
):
    second = change_path(filled, "dlq_path", tmp_path / "dlq2")
    topic.produce(BAD)
    second.ingest(change_dlq=True)
    for lake in (filled, second):
        downgrade(lake, dlqPaths=json.dumps([f"file:{lake.config.dlq_path}" for lake in (filled, second)]))
    for lake in (filled, second):
        with pytest.raises(ConfigError, match=r"dlq or file:.*dlq2, and this run has"):
            lake.ingest()
    second.ingest(change_dlq=True)
    assert_complete(second, 5 + 2 * len(BAD))


@pytest.mark.parametrize("dlq", ["another", "none"])
def test_two_writers_with_different_dlqs_write_an_invalid_record_once(
    topic: Topic, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dlq: str
):
    """The backfill starts while the stream is between its two commits, and is refused."""
    lake.ingest()
    topic.produce([make_event(1), b"broken", make_event(2)], 0)
    dlq_path, original, refused = str(tmp_path / "dlq2") if dlq == "another" else "", OwnTable.commit, []

    def commit(table: OwnTable, rows, note):
        original(table, rows, note)
        if rows is not None and table.path.endswith(lake.config.dlq_path):
            with pytest.raises(BronzeError) as caught:
                run_backfill(lake, dlq_path=dlq_path)
            refused.append(caught.value.exit_code)

    monkeypatch.setattr(OwnTable, "commit", commit)
    lake.ingest()
    assert refused == [2]
    assert_complete(lake, 3)


def test_a_bronze_table_made_by_hand_is_bound_at_the_first_run(topic: Topic, lake: Lake):
    for spec, path in ((get_bronze_spec(), lake.config.output_path), (get_dlq_spec(), lake.config.dlq_path)):
        lake.spark.sql(create_table_statement(spec, path))
    topic.produce(make_events(2) + BAD)
    lake.ingest()
    with pytest.raises(ConfigError, match="and this run has"):
        lake.ingest(dlq_path="")
    assert_complete(lake, 2 + len(BAD))
