"""What the documents point at is there."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import pytest

import framecast
from framecast.cli import COMMANDS

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

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
    """The lines of a document that call framecast, a word each; comments and continued lines as a shell takes them."""
    text = document.read_text().replace("\\\n", " ")
    lines = re.findall(r"^    (?:sudo (?:-u \w+ )?)?(?:\w+=\S+ )?(?:\S*/)?(framecast .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_a_document_is_one_that_there_is(document: Path, run: Run) -> None:
    for name, *words in commands(document):
        assert name in COMMANDS, (name, words)
        shown = run(name, "--help")[1]
        for option in (word.partition("=")[0] for word in words if word.startswith("-")):
            assert re.search(rf"(^|\s){re.escape(option)}[\s,]", shown), (name, option)


def test_commands_are_found_in_the_documents() -> None:
    found = {name for document in DOCUMENTS for name, *_ in commands(document)}
    assert found >= {"run", "eval", "bench", "train", "build", "doctor"}


def test_every_public_function_says_what_it_returns_and_that_type_is_on_the_api_page() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    functions = [one for name in framecast.__all__ if inspect.isfunction(one := getattr(framecast, name))]
    assert len(functions) == 5
    for function in (*functions, framecast.Predictor.at, framecast.Predictor.rollout):
        assert "Returns:" in (function.__doc__ or ""), function
        returned = re.findall(r"[A-Z]\w+", function.__annotations__["return"])[-1]
        assert re.search(rf"\b{returned}\b", page), function
