"""The public API: every name can be imported, and an executor that imports the tasks does not load it."""

import subprocess
import sys

import pytest

import bronze

# pyspark itself imports py4j; Spark brings both to its executors.
_HEAVY = {"delta", "deltalake", "matplotlib", "pandas"}
_IMPORT_TASKS = f"""
import sys
sys.modules.update(dict.fromkeys({sorted(_HEAVY)}))
import bronze.tasks
print(*sorted(name for name in sys.modules if name.startswith("bronze.")))
"""


@pytest.mark.parametrize("name", bronze.__all__)
def test_each_name_of_the_api_is_there_and_documented(name: str):
    assert getattr(bronze, name).__doc__


def test_a_name_that_is_not_there_is_named():
    with pytest.raises(AttributeError, match="module 'bronze' has no attribute 'ingestt'"):
        bronze.ingestt  # noqa: B018


def test_the_tasks_load_without_the_packages_that_executors_lack():
    done = subprocess.run([sys.executable, "-c", _IMPORT_TASKS], capture_output=True, text=True)
    assert done.stderr == ""
    light = {
        f"bronze.{name}"
        for name in ("columns", "decode", "errors", "offsets", "parquet", "schema", "storage", "tasks", "transforms")
    }
    assert set(done.stdout.split()) <= light
