"""A schema change: ``response.status_code`` was an int and is a string now."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pyspark.sql import functions as F

from tests.support.commands import run_command
from tests.support.lake import Lake
from tests.support.paths import ROOT

SCRIPT = "import sys, json; from bronze.cli import main; print(json.dumps(list(map(main, json.loads(sys.argv[1])))))"


def change_schema(tmp_path: Path) -> dict[str, str]:
    """A copy of the package in which the status code is a string, and the environment to run it."""
    copy = tmp_path / "changed" / "bronze"
    shutil.copytree(ROOT / "lib" / "bronze", copy, ignore=shutil.ignore_patterns("__pycache__"))
    schema = copy / "schema.py"
    text, count = re.subn(r'"status_code:int ', '"status_code ', schema.read_text())
    assert count == 1
    schema.write_text(text)
    return {"PYTHONPATH": str(copy.parent)}


def migrate_bronze(lake: Lake) -> None:
    """Change the table as the schema change requires: its column gets the new type."""
    changed = F.col("response").withField("status_code", F.col("response.status_code").cast("string"))
    rows = lake.bronze.withColumn("response", changed)
    writer = rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true")
    writer.partitionBy("_event_date", "_event_hour").save(lake.config.output_path)


def run_changed(environment: dict[str, str], *commands: list[str]) -> subprocess.CompletedProcess[str]:
    """Run commands of the changed package one after the other in one process; the last line has their exit codes."""
    return run_command(sys.executable, "-c", SCRIPT, json.dumps(commands), timeout=400, **environment)
