"""The page of faults names every fault test, and no test that does not exist."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text()
NAMED = re.findall(r"`(\w+/test_\w+\.py)::(test_\w+)`", PAGE)


def list_tests(file: Path) -> set[str]:
    return {
        node.name
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("file", sorted((TESTS / "faults").glob("test_*.py")), ids=lambda file: file.stem)
def test_every_fault_test_is_on_the_page(file: Path):
    assert list_tests(file) == {name for path, name in NAMED if path == f"faults/{file.name}"}


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_every_test_on_the_page_exists(path: str, name: str):
    assert name in list_tests(TESTS / path)


def test_the_page_has_no_gap_that_was_to_be_filled():
    assert re.findall(r"^[A-Z]{4,}$", PAGE, re.MULTILINE) == []
