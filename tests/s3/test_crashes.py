"""``kill -9`` of an ingestion into S3, and a lost checkpoint or table: only what is committed is not read again."""

from collections.abc import Callable
from dataclasses import replace

import pyarrow.fs as pa_fs
import pytest

from bronze.delta.create import create_table
from bronze.errors import BronzeError, ConfigError
from bronze.schema import get_bronze_spec
from sandbox.s3 import S3Sandbox
from tests.support.audit import assert_complete
from tests.support.backfill import let_commit_first
from tests.support.events import BAD, make_events
from tests.support.ingestion import MOMENTS, PAUSE, Ingestion
from tests.support.kills import LONG
from tests.support.lake import Lake
from tests.support.object_store import check_kill
from tests.support.topic import Topic


@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_9_at_each_moment_of_a_batch(topic: Topic, lake: Lake, start: Callable[..., Ingestion], moment: str):
    check_kill(topic, lake, start, moment)


@pytest.mark.soak
def test_kill_9_while_the_tables_are_created(topic: Topic, lake: Lake, start: Callable[..., Ingestion]):
    topic.produce(make_events(40))
    start(lake.config, *PAUSE, PAUSE_AT="between the tables").wait_for("Paused", LONG).kill()
    lake.ingest()
    assert_complete(lake, 40)


def test_a_checkpoint_that_is_lost_or_restored_loses_and_doubles_nothing(topic: Topic, lake: Lake, s3: S3Sandbox):
    checkpoint, backup = (f"{lake.config.checkpoint_path.split('://')[1]}{end}" for end in ("", "-backup"))
    topic.produce(make_events(20) + BAD)
    lake.ingest()
    pa_fs.copy_files(checkpoint, backup, source_filesystem=s3.file_system, destination_filesystem=s3.file_system)
    topic.produce(make_events(40, first=20) + BAD)
    lake.ingest(max_offsets_per_trigger=10)
    s3.file_system.delete_dir(checkpoint)
    lake.ingest()
    s3.file_system.delete_dir(checkpoint)
    pa_fs.copy_files(backup, checkpoint, source_filesystem=s3.file_system, destination_filesystem=s3.file_system)
    topic.produce(make_events(10, first=60))
    assert lake.ingest().counts.valid == 10
    assert_complete(lake, 70 + 2 * len(BAD))


def test_a_table_that_is_recreated_under_a_stream_ends_it_and_loses_nothing(
    topic: Topic, lake: Lake, s3: S3Sandbox, monkeypatch: pytest.MonkeyPatch
):
    path = lake.config.output_path

    def recreate() -> None:
        s3.file_system.delete_dir(path.removeprefix("s3a://"))
        create_table(lake.spark, path, get_bronze_spec())

    topic.produce(make_events(20) + BAD)
    lake.ingest()
    topic.produce(make_events(20, first=20) + BAD)
    let_commit_first(monkeypatch, recreate)
    with pytest.raises(BronzeError, match=f"^{path} was altered, replaced or deleted since this run began"):
        lake.ingest()
    with pytest.raises(ConfigError, match="not into the table at"):
        lake.ingest(change_dlq=True)
    cured = replace(lake, config=replace(lake.config, checkpoint_path=f"{lake.config.checkpoint_path}-new"))
    cured.ingest(change_dlq=True)
    assert_complete(cured, 40 + 2 * len(BAD))
