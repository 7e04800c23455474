"""Every command works on paths with characters that are special in a shell, SQL, Hadoop's globs or a URI."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from bronze import audit, backfill, maintain, replay, status
from bronze.config import (
    AuditConfig,
    BackfillConfig,
    CheckpointConfig,
    CreateTablesConfig,
    MaintainConfig,
    ReplayConfig,
    StatusConfig,
)
from bronze.ops.checkpoint import inspect_checkpoint
from bronze.ops.create_tables import create_tables
from tests.support.events import make_events
from tests.support.lake import Lake
from tests.support.topic import Topic

ODD = """o [x] {a,b} *? `q`` ${HOME} ${spark:x} '"' $1 #;=,@!&|<>~^+ 100% ü (é) :c"""


@pytest.fixture
def odd_lake(any_lake: Lake, topic: Topic, tmp_path: Path) -> Lake:
    """A lake on an odd path, after two ingestions."""
    names = ("output_path", "dlq_path", "checkpoint_path")
    paths = {name: str(tmp_path / ODD / f"{name} {ODD}") for name in names}
    paths["checkpoint_path"] += r"\d\\"  # only the library that reads tables does not support a backslash
    lake = replace(any_lake, config=replace(any_lake.config, **paths))
    for number in range(2):
        topic.produce([*make_events(3, 3 * number), b"broken"], 0)
        lake.ingest()
    return lake


def test_all_commands_work_on_odd_paths(odd_lake: Lake):
    spark, configure = odd_lake.spark, odd_lake.configure
    again = {"starting_offsets": "earliest", "checkpoint_path": "", "max_offsets_per_trigger": 100}
    backfill(configure(BackfillConfig, **again), spark)
    assert odd_lake.positions() == [(0, offset) for offset in range(8)]
    assert audit(configure(AuditConfig), spark).is_complete
    assert inspect_checkpoint(configure(CheckpointConfig), spark)
    assert all("already exists" in line for line in create_tables(configure(CreateTablesConfig), spark))
    thousand = json.dumps({"0": [[2 * number, 2 * number] for number in range(1_000)]})
    assert replay(configure(ReplayConfig, offsets=thousand), spark)
    hundred_years = configure(StatusConfig, report_hours=876_000)
    assert len(status(hundred_years, spark).commits) > 3

    stray = next(Path(odd_lake.config.output_path).rglob("*.parquet")).with_name("stray.parquet")
    stray.write_bytes(b"PAR1")
    os.utime(stray, (0, 0))
    options = {"optimize_after_hours": 1, "retention_hours": 1, "force": True}
    done = maintain(configure(MaintainConfig, **options), spark)
    assert (done.compacted, done.files_before, done.files_after) == (1, 2, 1)
    assert (done.unreferenced, done.unreferenced_bytes) == (1, 4)
    maintain(configure(MaintainConfig, optimize_after_hours=876_000, retention_hours=876_000), spark)
    assert odd_lake.positions() == [(0, offset) for offset in range(8)]


def test_a_new_thread_has_the_session_s_settings(topic: Topic, lake: Lake, tmp_path: Path):
    """Spark would replace ``${HOME}`` in the path of a table; after an interrupt, py4j has a new thread too."""
    topic.produce(make_events(3))
    paths = {name: str(tmp_path / "${HOME}" / name) for name in ("output_path", "dlq_path", "checkpoint_path")}
    with ThreadPoolExecutor() as pool:
        assert pool.submit(lake.ingest, writer="delta-spark", **paths).result().counts.valid == 3
