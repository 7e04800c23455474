"""What the notebooks need around the library's calls: where they are, their parameters, their recorded result."""

import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from bronze.config import Config, IngestConfig
from bronze.errors import BronzeError, InvalidOption, InvalidParameter
from bronze.runtime.logs import configure_logging

AnyConfig = TypeVar("AnyConfig", bound=Config)
RESULT_MIME = "application/vnd.bronze.result+json"
# Those that no configuration has, and so none checks.
OWN_PARAMETERS = {"use_sandbox": bool, "report_hours": int}
_PROJECT = "bronze-ingestion"
_MAX_HOURS = 1_000_000
_LONG_TEXT = 40
_NOTE = "note"


class NotOfSandbox(BronzeError):
    """Raised when a notebook is to use the sandbox, and is given something that is not the sandbox's own."""

    exit_code = 2

    def __init__(self, name: str, value: object, cure: str):
        super().__init__(
            f"use_sandbox is true, but {name} is {value!r}, and sample events are for the sandbox's own brokers, topic "
            "and paths only; set use_sandbox to false (papermill: -p use_sandbox False, YAML: use_sandbox: false) and "
            f"name kafka_brokers, or for the sandbox {cure}"
        )


def set_up_notebook() -> None:
    """Find where relative paths begin, and show the product's log on standard output, which is not red.

    Values in tables are cut only when they are longer than 120 characters.
    """
    leave_notebooks()
    configure_logging(sys.stdout)
    pd.set_option("display.max_colwidth", 120)  # an error's detail names its field at the end


def leave_notebooks() -> None:
    """Relative paths begin where a notebook was called from; in the checkout's ``notebooks/``, at the checkout.

    JupyterLab and nbmake start a kernel in the notebook's own folder, papermill in the caller's.
    """
    here = Path.cwd()
    if here.name == "notebooks" and is_checkout(here.parent):
        os.chdir(here.parent)


def is_checkout(folder: Path) -> bool:
    """Whether a folder is a checkout of this project, and not another one's."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return project == _PROJECT and (folder / "notebooks" / "ingestion.ipynb").is_file()


def read_config(parameters: Mapping[str, Any], kind: type[AnyConfig] = IngestConfig, **others: Any) -> AnyConfig:  # type: ignore[assignment]
    """The configuration made of a notebook's parameters, ``globals()``; the other values replace theirs.

    Raises:
        InvalidParameter: A parameter that only notebooks have is not of its type, such as the text "false".
        BronzeError: The configuration's own checks fail.
    """
    check_types(parameters)
    given = {field.name: parameters[field.name] for field in fields(kind) if field.name in parameters}
    return kind(**{**given, **others})


def check_types(parameters: Mapping[str, Any]) -> None:
    """Refuse a value of another type: papermill hands on as text what it cannot read, and "false" would be true.

    Raises:
        InvalidParameter: Which it is.
        InvalidOption: Hours that reach back before any record.
    """
    for name, kind in OWN_PARAMETERS.items():
        if name in parameters and type(parameters[name]) is not kind:
            raise InvalidParameter(name, parameters[name], kind.__name__)
    if not 0 <= (hours := parameters.get("report_hours", 0)) <= _MAX_HOURS:
        raise InvalidOption("report_hours", hours, f"a number of hours from 0 to {_MAX_HOURS:,}")


def cut_rows(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    """The first rows of a table that is ordered by frequency; ``wrap_cells`` says where some are left out."""
    cut = frame.head(count)
    if len(frame) > count:
        cut.attrs[_NOTE] = f"The {count:,} most frequent; there are more."
    return cut


def wrap_cells(frame: pd.DataFrame) -> Any:
    """A table whose long texts are shown whole, over several lines; HTML in them is shown as text."""
    wide = [name for name in frame if frame[name].astype(str).str.len().max() > _LONG_TEXT]
    left = [{"selector": "th, td", "props": "text-align: left; vertical-align: top"}]
    styled = frame.style.hide(axis="index").format(escape="html").set_table_styles(left)
    if note := frame.attrs.get(_NOTE):
        styled = styled.set_caption(note)
    return styled.set_properties(subset=wide, **{"overflow-wrap": "anywhere", "min-width": "18em"})


def list_settings(config: Config) -> pd.DataFrame:
    """The configuration as a table; it holds no secrets, those are in the file that it names."""
    return pd.DataFrame({"value": asdict(config)}).rename_axis("parameter")


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
