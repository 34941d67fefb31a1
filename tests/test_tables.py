"""Every table of figures in a document matches the results of the benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import tables

    monkeypatch.delitem(sys.modules, "tables")
    return tables


def test_documents_are_up_to_date(tables: Any) -> None:
    stale = [path.name for path in tables.DOCUMENTS if tables.filled(path.read_text()) != path.read_text()]
    assert stale == [], "run python benchmarks/tables.py"


def test_a_figure_changed_by_hand_is_found(tables: Any) -> None:
    text = (BENCHMARKS.parent / "README.md").read_text()
    assert tables.filled(text.replace("0.23", "0.22")) == text


def test_every_table_is_in_a_document(tables: Any) -> None:
    texts = "".join(path.read_text() for path in tables.DOCUMENTS)
    assert [name for name in tables.TABLES if f"<!-- table: {name} -->" not in texts] == []


def test_the_readme_is_short() -> None:
    text = (BENCHMARKS.parent / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.encode()) <= 10_240
