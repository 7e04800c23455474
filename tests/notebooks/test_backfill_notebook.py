"""The backfill notebook as it is scheduled: it shows the plan, adds the missing records, and records the result."""

from pathlib import Path
from typing import Any

import nbformat
import papermill

from bronze import read_result
from tests.support.events import BAD, make_events
from tests.support.lake import Lake
from tests.support.paths import ROOT
from tests.support.topic import Topic


def execute(topic: Topic, lake: Lake, output: Path, **parameters: Any) -> dict[str, Any]:
    paths = {name: getattr(lake.config, name) for name in ("output_path", "dlq_path")}
    given = {**paths, "kafka_brokers": topic.brokers, "kafka_topic": topic.name, "use_sandbox": False, **parameters}
    papermill.execute_notebook(
        ROOT / "notebooks" / "backfill.ipynb", output, given, kernel_name="python3", progress_bar=False
    )
    return read_result(output)


def test_what_is_missing_is_added_and_shown(topic: Topic, lake: Lake, tmp_path: Path):
    topic.produce(make_events(30), partition=0)
    lake.ingest()
    topic.produce(make_events(20) + BAD, partition=0)
    result = execute(topic, lake, tmp_path / "out.ipynb", max_offsets_per_trigger=10)
    assert (result["planned"], result["present"], result["valid"], result["invalid"]) == (28, 30, 20, 8)
    assert result["batches"] == 3
    assert len(lake.positions()) == len(set(lake.positions())) == 58
    outputs = [o for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells for o in cell.get("outputs", [])]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 1
    assert [o["text"] for o in outputs if o.get("name") == "stderr"] == []
