"""The notebooks as CI and a newcomer run them: unchanged, in a checkout without tables and without a broker."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from deltalake import DeltaTable

from sandbox.kafka import KafkaSandbox
from tests.support.commands import ON_ONE_JVM
from tests.support.paths import ROOT


def test_nbmake_runs_all_four_on_a_fresh_sandbox(tmp_path: Path):
    """Each notebook alone would create its tables; in alphabetical order, backfill does it. One JVM, as in the demo."""
    (tmp_path / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    environment = {**os.environ, "SANDBOX_PORT": "0", "SANDBOX_DATA_DIR": str(tmp_path / "data" / "sandbox")}
    command = [*ON_ONE_JVM, sys.executable, "-m", "pytest", "--nbmake", "notebooks", "-q", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout
        assert "4 passed" in done.stdout
        rows = [DeltaTable(str(tmp_path / "data" / name)).count() for name in ("bronze", "dlq")]
        assert rows == [19_800, 200]
    finally:
        KafkaSandbox(tmp_path / "data" / "sandbox").stop()
