"""Plain technical English: phrases that make a native reader stop are in no page and in no text of the code."""

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# Where they are looked for; the notebooks' cells are in JSON.
PLACES = [
    "*.md",
    "docs/architecture.md",
    "docs/operations.md",
    "tests/README.md",
    "Makefile",
    "notebooks/*.ipynb",
    "notebooks/params/*.yaml",
    "benchmarks/*.py",
    "lib/bronze/cli.py",
    "lib/bronze/config.py",
    "lib/bronze/parsing.py",
    "lib/bronze/notebook/*.py",
    "lib/bronze/ops/*.py",
    "lib/bronze/runtime/*.py",
    "lib/sandbox/*.py",
]
PHRASES = [
    r"\banew\b",
    r"\bunsaid\b",
    r"(?<![Tt]here )\bis no (?!longer|more)\w",
    r"\bwho(?:ever)? commits\b",
    r"\bwhoever\b",
    r"\bkept committing first\b",
    r"\b(?:fails|ends|loses) by it\b",
    r"^What (?:is|was|the|of)\b",
    r'^\s*"""What\b',  # a docstring
]
FILES = sorted(file for place in PLACES for file in ROOT.glob(place))


@pytest.mark.parametrize("phrase", PHRASES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_text_has_no_phrase_that_makes_a_reader_stop(file: Path, phrase: str):
    assert re.findall(phrase, file.read_text(), re.MULTILINE) == []
