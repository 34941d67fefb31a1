"""Links and anchors in the documents exist, and the API page names the functions' return types."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import framecast

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


def test_every_public_function_says_what_it_returns_and_that_type_is_on_the_api_page() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    functions = [one for name in framecast.__all__ if inspect.isfunction(one := getattr(framecast, name))]
    assert len(functions) == 6
    for function in (*functions, framecast.Predictor.at, framecast.Predictor.rollout):
        assert "Returns:" in (function.__doc__ or ""), function
        returned = re.findall(r"[A-Z]\w+", function.__annotations__["return"])[-1]
        assert re.search(rf"\b{returned}\b", page), function
