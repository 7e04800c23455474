"""Standard output that is not UTF-8, or whose reader has gone, does not end a command; one on a full disk does."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys, time
from bronze.runtime.streams import make_streams_tolerant
make_streams_tolerant()
for number in range(20_000):
    print("a line of the output", number)
sys.exit(5)
"""
LETTERS = "from bronze.runtime.streams import make_streams_tolerant as m; m(); m(); print('d\u00f8n\u2026'); print(1)"


def run(script: str, shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'"$@" {shell}; exit ${{PIPESTATUS[0]}}', "-", sys.executable, "-c", script]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("reader", ["| head -1", "| true", ">&-"])
def test_the_exit_code_stays_when_the_reader_leaves(reader: str):
    done = run(SCRIPT, reader)
    assert (done.returncode, done.stderr) == (5, "")


@pytest.mark.parametrize("module", ["bronze", "bronze.notebook.run"])
def test_a_full_disk_under_the_output_is_one_line_and_exit_1(module: str):
    done = run(
        f"import runpy, sys; sys.argv[1:] = ['--help']; runpy.run_module({module!r}, None, '__main__')", ">/dev/full"
    )
    problem = "bronze: cannot write to standard output: No space left on device"
    assert (done.returncode, done.stderr) == (
        1,
        f"{problem}; free space or choose another file, then run the same command again\n",
    )


def test_a_full_disk_under_the_log_does_not_change_the_exit_code():
    done = run(LETTERS + "; import sys; print('x', file=sys.stderr); sys.exit(3)", "2>/dev/full")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (3, "1")


def test_the_output_of_a_process_goes_nowhere_if_standard_output_is_closed():
    assert run(LETTERS + "; import subprocess; exit(subprocess.call(['echo']))", ">&-").returncode == 0


def test_standard_error_may_close_as_well():
    assert run("import sys; " + LETTERS + "; print('x', file=sys.stderr); sys.exit(3)", "2>&-").returncode == 3


def test_a_letter_that_the_encoding_lacks_becomes_an_escape():
    done = run(LETTERS, "", PYTHONIOENCODING="ascii")
    assert done.stdout == "d\\xf8n\\u2026\n1\n"


def test_letters_stay_where_the_encoding_has_them():
    assert run(LETTERS, "", PYTHONIOENCODING="utf-8").stdout == "d\u00f8n\u2026\n1\n"
