"""The stop file."""

from pathlib import Path

import pytest

from bronze.stop import StopSwitch, check_stop_file


def test_a_stop_file_requests_a_stop(tmp_path: Path):
    switch, file = StopSwitch(), tmp_path / "stop"
    check_stop_file(switch, str(file))
    assert switch.reason == ""
    file.touch()
    check_stop_file(switch, str(file))
    assert switch.reason == f"the stop file {file}"


@pytest.mark.parametrize("name", ["x" * 300, "\0"], ids=["too long for the file system", "not a path"])
def test_a_disk_that_cannot_say_whether_the_file_exists_ends_no_run(tmp_path: Path, name: str):
    switch = StopSwitch()
    check_stop_file(switch, f"{tmp_path}/{name}")
    assert switch.reason == ""
