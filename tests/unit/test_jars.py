"""Java and the jars: where they are found, and the one-line message if they are missing."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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


def test_the_spark_that_is_needed_is_the_one_that_is_installed():
    assert version("pyspark").startswith(f"{jars.SPARK}.")


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        ("Picked up JAVA_TOOL_OPTIONS: -XX:X\nUnrecognized VM option 'X'\nError: Could not create the Java",
         "Unrecognized VM option 'X'"),
        ("Error occurred during initialization of VM\nToo small maximum heap\n", "Too small maximum heap"),
        ("#\n# There is insufficient memory for Java.\n# More", "There is insufficient memory for Java"),
        ("", "it ended without a message"),
    ],
)  # fmt: skip
def test_java_s_own_reason_is_found(output: str, cause: str):
    assert jars.read_java_error(output) == cause


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        ({}, []),
        ({"HTTPS_PROXY": "http://proxy:3128"}, ["-Dhttps.proxyHost=proxy", "-Dhttps.proxyPort=3128"]),
        (
            {"all_proxy": "http://proxy:3128"},
            [f"-D{scheme}.{part}" for scheme in ("https", "http") for part in ("proxyHost=proxy", "proxyPort=3128")],
        ),
        ({"https_proxy": "proxy:3128"}, ["-Dhttps.proxyHost=proxy", "-Dhttps.proxyPort=3128"]),
        (
            {"http_proxy": "http://proxy", "NO_PROXY": "localhost, .example.com"},
            ["-Dhttp.proxyHost=proxy", "-Dhttp.proxyPort=80", "-Dhttp.nonProxyHosts=localhost|*.example.com"],
        ),
    ],
)
def test_the_proxy_of_the_environment_becomes_java_s(environment: dict[str, str], options: list[str]):
    assert jars.list_proxy_options(environment) == options


_FAKE_IVY = """#!/bin/sh
mkdir {busy} || exit 1
sleep 0.3
for word; do case "$word" in */jars/*) mkdir "${{word%/*}}";; esac; done
rmdir {busy}
"""


def test_two_downloads_at_once_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ivy = tmp_path / "ivy"
    ivy.write_text(_FAKE_IVY.format(busy=tmp_path / "busy"))
    ivy.chmod(0o755)
    monkeypatch.setattr(jars, "find_java", lambda: str(ivy))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(jars.resolve_jars, ["a:b:1", "a:c:1"])) == [[], []]


def test_a_folder_that_cannot_hold_the_jars_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=f"{tmp_path}/file/.*: Not a directory; set XDG_CACHE_HOME"):
        jars.resolve_jars("a:b:1")
