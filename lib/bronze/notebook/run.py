"""``python -m bronze.notebook.run``: papermill, with parameters that are checked before anything runs.

papermill itself only warns of a parameter that a notebook does not have, and runs with the default: a misspelt
``output_path`` would write to the wrong table. Here it ends with exit code 2, and a failure with the code of its error.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import papermill
import yaml
from nbformat.reader import NotJSONError
from nbformat.validator import NotebookValidationError
from papermill.exceptions import PapermillExecutionError

from bronze import errors
from bronze.errors import BronzeError, FileUnreadable, InvalidParameter, NotebookMissing, UnknownParameter
from bronze.notebook import cells
from bronze.notebook.cells import find_result

_ERRORS = (errors, cells)
_TYPES = {"str": str, "int": int, "float": float}
_BOOLEANS = {"true": True, "false": False}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a notebook, print its recorded result, and return 0 or the exit code of what went wrong."""
    given = _build_parser().parse_args(arguments)
    output = given.output or Path("runs", given.notebook.name)
    try:
        parameters = check_parameters(given.notebook, given.parameters_file, given.parameter)
        output.parent.mkdir(parents=True, exist_ok=True)
        papermill.execute_notebook(given.notebook, output, parameters, kernel_name="python3")
    except PapermillExecutionError as error:
        print(f"\n{given.notebook} failed: {error.ename}: {error.evalue}\nExecuted notebook: {output}", file=sys.stderr)
        kinds = [vars(module).get(error.ename) for module in _ERRORS]
        return next((kind.exit_code for kind in kinds if kind), 1)
    except BronzeError as error:
        print(f"bronze: {error}", file=sys.stderr)
        return error.exit_code
    print(f"\nExecuted notebook: {output}")
    if result := find_result(output):
        print(f"\n{result['text/plain']}")
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bronze.notebook.run", description=__doc__)
    parser.add_argument("notebook", type=Path, help="such as notebooks/ingestion.ipynb")
    parser.add_argument("-o", "--output", type=Path, help="executed copy (default: runs/ and the notebook's name)")
    parser.add_argument("-f", "--parameters-file", type=Path, help="YAML file of parameters")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    return parser


def check_parameters(notebook: Path, file: Path | None, pairs: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The parameters of a file and of the command line, which count more, with the notebook's own types.

    Raises:
        NotebookMissing: There is no such notebook or file.
        UnknownParameter: The notebook has no parameter of a name.
        InvalidParameter: A value is not of the parameter's type.
    """
    for path in filter(None, (notebook, file)):
        if not path.is_file():
            raise NotebookMissing(str(path))
    known = {name: p["inferred_type_name"] for name, p in _inspect(notebook).items()}
    given = _read_file(file) if file else {}
    if unknown := sorted({*given, *(name for name, _ in pairs)} - set(known)):
        raise UnknownParameter(str(notebook), unknown, sorted(known))
    for name, value in given.items():
        if type(value).__name__ != known[name] and (type(value), known[name]) != (int, "float"):
            raise InvalidParameter(name, value, known[name])
    return {**given, **{name: _convert(name, value, known[name]) for name, value in pairs}}


def _inspect(notebook: Path) -> Mapping[str, Any]:
    try:
        return papermill.inspect_notebook(notebook)
    except (NotJSONError, NotebookValidationError) as error:
        raise FileUnreadable(str(notebook), "notebook", error) from None


def _read_file(file: Path) -> Mapping[str, Any]:
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except yaml.MarkedYAMLError as error:  # the text around it is not shown: it may hold a secret
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        reason = ValueError(f"{error.problem or 'no YAML'}{place}")
        raise FileUnreadable(str(file), "YAML file of parameters", reason) from None
    except (
        yaml.YAMLError,
        OSError,
        ValueError,
        RecursionError,
    ) as error:  # also a date or a number that Python has not
        raise FileUnreadable(str(file), "YAML file of parameters", ValueError(type(error).__name__)) from None
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise FileUnreadable(str(file), "YAML file of parameters", ValueError("it holds no names"))
    return given


def _convert(name: str, value: str, kind: str) -> Any:
    try:
        return _BOOLEANS[value.lower()] if kind == "bool" else _TYPES[kind](value)
    except (KeyError, ValueError):
        raise InvalidParameter(name, value, kind) from None


if __name__ == "__main__":
    sys.exit(main())
