"""Links, anchors and commands in the documents exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from framecast.cli import COMMANDS

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text())
    missing = [t for t in targets if "://" not in t and not (document.parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_anchor_is_a_heading(document: Path) -> None:
    text = document.read_text()
    headings = {
        re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= headings


def commands(document: Path) -> list[list[str]]:
    """The lines of a document that call framecast, split into words as a shell does; continued lines are joined."""
    text = document.read_text().replace("\\\n", " ")
    lines = re.findall(r"^    (?:sudo (?:-u \w+ )?)?(?:\w+=\S+ )?(?:\S*/)?(framecast .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_a_document_exists(document: Path, run: Run) -> None:
    for name, *words in commands(document):
        assert name in COMMANDS, (name, words)
        shown = run(name, "--help")[1]
        for option in (word.partition("=")[0] for word in words if word.startswith("-")):
            assert re.search(rf"(^|\s){re.escape(option)}[\s,]", shown), (name, option)


def test_commands_are_found_in_the_documents() -> None:
    found = {name for document in DOCUMENTS for name, *_ in commands(document)}
    assert found >= {"run", "eval", "bench", "train", "build", "doctor"}
