"""What the notebooks need around the library's calls: where they are, their parameters, their recorded result."""

import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from bronze.config import Config, IngestConfig
from bronze.logs import configure_logging

AnyConfig = TypeVar("AnyConfig", bound=Config)
RESULT_MIME = "application/vnd.bronze.result+json"
_LONG_TEXT = 40


def set_up_notebook() -> None:
    """Make the checkout the working directory, and show the product's log on standard output, which is not red.

    Values in tables are cut only when they are longer than 120 characters.
    """
    enter_project()
    configure_logging(sys.stdout)
    pd.set_option("display.max_colwidth", 120)  # an error's detail names its field at the end


def enter_project(marker: str = "pyproject.toml") -> Path:
    """Make the checkout the working directory, so that ``data/`` is the same one however a notebook is run.

    JupyterLab and nbmake start a kernel in the notebook's folder, papermill in that of the caller.
    """
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / marker).is_file()), here)
    os.chdir(root)
    return root


def read_config(parameters: Mapping[str, Any], kind: type[AnyConfig] = IngestConfig, **others: Any) -> AnyConfig:  # type: ignore[assignment]
    """The configuration made of a notebook's parameters, ``globals()``; the other values replace theirs."""
    given = {field.name: parameters[field.name] for field in fields(kind) if field.name in parameters}
    return kind(**{**given, **others})


def wrap_cells(frame: pd.DataFrame) -> Any:
    """A table whose long texts are shown whole, over several lines; HTML in them is shown as text."""
    wide = [name for name in frame if frame[name].astype(str).str.len().max() > _LONG_TEXT]
    left = [{"selector": "th, td", "props": "text-align: left; vertical-align: top"}]
    styled = frame.style.hide(axis="index").format(escape="html").set_table_styles(left)
    return styled.set_properties(subset=wide, **{"overflow-wrap": "anywhere", "min-width": "18em"})


def record_result(**values: str | int | float | bool) -> None:
    """Show values and keep them in the executed notebook, where ``read_result`` and a scheduler find them."""
    from IPython.display import display

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
    if found := find_result(path):
        return found[RESULT_MIME]
    raise ValueError(f"{path} has no recorded result: it was not executed to its end")


def find_result(path: str | Path) -> dict[str, Any]:
    """The recorded result of an executed notebook by MIME type, for programs and as text; empty where there is none."""
    import nbformat  # here: a kernel, which never reads one, would wait a second for what it loads

    cells = nbformat.read(path, as_version=4).cells
    for output in (o for cell in reversed(cells) for o in cell.get("outputs", [])):
        if RESULT_MIME in output.get("data", {}):
            return output["data"]
    return {}
