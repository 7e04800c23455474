"""The pages of the documentation: their list, their text and their sections."""

import re
from pathlib import Path

from tests.support.paths import ROOT

_FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
PAGES = sorted(page for folder in (".", "docs", "tests", "benchmarks") for page in (ROOT / folder).glob("*.md"))


def read_page(name: str) -> str:
    """The text of a page by its path in the checkout."""
    return (ROOT / name).read_text(encoding="utf-8")


def read_prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def read_section(text: str, heading: str) -> str:
    """The text of one section, up to the next heading of its level."""
    level = heading.partition(" ")[0]
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found[1]
