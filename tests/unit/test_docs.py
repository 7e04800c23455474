"""The pages: every link has a target, and the lists of modules, codes, variables and alerts match the code."""

import ast
import importlib
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from bronze.cli import COMMANDS
from bronze.config import StatusConfig, fields
from bronze.errors import BronzeError
from bronze.ops.alerts import evaluate_alerts
from tests.support.pages import PAGES, read_page, read_prose, read_section
from tests.support.paths import ROOT

LIB = ROOT / "lib"
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def make_anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def list_anchors(page: Path) -> set[str]:
    found: Counter[str] = Counter()
    anchors = set()
    for heading in re.findall(r"^#{1,6} (.+)$", read_prose(page), re.MULTILINE):
        anchor = make_anchor(heading)
        anchors.add(f"{anchor}-{found[anchor]}" if found[anchor] else anchor)
        found[anchor] += 1
    return anchors


def list_links(page: Path) -> Iterator[str]:
    yield from _LINK.findall(re.sub(r"(`+).*?\1", "", read_prose(page)))


@each_page
def test_every_link_leads_somewhere(page: Path):
    for link in list_links(page):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in list_anchors(target), link


def test_there_are_links_and_pages_to_look_at():
    assert {page.name for page in PAGES} >= {"README.md", "architecture.md", "configuration.md", "operations.md"}
    assert sum(len(list(list_links(page))) for page in PAGES) > 50


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("What makes it exactly once", "what-makes-it-exactly-once"),
        ("`bronze ingest`", "bronze-ingest"),
        ("Spark's UI", "sparks-ui"),
        ("DLQ: inspect and replay", "dlq-inspect-and-replay"),
        ("The [audit](#x)", "the-audit"),
        ("10 MB, and more", "10-mb-and-more"),
    ],
)
def test_an_anchor_is_made_as_github_makes_it(heading: str, anchor: str):
    assert make_anchor(heading) == anchor


def test_the_front_page_is_short():
    assert len(read_page("README.md").splitlines()) <= 150


def test_the_front_page_links_to_every_page():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in list_links(ROOT / "README.md")}
    assert [str(page) for page in (ROOT / "docs").glob("*.md") if page.resolve() not in linked] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_front_page_names_each_command(command: str):
    assert re.search(rf"^\| \[`bronze {command}`\]", read_section(read_page("README.md"), "## Commands"), re.MULTILINE)


@each_page
def test_what_a_page_imports_exists(page: Path):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        for module, names in re.findall(r"^ *from (bronze[\w.]*) import ([\w, ]+)$", block, re.MULTILINE):
            for name in names.split(","):
                assert hasattr(importlib.import_module(module), name.strip()), f"{module}.{name}"


def test_the_architecture_page_names_every_module_once():
    section = read_section(read_page("docs/architecture.md"), "## Modules")
    named = re.findall(r"^\| `([\w/]+\.py)` \| \S.* \|$", section, re.MULTILINE)
    folder = LIB / "bronze"
    modules = [str(file.relative_to(folder)) for file in folder.rglob("*.py")]
    assert sorted(named) == sorted(name for name in modules if not name.endswith("/__init__.py"))


def test_the_layers_of_the_architecture_page_are_those_of_the_linter():
    section = read_section(read_page("docs/architecture.md"), "## Layers")
    cells = re.findall(r"^\| (?!layer|-)[^|]+ \| ([^|]+) \|$", section, re.MULTILINE)
    layers = [set(re.findall(r"`(\w+)/?`", layer)) for cell in cells for layer in cell.split(" > ")]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in settings if contract["type"] == "layers"]
    assert layers == [set(layer.split(" | ")) for layer in contract["layers"]]


def list_codes(kind: type[BronzeError] = BronzeError) -> set[int]:
    return {kind.exit_code, *(code for each in kind.__subclasses__() for code in list_codes(each))}


def test_each_exit_code_is_in_the_operations():
    section = read_section(read_page("docs/operations.md"), "## Exit codes")
    codes = [int(code) for code in re.findall(r"^\| (\d+) \| \w", section, re.MULTILINE)]
    # 0 is success, 5 belongs to the audit, 130 and 143 to signals.
    assert codes == sorted({0, 5, 130, 143, *list_codes()})


def list_variables() -> set[str]:
    """The environment variables that the code reads or sets by name."""
    found = set()
    for module in LIB.rglob("*.py"):
        text = module.read_text()
        found |= set(re.findall(r"os\.environ(?:\.get|\.setdefault)?[\[(]\s*\"(\w+)\"", text))
        found |= set(re.findall(r"\"(\w+)\" in os\.environ", text))
        found |= {
            node.value.value
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and getattr(node.targets[0], "id", "").endswith("_VARIABLE")
        }
    return found


def test_each_environment_variable_is_in_the_configuration():
    variables = list_variables()
    assert len(variables) > 5
    section = read_section(read_page("docs/configuration.md"), "## Environment variables")
    assert sorted(name for name in variables if f"`{name}`" not in section) == []


