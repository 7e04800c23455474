"""The monitoring notebook as it is scheduled: it records the measured values, then fails if an alert fires."""

from pathlib import Path

import nbformat
import pytest

from bronze import read_result
from bronze.notebook.run import main
from tests.support.events import BAD, make_events
from tests.support.lake import Lake
from tests.support.paths import ROOT
from tests.support.topic import Topic

NOTEBOOK = ROOT / "notebooks" / "table_monitoring.ipynb"


def test_a_firing_alert_fails_the_run_after_the_result_is_recorded_and_all_is_shown(
    topic: Topic, lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    topic.produce(make_events(28) + make_events(2) + BAD, partition=0)
    lake.ingest(max_offsets_per_trigger=20)
    paths = {name: getattr(lake.config, name) for name in ("checkpoint_path", "output_path", "dlq_path")}
    given = {**paths, "kafka_brokers": topic.brokers, "kafka_topic": topic.name, "use_sandbox": "false"}
    given |= {"fail_on_alert": "true", "max_lag": "0"}
    output = tmp_path / "out.ipynb"
    arguments = [text for name, value in given.items() for text in ("-p", name, value)]
    assert main([str(NOTEBOOK), "-o", str(output), *arguments]) == 6
    assert "AlertsFiringError: 1 of the alerts are firing: invalid share 0.2105" in capsys.readouterr().err
    result = read_result(output)
    assert (result["records"], result["invalid"], result["batches"], result["firing"]) == (38, 8, 2, "invalid share")
    assert (result["sharing event_id"], result["sharing _row_hash"]) == (4, 4)
    outputs = [o for cell in nbformat.read(output, 4).cells for o in cell.get("outputs", [])]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 6
    assert sum("text/html" in o.get("data", {}) for o in outputs) == 10
    assert [o["text"] for o in outputs if o.get("name") == "stderr"] == []
