"""No page and no file that is listed here has one of the phrases that made readers stop."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from bronze.cli import COMMANDS
from tests.support.pages import read_prose
from tests.support.paths import ROOT

SEARCHED = ["*.md", "docs/*.md", "tests/*.md", "lib/**/*.py", "notebooks/*.ipynb"]

# A pattern, and what to write instead.
PHRASES = {
    r"\banew\b": "again; 'recreated' for 'made anew'",
    r"\bunsaid\b": "silently",
    r"\bbeside\b": "next to, together with",
    r"\bwhat (is|was|are|were) (?!\W*(done|expected|left|missing|replayed|wrong))": "name the thing",
    r"(?<!there )\b(is|are|was|were) no (?!(longer|more|less|fewer|later|earlier)\b)": "is not a",
    r"(?<!Tenant )\bwho(ever)?\b": "name the actor: 'the process that …', 'the user that …'",
    r"\bof (its|their|his|her|our|your|my) own\b": "its own …",
    r"\bkept committing first\b": "committed first each time",
    r"\bby it(?=[.;:,]|\s*$)": "say what does it",
}


def list_files() -> list[Path]:
    return sorted(file for pattern in SEARCHED for file in ROOT.glob(pattern))


def read_text(file: Path) -> str:
    """The prose of a file: without code, and without the help texts of flags, which come from lib."""
    if file.suffix != ".md":
        return file.read_text(encoding="utf-8")
    text = re.sub(r"(`+).*?\1", "", read_prose(file), flags=re.DOTALL)
    if not any(pattern.startswith("lib/") for pattern in SEARCHED):
        for help_text in {field.metadata["help"] for command in COMMANDS.values() for field in fields(command.config)}:
            text = text.replace(f" {help_text} |", "")
    return text


def find_phrases(text: str) -> Iterator[str]:
    """The phrases in a text, each with its context and a suggestion."""
    flat = " ".join(text.split())
    for pattern, instead in PHRASES.items():
        for found in re.finditer(pattern, flat, re.IGNORECASE):
            around = flat[max(0, found.start() - 40) : found.end() + 40]
            yield f"…{around}…: {instead}"


@pytest.mark.parametrize("file", list_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_text_has_none_of_the_phrases(file: Path):
    assert list(find_phrases(read_text(file))) == []


def test_there_are_pages_to_search():
    assert len(list_files()) >= 8


@pytest.mark.parametrize(
    "text",
    [
        "a table made anew is refused",
        "records would be left out unsaid",
        "beside a live stream",
        "what is there is left out",
        "It adds what was deleted.",
        "a path that is no Delta table",
        "This is no\nproblem.",
        "who commits second looks again",
        "Whoever runs them has a session.",
        "in a module of its own",
        "others kept committing first",
        "a query that is written by it.",
        "nothing is lost by it; it goes on",
    ],
)
def test_each_phrase_is_found(text: str):
    assert len(list(find_phrases(text))) >= 1


@pytest.mark.parametrize(
    "text",
    [
        "Besides, there is no table at the path.",
        "The record is no longer in Kafka.",
        "It has its own port, and the whole table.",
        "The batch is committed, and it is safe to stop.",
        "If there is no checkpoint, what happens next depends on the offsets.",
        "The tables were no more than 10 MB.",
    ],
)
def test_plain_text_is_left_alone(text: str):
    assert list(find_phrases(text)) == []
