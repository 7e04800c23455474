"""``python -m bronze.notebook.run``: run papermill, but check the parameters first.

papermill itself only warns about a parameter that a notebook does not have, and runs with the default: a misspelt
``output_path`` would write to the wrong table. This command exits with code 2, and on a failure with the error's code.
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
from papermill.iorw import papermill_io

from bronze import errors
from bronze.errors import BronzeError, ConfigError, ExitCode
from bronze.notebook.cells import find_result, parameter_error
from bronze.runtime.streams import make_streams_tolerant

_TYPES = {"str": str, "int": int, "float": float}
_PARAMETERS = "YAML file of parameters"
_BOOLEANS = {"true": True, "false": False}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a notebook, print its recorded result, and return 0 or the exit code of the error."""
    make_streams_tolerant()
    try:
        given = _build_parser().parse_args(arguments)
        output = given.output or f"runs/{given.notebook.name}"
        parameters = parse_parameters(given.notebook, given.parameters_file, given.parameter)
        _check_output(output)
        executed = papermill.execute_notebook(given.notebook, output, parameters, kernel_name="python3")
        print(f"\nExecuted notebook: {output}")
        if result := find_result(executed.cells):
            print(f"\n{result['text/plain']}")
        return ExitCode.DONE
    except PapermillExecutionError as error:
        print(f"\n{given.notebook} failed: {error.ename}: {error.evalue}\nExecuted notebook: {output}", file=sys.stderr)
        return getattr(vars(errors).get(error.ename), "exit_code", ExitCode.FAILED)
    except BronzeError as error:
        print(f"bronze: {error}", file=sys.stderr)
        return error.exit_code


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bronze.notebook.run", description=__doc__)
    parser.add_argument("notebook", type=Path, help="for example notebooks/ingestion.ipynb")
    parser.add_argument("-o", "--output", help="executed copy, path or URI (default: runs/ and the notebook's name)")
    parser.add_argument("-f", "--parameters-file", type=Path, help="YAML file of parameters")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    return parser


def _check_output(output: str) -> None:
    """Create a local folder, or write an empty file to a URI, so that hours of work do not end without a place for it.

    Raises:
        ConfigError: It cannot be written.
    """
    if "://" not in output:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        return
    try:
        papermill_io.write("", output)
    except Exception as error:  # each store has its own client with its own errors
        raise ConfigError(
            f"--output {output} cannot be written: {type(error).__name__}: {error}",
            hint="Install papermill's client of the store (papermill[s3], [gcs] or [azure]), or check its address and "
            "credentials",
        ) from None


def parse_parameters(notebook: Path, file: Path | None, pairs: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The parameters of a file and of the command line, which take precedence, with the notebook's types.

    Raises:
        ConfigError: The notebook or file does not exist. The notebook has no parameter of a given name. A value does
            not have the parameter's type.
    """
    for path in filter(None, (notebook, file)):
        if not path.is_file():
            raise ConfigError(f"there is no file {path}")
    known = {name: p["inferred_type_name"] for name, p in _inspect(notebook).items()}
    given = _read_file(file) if file else {}
    if unknown := sorted({*given, *(name for name, _ in pairs)} - set(known)):
        raise ConfigError(
            f"{notebook} has no parameter {', '.join(unknown)}", hint=f"it has: {', '.join(sorted(known))}"
        )
    for name, value in given.items():
        if type(value).__name__ != known[name] and (type(value), known[name]) != (int, "float"):
            raise parameter_error(name, value, known[name])
    return {**given, **{name: _convert(name, value, known[name]) for name, value in pairs}}


def _inspect(notebook: Path) -> Mapping[str, Any]:
    try:
        return papermill.inspect_notebook(notebook)
    except (NotJSONError, NotebookValidationError) as error:
        raise _unreadable_error(notebook, "notebook", str(error)) from None


def _read_file(file: Path) -> Mapping[str, Any]:
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except yaml.MarkedYAMLError as error:  # the surrounding text is not shown: it may contain a secret
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise _unreadable_error(file, _PARAMETERS, f"{error.problem or 'not YAML'}{place}") from None
    except (
        yaml.YAMLError,
        OSError,
        ValueError,
        RecursionError,
    ) as error:  # also for a date or a number that Python does not support
        raise _unreadable_error(file, _PARAMETERS, type(error).__name__) from None
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise _unreadable_error(file, _PARAMETERS, "it does not map names to values")
    return given


def _unreadable_error(file: Path, expected: str, reason: str) -> ConfigError:
    return ConfigError(f"{file} is not a {expected}: {' '.join(reason.split())[:200]}")


def _convert(name: str, value: str, kind: str) -> Any:
    try:
        return _BOOLEANS[value.lower()] if kind == "bool" else _TYPES[kind](value)
    except (KeyError, ValueError):
        raise parameter_error(name, value, kind) from None


if __name__ == "__main__":
    sys.exit(main())
