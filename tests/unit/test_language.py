"""Plain technical English: phrases that make a native reader stop are in no page and in no text of the code."""

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# Where they are looked for; the notebooks' cells are in JSON.
PLACES = ["*.md", "docs/architecture.md", "docs/operations.md", "tests/README.md"]
PHRASES = [
    r"\banew\b",
    r"\bunsaid\b",
    r"\bis no (?!longer|more)\w",
    r"\bwho(?:ever)? commits\b",
    r"\bwhoever\b",
    r"\bkept committing first\b",
    r"\b(?:fails|ends|loses) by it\b",
    r"^What (?:is|was|the|of)\b",
]
FILES = sorted(file for place in PLACES for file in ROOT.glob(place))


@pytest.mark.parametrize("phrase", PHRASES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_text_has_no_phrase_that_makes_a_reader_stop(file: Path, phrase: str):
    assert re.findall(phrase, file.read_text(), re.MULTILINE) == []