def test_each_alert_is_in_the_operations_with_its_threshold():
    config = StatusConfig(kafka_brokers="broker:9092", output_path="bronze")
    measured = {field.name: None for field in fields(config) if field.name.startswith(("max_", "min_", "alert_"))}
    section = read_section(read_page("docs/operations.md"), "## Alerts")
    alerts = evaluate_alerts(config, measured)
    assert len(re.findall(r"^\| (?!alert|-)", section, re.MULTILINE)) == len(alerts)
    for alert in alerts:
        (row,) = [line for line in section.splitlines() if line.startswith(f"| {alert.name} |")]
        (name,) = re.findall(r"`--([\w-]+)`", row)[:1]
        assert getattr(config, name.replace("-", "_")) == alert.threshold


def render_text(node: ast.AST | None) -> str | None:
    """A string in the code, with … in place of the parts that vary; None if the node is not a string."""
    match node:
        case ast.Constant(value=str(text)):
            return re.sub(r"%[sdg]|%\(\w+\)s", "…", text)
        case ast.JoinedStr(values=parts):
            return "".join(render_text(part) or "…" for part in parts)
        case ast.FormattedValue(value=ast.Call(func=ast.Name(id="to_flag"))):
            return "--…"
        case ast.BinOp(left=left, op=ast.Add(), right=right) if render_text(left) is not None:
            return f"{render_text(left)}{render_text(right) or '…'}"
    return None


TREES = {module: ast.parse(module.read_text()) for module in sorted(LIB.rglob("*.py"))}
TEXTS = sorted({text for tree in TREES.values() for node in ast.walk(tree) if (text := render_text(node))})


def list_errors() -> dict[str, ast.ClassDef]:
    """The error classes whose messages users see, found by their base classes."""
    classes = {n.name: n for tree in TREES.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    found = {"BronzeError"}
    while more := {n for n, c in classes.items() if {getattr(b, "id", "") for b in c.bases} & found} - found:
        found |= more
    return {name: classes[name] for name in found}


def list_messages() -> Iterator[str]:
    """The texts of the errors: from the initializer of the class if it has one, otherwise from the raise."""
    errors = list_errors()
    made = {name: list(filter(None, map(render_message, _list_super_calls(kind)))) for name, kind in errors.items()}
    yield from (text for texts in made.values() for text in texts)
    raised = {name for name, texts in made.items() if not texts and name not in _COMPOSED}
    calls = (call for tree in TREES.values() for call in _list_calls(tree) if _name(call.func) in raised)
    yield from filter(None, map(render_message, calls))


# Errors whose initializer joins lines into a text.
_COMPOSED = {"BrokerNotStarted", "BrokerNotStartedError"}


def render_message(call: ast.Call) -> str | None:
    """The problem and the hint of an error, as its ``str`` joins them."""
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    problem, hint = (*call.args, None, None)[:2]
    text, hint = render_text(problem or keywords.get("problem")), hint or keywords.get("hint")
    if text is None or hint is None:
        return text
    cure = render_text(hint) or "…"
    return f"{text}{' ' if cure[:1].isupper() else '; '}{cure}"


def _list_super_calls(kind: ast.ClassDef) -> Iterator[ast.Call]:
    return (call for call in _list_calls(kind) if _name(call.func) == "__init__")


def _list_calls(node: ast.AST) -> Iterator[ast.Call]:
    return (call for call in ast.walk(node) if isinstance(call, ast.Call))


def _name(node: ast.AST) -> str:
    return next((getattr(node, key) for key in ("name", "id", "attr") if hasattr(node, key)), "")


def is_quoted(message: str, text: str, *, from_start: bool = False) -> bool:
    """Whether a message on a page, with … for the parts that vary, is part of a text in the code."""
    if len(message.replace("…", "")) < 12:
        return message == text
    pattern = ".*".join(re.escape(piece.strip()) for piece in message.split("…"))
    return bool((re.match if from_start else re.search)(pattern, text, re.DOTALL))


ERRORS = sorted(set(list_messages()))
TROUBLESHOOTING = read_page("docs/troubleshooting.md")
MESSAGES = read_section(TROUBLESHOOTING, "## Messages")
SHOWN = [block.strip() for block in re.findall(r"```text\n(.*?)```", MESSAGES, re.DOTALL)]
WARNINGS = read_section(TROUBLESHOOTING, "## Warnings in the log")
CELLS = re.findall(r"^\| `([^`]+)` \|", MESSAGES + WARNINGS, re.MULTILINE)


@pytest.mark.parametrize("message", [*SHOWN, *CELLS])
def test_each_message_of_the_page_is_one_of_the_code(message: str):
    assert any(is_quoted(message, text) for text in [*ERRORS, *TEXTS])


@pytest.mark.parametrize("text", ERRORS)
def test_each_error_has_a_section_in_the_troubleshooting(text: str):
    assert [message for message in SHOWN if is_quoted(message, text, from_start=True)] != []


def test_each_section_of_a_message_has_a_cause_and_a_cure():
    sections = re.split(r"^#### ", MESSAGES, flags=re.MULTILINE)[1:]
    assert len(sections) == len(SHOWN) > 50
    for section in sections:
        assert re.search(r"```text\n.+\n```\n\n- \*\*Cause:\*\* \w.*\n- \*\*Cure:\*\* \S", section), section


def test_the_symptoms_come_first():
    headings = re.findall(r"^### (.+)$", read_section(TROUBLESHOOTING, "## Symptoms"), re.MULTILINE)
    assert len(headings) >= 6
    assert TROUBLESHOOTING.index("## Symptoms") < TROUBLESHOOTING.index("## Messages")
