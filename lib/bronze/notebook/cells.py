"""Helpers of the notebooks: working directory, parameters, tables, and the recorded result."""

import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from bronze.config import Config, IngestConfig
from bronze.errors import ConfigError, InvalidOptionError, show_value
from bronze.runtime.logs import RUN_ID, configure_logging

AnyConfig = TypeVar("AnyConfig", bound=Config)
RESULT_MIME = "application/vnd.bronze.result+json"
# Parameters that belong to no configuration, and that a configuration therefore does not check.
OWN_PARAMETERS = {"use_sandbox": bool, "report_hours": int}
_PROJECT = "bronze-ingestion"
_MAX_HOURS = 1_000_000
_LONG_TEXT = 40
_NOTE = "note"


def set_up_notebook() -> None:
    """Set the working directory, and show the product's log on standard output, which is not red.

    Tables cut values only if they are longer than 120 characters.
    """
    leave_notebooks()
    configure_logging(sys.stdout)
    pd.set_option("display.max_colwidth", 120)  # so that an error's detail shows the field's name at its end


def leave_notebooks() -> None:
    """Resolve relative paths against the folder of the start, or against the checkout if started in its ``notebooks/``.

    JupyterLab and nbmake start a kernel in the notebook's own folder, papermill in the caller's working directory.
    """
    here = Path.cwd()
    if here.name == "notebooks" and is_checkout(here.parent):
        os.chdir(here.parent)


def is_checkout(folder: Path) -> bool:
    """Whether a folder is a checkout of this project."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return project == _PROJECT and (folder / "notebooks" / "ingestion.ipynb").is_file()


def read_config(parameters: Mapping[str, Any], kind: type[AnyConfig] = IngestConfig, **others: Any) -> AnyConfig:  # type: ignore[assignment]
    """Build a configuration from a notebook's parameters, ``globals()``; ``others`` replace them.

    Raises:
        ConfigError: A parameter that only notebooks have has the wrong type, such as the text "false".
        BronzeError: The configuration's own checks fail.
    """
    check_types(parameters)
    given = {field.name: parameters[field.name] for field in fields(kind) if field.name in parameters}
    return kind(**{**given, **others})


def check_types(parameters: Mapping[str, Any]) -> None:
    """Refuse values of the wrong type: papermill passes text that it cannot parse, and the text "false" would be true.

    Raises:
        ConfigError: Names the parameter.
        InvalidOptionError: The hours are out of range.
    """
    for name, kind in OWN_PARAMETERS.items():
        if name in parameters and type(parameters[name]) is not kind:
            raise parameter_error(name, parameters[name], kind.__name__)
    if not 0 <= (hours := parameters.get("report_hours", 0)) <= _MAX_HOURS:
        raise InvalidOptionError("report_hours", hours, f"a number of hours from 0 to {_MAX_HOURS:,}")


def parameter_error(name: str, value: object, kind: str) -> ConfigError:
    """Build the error for a notebook parameter with a value of the wrong type."""
    hint = "write True or False with papermill -p, true or false in YAML" if kind == "bool" else ""
    return ConfigError(f"parameter {name}: expected a value of type {kind}, got {show_value(value)}", hint)


def cut_rows(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    """The first rows of a table that is ordered by frequency; if there are more, ``wrap_cells`` adds a note."""
    cut = frame.head(count)
    if len(frame) > count:
        cut.attrs[_NOTE] = f"The {count:,} most frequent; there are more."
    return cut


def wrap_cells(frame: pd.DataFrame) -> Any:
    """A table that wraps long texts instead of cutting them; HTML in them is shown as text."""
    wide = [name for name in frame if frame[name].astype(str).str.len().max() > _LONG_TEXT]
    left = [{"selector": "th, td", "props": "text-align: left; vertical-align: top"}]
    styled = frame.style.hide(axis="index").format(escape="html").set_table_styles(left)
    if note := frame.attrs.get(_NOTE):
        styled = styled.set_caption(note)
    return styled.set_properties(subset=wide, **{"overflow-wrap": "anywhere", "min-width": "18em"})


def list_settings(config: Config) -> pd.DataFrame:
    """The configuration as a table. It contains no secrets, only the names of the files that hold them."""
    return pd.DataFrame({"value": asdict(config)}).rename_axis("parameter")


def record_result(**values: str | int | float | bool) -> None:
    """Show values and the run's id, and record them in the executed notebook for ``read_result`` and a scheduler."""
    from IPython.display import display

    values["run_id"] = RUN_ID
    width = max(map(len, values))
    lines = (
        f"{name:<{width}}  {value:,}" if type(value) is int else f"{name:<{width}}  {value}"
        for name, value in values.items()
    )
    display({RESULT_MIME: values, "text/plain": "\n".join(lines)}, raw=True)


def read_result(path: str | Path) -> dict[str, Any]:
    """The recorded result of an executed notebook.

    Raises:
        ValueError: The notebook has none.
    """
    import nbformat  # imported here, because it takes a second and a kernel never needs it

    if found := find_result(nbformat.read(path, as_version=4).cells):
        return found[RESULT_MIME]
    raise ValueError(f"{path} has no recorded result: it was not executed to its end")


def find_result(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The recorded result of executed cells by MIME type, for programs and as text; empty if there is none."""
    for output in (o for cell in reversed(cells) for o in cell.get("outputs", [])):
        if RESULT_MIME in output.get("data", {}):
            return output["data"]
    return {}
