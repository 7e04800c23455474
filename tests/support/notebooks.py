"""The notebooks of this checkout, their cells and their parameters."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from bronze.config import BackfillConfig, IngestConfig, InspectConfig, ReplayConfig, StatusConfig
from tests.support.paths import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CONFIGS = {
    "ingestion": (IngestConfig,),
    "backfill": (BackfillConfig,),
    "dlq_inspection": (InspectConfig, ReplayConfig),
    "table_monitoring": (StatusConfig,),
}
CONFIG_FIELDS = {
    notebook: {field.name: field for config in configs for field in fields(config)}
    for notebook, configs in CONFIGS.items()
}
PARAMETER = re.compile(r"(?P<name>\w+): (?P<type>str|int|float|bool) = (?P<value>[^#=]+)  # (?P<help>[^#=]+)")
# For papermill, any `#` starts a comment and any `=` ends a value, so values and help texts contain neither.


def read_cells(notebook: Path, kind: str = "code") -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == kind]


def has_parameters(cell: dict[str, Any]) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


def read_parameters(notebook: Path) -> dict[str, re.Match[str]]:
    """The lines of the parameters cell by name; each must have the same form."""
    (cell,) = filter(has_parameters, read_cells(notebook))
    lines = "".join(cell["source"]).splitlines()
    found = {line: PARAMETER.fullmatch(line) for line in lines}
    assert [line for line, match in found.items() if not match] == []
    return {match["name"]: match for match in found.values() if match}
