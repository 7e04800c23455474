"""The rules of the project: consistent version pins, small modules, notebooks without logic or outputs."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import papermill
import pytest
import yaml

from tests.support.notebooks import CONFIG_FIELDS, NOTEBOOKS, PARAMETER, has_parameters, read_cells, read_parameters

ROOT = Path(__file__).parents[2]
LIB = ROOT / "lib"
TESTS = ROOT / "tests"
MODULES = sorted(p for p in LIB.rglob("*.py") if ".egg-info" not in str(p))
PARAMS = sorted((ROOT / "notebooks" / "params").glob("*.yaml"))

each_module = pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(LIB)))
each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)


def read_project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read_environment() -> tuple[dict[str, str], list[str]]:
    """Conda's packages with their versions, and what pip installs."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = dict((entry.split("=", 1) + [""])[:2] for entry in listed if isinstance(entry, str))
    (pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    return conda, pip


def test_both_environments_have_the_oldest_supported_python():
    assert read_project()["requires-python"] == f">={read_environment()[0]['python']}"


def test_conda_brings_a_java_that_spark_runs_on():
    assert int(read_environment()[0]["openjdk"]) >= 17


def test_conda_installs_this_project_with_all_its_extras_and_nothing_beside():
    _, (installed,) = read_environment()
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", installed)
    assert extras is not None
    assert set(extras[1].split(",")) == set(read_project()["optional-dependencies"]) - {
        "s3test",
        "deploytest",
    }  # added by make


def test_every_requirement_is_bounded():
    project = read_project()
    for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
        assert re.search(r"==|<", requirement), requirement


def read_phony() -> list[str]:
    return re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()


@pytest.mark.parametrize("target", read_phony())
def test_every_make_target_has_a_line_of_help(target: str):
    assert re.search(rf"^{re.escape(target)}:[^#\n]*## \S", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_make_target_with_help_is_phony():
    assert set(re.findall(r"^([a-z0-9-]+):[^#\n]*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)) == set(
        read_phony()
    )


def list_functions(module: Path) -> Iterator[tuple[str, int]]:
    """Each function of a module and its lines."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


@each_module
def test_a_module_has_at_most_400_lines(module: Path):
    assert len(module.read_text().splitlines()) <= 400


@each_module
def test_a_function_has_at_most_60_lines(module: Path):
    assert [name for name, lines in list_functions(module) if lines > 60] == []


def test_half_of_all_functions_have_at_most_20_lines():
    assert median(lines for module in MODULES for _, lines in list_functions(module)) <= 20


def test_the_core_has_few_lines():
    """The files that a record passes through, which docs/architecture.md calls the core."""
    core = "batch checkpoint columns decode guard offsets parquet schema stream tasks transforms writers"
    assert sum(len((LIB / "bronze" / f"{name}.py").read_text().splitlines()) for name in core.split()) <= 2_270


def test_the_ingestion_loads_few_lines():
    """The modules of ``bronze ingest``; the other commands add to them.

    A tenth of them finds the cause of a failure that a user must cure: Kafka's security, a JVM that does not start, an
    identity provider or an S3 server that is silent; 60 lines of these show the settings that do not fit, without a
    secret. Two hundred reach Azure and explain its failures; a hundred follow S3A's proxy, encryption
    and names of hosts, and read parts of files in object stores.
    """
    script = "import sys, bronze.stream; print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('bronze')))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert str(LIB / "bronze" / "tasks.py") in loaded
    assert sum(len(Path(file).read_text().splitlines()) for file in loaded) <= 10_240


def list_imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@each_module
def test_a_class_of_the_jvm_is_found_by_its_full_name(module: Path):
    """``_jvm.java.util`` costs py4j a search of all jars per part of the name; ``find_class`` does not."""
    nodes = [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Attribute)]
    bases = [(node.lineno, getattr(node.value, "attr", getattr(node.value, "id", ""))) for node in nodes]
    assert [line for line, base in bases if base in ("_jvm", "jvm")] == []


def test_bronze_never_imports_the_sandbox():
    modules = [module for module in MODULES if module.is_relative_to(LIB / "bronze")]
    assert len(modules) > 10
    assert [m.name for m in modules for name in list_imports(m) if name.split(".")[0] == "sandbox"] == []


def list_foreign_imports(module: Path) -> list[str]:
    """The imports of a test file from other test files, except those from ``tests/support``."""
    foreign = []
    for node in ast.walk(ast.parse(module.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        foreign += [name for name in names if re.match(r"\.|test_|conftest\b|tests\b(?!\.support\b)", name)]
    return foreign


@pytest.mark.parametrize("module", sorted(TESTS.rglob("*.py")), ids=lambda p: str(p.relative_to(TESTS)))
def test_files_of_the_tests_share_only_what_is_in_support(module: Path):
    assert list_foreign_imports(module) == []


@pytest.mark.parametrize("module", sorted(TESTS.rglob("conftest.py")), ids=lambda p: str(p.relative_to(TESTS)))
def test_a_conftest_defines_only_fixtures(module: Path):
    defined = [node for node in ast.parse(module.read_text()).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    decorated = {node.name: [ast.unparse(decorator) for decorator in node.decorator_list] for node in defined}
    assert [name for name, found in decorated.items() if not any("pytest.fixture" in text for text in found)] == []


def test_the_readme_of_the_tests_names_each_module_of_support():
    (table,) = re.findall(r"\| module \|.*?\n\n", (TESTS / "README.md").read_text(), re.DOTALL)
    named = re.findall(r"`(\w+/?)`", "".join(re.findall(r"^(\| `.*?\|)", table, re.MULTILINE)))
    modules = {p.stem for p in (TESTS / "support").glob("[!_]*.py")}
    assert sorted(named) == sorted({*modules, "scripts/"})


@pytest.mark.parametrize("word", ["quarantine", r"dead[\s_-]?letter", "reject"])
def test_the_dlq_has_one_name(word: str):
    files = [*MODULES, *NOTEBOOKS, *PARAMS]
    assert [str(file) for file in files if re.search(word, file.read_text(), re.IGNORECASE)] == []


def test_there_are_notebooks_and_parameter_files():
    assert NOTEBOOKS
    assert PARAMS


@each_notebook
def test_a_notebook_has_one_parameters_cell(notebook: Path):
    assert sum(map(has_parameters, read_cells(notebook))) == 1


@each_notebook
def test_every_parameter_is_a_name_a_type_a_literal_and_a_help_text(notebook: Path):
    for parameter in read_parameters(notebook).values():
        assert type(ast.literal_eval(parameter["value"])).__name__ == parameter["type"]


@each_notebook
def test_papermill_sees_every_parameter_with_its_type_default_and_help(notebook: Path):
    seen = papermill.inspect_notebook(str(notebook))
    written = read_parameters(notebook)
    assert list(seen) == list(written)
    for name, parameter in written.items():
        assert seen[name]["inferred_type_name"] == parameter["type"]
        assert (seen[name]["default"], seen[name]["help"]) == (parameter["value"], parameter["help"])


@each_notebook
def test_a_parameter_that_is_an_option_has_its_type_and_help(notebook: Path):
    options = CONFIG_FIELDS[notebook.stem]
    shared = {name: p for name, p in read_parameters(notebook).items() if name in options}
    for name, parameter in shared.items():
        field = options[name]
        assert (parameter["type"], parameter["help"]) == (type(field.default).__name__, field.metadata["help"])


@each_notebook
def test_a_notebook_has_every_option_but_those_for_programs(notebook: Path):
    assert set(CONFIG_FIELDS[notebook.stem]) - {"json", "log_format"} <= set(read_parameters(notebook))


@pytest.mark.parametrize("file", PARAMS, ids=lambda p: p.stem)
def test_a_parameter_file_sets_only_parameters_of_its_notebooks_with_their_types(file: Path):
    mentioned = [n for n in NOTEBOOKS if f"notebooks/{n.name}" in file.read_text()]
    assert mentioned
    for notebook in mentioned:
        written = read_parameters(notebook)
        for name, value in yaml.safe_load(file.read_text()).items():
            assert name in written, f"{notebook.name} has no parameter {name}"
            assert type(value).__name__ == written[name]["type"]


@each_notebook
def test_code_cells_are_short_and_hold_no_logic(notebook: Path):
    logic = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.AsyncFor, ast.While, ast.Lambda)
    for cell in read_cells(notebook):
        source = "".join(cell["source"])
        assert has_parameters(cell) or len(source.splitlines()) <= 12
        assert [node for node in ast.walk(ast.parse(source)) if isinstance(node, logic)] == []


@each_notebook
def test_a_notebook_runs_on_the_kernel_that_every_installation_has(notebook: Path):
    assert json.loads(notebook.read_text())["metadata"]["kernelspec"]["name"] == "python3"


@each_notebook
def test_a_notebook_has_no_outputs_and_no_execution_counts(notebook: Path):
    for cell in read_cells(notebook):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


@each_notebook
def test_a_notebook_begins_with_a_title_and_the_command_that_runs_it(notebook: Path):
    first = json.loads(notebook.read_text())["cells"][0]
    text = "".join(first["source"])
    assert first["cell_type"] == "markdown"
    assert text.startswith("# ")
    assert f"papermill notebooks/{notebook.name} " in text


@pytest.mark.parametrize(
    "line",
    [
        "name = 1  # no type",
        "name: str = 1",
        'name: str | None = ""  # a union',
        "name: list = []  # another type",
        'name: str = "a=b"  # an equals sign in the value',
        'name: str = "a"  # 1 = 2',
        'name: str = "#1"  # a hash in the value',
    ],
)
def test_the_form_of_a_parameter_leaves_nothing_else(line: str):
    assert not PARAMETER.fullmatch(line)
