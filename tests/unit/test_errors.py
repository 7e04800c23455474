"""One error class per exit code; the only subclasses are those that the code catches by type."""

import ast
from collections.abc import Iterator

import pytest

from bronze import errors
from bronze.errors import BronzeError, DataLossError, ExitCode, InvalidOptionError, RecordUnreadableError
from tests.support.paths import ROOT

CLASSES = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, BronzeError)
}
CODES = [kind.exit_code for kind in CLASSES.values() if "exit_code" in vars(kind)]


@pytest.mark.parametrize(
    ("problem", "hint", "message"),
    [
        ("no topic 'a'", "create it", "no topic 'a'; create it"),
        ("no topic 'a'.", "Create it", "no topic 'a'. Create it"),
        ("failed: Job aborted.", "run it again", "failed: Job aborted.; run it again"),
        ("there is no file a", "", "there is no file a"),
    ],
)
def test_problem_and_hint_are_one_message(problem: str, hint: str, message: str):
    error = BronzeError(problem, hint)
    assert (error.problem, error.hint, str(error)) == (problem, hint, message)


def test_an_error_keeps_what_it_is_caught_for():
    assert DataLossError("gone", lost="partition 0, offsets 1-2").lost == "partition 0, offsets 1-2"
    record = RecordUnreadableError("odd", "The way on", partition=3, offset=7)
    assert (record.partition, record.offset, str(record)) == (3, 7, "odd The way on")
    assert str(InvalidOptionError("max_rate", 0, "1")) == "--max-rate: expected 1, got 0"


def test_each_exit_code_of_an_error_has_one_class():
    assert sorted(CODES) == sorted({ExitCode(code) for code in CODES})
    assert set(ExitCode) - set(CODES) == {ExitCode.DONE, ExitCode.INCOMPLETE, ExitCode.INTERRUPTED}


def list_caught(tree: ast.AST) -> Iterator[str]:
    """The names in each ``except``, ``isinstance``, ``retry_conflicts`` and ``suppress``."""
    for node in ast.walk(tree):
        parts = [node.type] if isinstance(node, ast.ExceptHandler) and node.type else []
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "retry_conflicts", "suppress"):
            parts = node.args
        yield from (name.id for part in parts for name in ast.walk(part) if isinstance(name, ast.Name))


def test_below_those_is_only_what_is_caught_by_type():
    trees = [ast.parse(file.read_text()) for file in (ROOT / "lib").rglob("*.py")]
    caught = {name for tree in trees for name in list_caught(tree)}
    below = {name for name, kind in CLASSES.items() if "exit_code" not in vars(kind)}
    assert below - caught == {"InvalidOptionError"}  # raised in dozens of places, and hides secrets
