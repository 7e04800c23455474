"""What Spark runs on executors needs no package there that ``make env-archive`` does not pack."""

import os
import re
import subprocess
import sys
import sysconfig
from importlib import import_module
from pathlib import Path

import pytest

from bronze.jars import list_executor_packages
from tests.conftest import ROOT


def find_task_modules() -> set[str]:
    """Modules of the functions that are given to ``mapInArrow``."""
    callers = [file for file in Path(ROOT, "lib/bronze").glob("*.py") if "mapInArrow" in file.read_text()]
    names = {(file.stem, name) for file in callers for name in re.findall(r"partial\((\w+), ", file.read_text())}
    return {getattr(import_module(f"bronze.{module}"), name).__module__ for module, name in names}


@pytest.fixture(scope="module")
def executor_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PYTHONPATH of an executor: what is packed, what Spark brings, and this package."""
    folder = tmp_path_factory.mktemp("env")
    for name in (*list_executor_packages(), "pyspark", "py4j"):
        for found in Path(sysconfig.get_path("purelib")).glob(f"{name}*"):  # also numpy.libs
            (folder / found.name).symlink_to(found)
    return os.pathsep.join([str(folder), str(ROOT / "lib")])


def test_the_tasks_of_every_command_are_looked_at():
    assert find_task_modules() == {"bronze.drift", "bronze.transforms", "bronze.writer"}


@pytest.mark.parametrize("module", sorted(find_task_modules()))
def test_an_executor_can_import_each_task_from_the_archive(module: str, executor_path: str):
    command = [sys.executable, "-S", "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": executor_path})
    assert (done.returncode, done.stderr) == (0, "")
