"""A decoder in Rust that ends its process: the task is repeated without it, and no record is lost."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.audit import assert_complete
from tests.support.events import BAD, make_events
from tests.support.ingestion import Ingestion
from tests.support.lake import EITHER_WRITER, Lake
from tests.support.topic import Topic

# Python imports it at its start, in the driver and in the tasks.
_ABORTS = """
import os, pathlib
import arro3.io

def read_json(*_, **__):
    pathlib.Path(os.environ["WAS_CALLED"]).touch()
    os.abort()

arro3.io.read_json = read_json
"""


@pytest.mark.parametrize("writer", EITHER_WRITER)
def test_a_task_that_arrow_rs_aborts_is_repeated_by_rows(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], tmp_path: Path, writer: str
):
    (tmp_path / "sitecustomize.py").write_text(_ABORTS)
    topic.produce(make_events(60) + BAD)
    was_called = tmp_path / "called"
    config = replace(lake.config, writer=writer)
    ingestion = start(config, PYTHONPATH=str(tmp_path), WAS_CALLED=str(was_called))
    assert ingestion.wait() == 0, ingestion.log[-3000:]
    assert was_called.exists()
    assert_complete(lake, 60 + len(BAD))
