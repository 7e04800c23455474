"""The archived classes for fast starts: a JVM uses them, and starts without them if it cannot."""

import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from sandbox.jvm import LIGHT
from tests.support.commands import run_command

ARCHIVE = Path(sys.prefix, "spark-classes.jsa")  # the archive of make fast-start


def start_spark(archive: Path, sharing: str, options: str = LIGHT) -> CompletedProcess[str]:
    options = f'-XX:SharedArchiveFile="{archive}" -Xshare:{sharing} -Xlog:cds*=off {options}'
    code = "from bronze.runtime.session import get_session; get_session()"
    return run_command(sys.executable, "-c", code, SPARK_SUBMIT_OPTS=options)


@pytest.mark.parametrize("options", ["", LIGHT], ids=["as ever", "light"])
def test_a_start_maps_the_classes_that_were_kept(options: str):
    done = start_spark(ARCHIVE, "on", options)
    assert done.returncode == 0, f"rm {ARCHIVE}; make fast-start: {done.stderr}"


@pytest.mark.soak
def test_a_start_without_them_is_as_ever():
    assert start_spark(Path("/nowhere/classes.jsa"), "auto").returncode == 0


@pytest.mark.soak
def test_a_start_with_what_another_java_kept_says_nothing(tmp_path: Path):
    (tmp_path / "of another Java").write_text("")
    assert start_spark(tmp_path / "of another Java", "on").returncode != 0
    done = start_spark(tmp_path / "of another Java", "auto")
    assert (done.returncode, done.stdout) == (0, "")
    assert "cds" not in done.stderr
