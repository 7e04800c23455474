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
    "lib/bronze/*.py",
    "lib/bronze/delta/*.py",
    "lib/bronze/kafka/*.py",
]
PHRASES = [
    r"\banew\b",
    r"\bunsaid\b",
    r"(?<!\bthere )\b(?:is|are) no (?!longer|more)\w",
    r"\bwho(?:ever)? commits\b",
    r"\bwhoever\b",
    r"\bkept committing first\b",
    r"\bby it[.;:]",
    r"\b(?:fails|ends|loses|fail|end|lose) by it\b",
    r"^What (?:is|was|the|of)\b",
    r'"""What\b',
    r"\bof (?:its|their) own\b(?! \w)",
    r"\bno clock could\b",
    r"\bso that no\b",
    r"\bas of\b",
    r"\bleft out then\b",
    r"\bWhere there (?:is|are)\b",
    r"(?:;| None| empty| 0| -1) where (?:there|none|it|they)\b",
    r"\bof ours\b",
    r"\bat the most\b",
]
# Not rewritten yet.
LATER = {"config.py", "parsing.py"}
FILES = sorted(file for place in PLACES for file in ROOT.glob(place) if file.name not in LATER)


@pytest.mark.parametrize("phrase", PHRASES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_text_has_no_phrase_that_makes_a_reader_stop(file: Path, phrase: str):
    assert re.findall(phrase, file.read_text(), re.MULTILINE) == []
