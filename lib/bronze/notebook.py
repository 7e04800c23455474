"""What the notebooks need around the library's calls: where they are, their parameters, their recorded result."""

import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from bronze.config import IngestConfig
from bronze.logs import configure_logging

RESULT_MIME = "application/vnd.bronze.result+json"


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


def read_config(parameters: Mapping[str, Any], **others: Any) -> IngestConfig:
    """The configuration made of a notebook's parameters, ``globals()``; the other values replace theirs."""
    given = {field.name: parameters[field.name] for field in fields(IngestConfig) if field.name in parameters}
    return IngestConfig(**{**given, **others})


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
    return _find_output(path)[RESULT_MIME]


def _find_output(path: str | Path) -> dict[str, Any]:
    cells = nbformat.read(path, as_version=4).cells
    for output in (o for cell in reversed(cells) for o in cell.get("outputs", [])):
        if RESULT_MIME in output.get("data", {}):
            return output["data"]
    raise ValueError(f"{path} has no recorded result: it was not executed to its end")


def main() -> int:
    """Print the recorded result of an executed notebook, and what to look at next."""
    path = Path(sys.argv[1])
    print(f"\nExecuted notebook: {path}\n\n{_find_output(path)['text/plain']}\n\n{_NEXT}")
    return 0


_NEXT = """Try next:
  make demo          again: as many new events, nothing twice
  make lab           the notebook in JupyterLab
  make submit        the same ingestion by spark-submit
  make sandbox-down  stop Kafka"""


if __name__ == "__main__":
    sys.exit(main())
