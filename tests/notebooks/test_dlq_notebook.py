"""The DLQ's notebook: what it shows, hides, replays and records."""

from pathlib import Path
from typing import Any

import nbformat
import papermill
from deltalake import DeltaTable, write_deltalake

from bronze import read_result
from bronze.decode import Invalid
from bronze.schema import get_bronze_spec, get_dlq_spec
from bronze.transforms import build_dlq
from tests.support.builders import INGESTED_AT, create_table, make_records
from tests.support.events import make_event
from tests.support.paths import ROOT

NOTEBOOK = ROOT / "notebooks" / "dlq_inspection.ipynb"
SECRET = "192.0.2.77"


def execute(tmp_path: Path, **parameters: Any) -> dict[str, Any]:
    paths = {"output_path": str(tmp_path / "bronze"), "dlq_path": str(tmp_path / "dlq")}
    output = tmp_path / "out.ipynb"
    papermill.execute_notebook(NOTEBOOK, output, {**paths, **parameters}, kernel_name="python3", progress_bar=False)
    return read_result(output)


def test_it_shows_what_is_in_the_dlq_hides_masked_fields_and_replays(tmp_path: Path):
    create_table(tmp_path / "bronze", get_bronze_spec())
    values = [make_event(n, client={"ip_address": SECRET}, region="eu") for n in range(3)] + [f"{SECRET}{{".encode()]
    errors = [Invalid("schema_mismatch", "Expected `int`, got `str` - at `$.response.status_code`")] * 4
    rows = build_dlq(make_records(values), errors, 0, INGESTED_AT)
    write_deltalake(create_table(tmp_path / "dlq", get_dlq_spec()), rows, mode="append")
    result = execute(tmp_path, use_sandbox=False, kafka_topic="events", dry_run=False, sample_count=9)
    counts = {name: result[name] for name in ("open", "valid_now", "still_failing", "appended")}
    assert counts == {"open": 4, "valid_now": 3, "still_failing": 1, "appended": 3}
    assert DeltaTable(str(tmp_path / "bronze")).count() == 3
    outputs = [o for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells for o in cell.get("outputs", [])]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert (kinds.count("image/png"), kinds.count("text/html")) == (2, 7)
    assert [o["text"] for o in outputs if o.get("name") == "stderr"] == []
    assert SECRET not in str(outputs)
    assert "***" in str(outputs)
