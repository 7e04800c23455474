"""Java and the jars: where they are found, and the one-line message if they are missing."""

import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from bronze.errors import ConfigError
from bronze.runtime import jars


def test_a_conda_environment_s_java_is_found_beside_its_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    java = tmp_path / "java"
    java.symlink_to(jars.find_java())
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(jars, "_CONDA_BIN", str(tmp_path))
    assert jars.find_java() == str(java)


def test_the_java_on_path_comes_before_that_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "java").symlink_to(jars.find_java())
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(jars, "_CONDA_BIN", str(tmp_path))
    assert jars.find_java() == shutil.which("java")


def test_no_java_at_all_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(jars, "_CONDA_BIN", "/nonexistent")
    with pytest.raises(ConfigError, match="^no Java found; Spark needs Java"):
        jars.find_java()


@pytest.mark.parametrize("action", ["--packages", "--fetch"])
def test_a_driver_without_pyspark_is_told_so_in_one_line(action: str):
    command = [sys.executable, "-S", "-m", "bronze.runtime.jars", action]  # -S: without any installed package
    done = subprocess.run(command, env={"PYTHONPATH": str(Path(jars.__file__).parents[2])}, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.decode().startswith("the driver's Python has no package 'pyspark'")
    assert len(done.stderr.splitlines()) == 1


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    def read(package: str) -> str:
        if package == "delta-spark":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(jars, "version", read)
    with pytest.raises(ConfigError, match="no package 'delta-spark'; install this project"):
        jars.get_spark_packages()
