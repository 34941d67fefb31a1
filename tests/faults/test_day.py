"""A minute or two of ``benchmarks/day.py``, with every kind of fault."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("day")
    for name in ("_day_camera", "_machine", "day"):
        sys.modules.pop(name, None)


def test_nothing_is_lost_but_what_was_on_the_wire(day: ModuleType) -> None:
    schedule, ticks = day.planted(len(day.KINDS), apart=6.0)
    assert {fault.kind for fault in schedule} == {*day.KINDS}
    found = day.simulate(schedule, ticks)
    assert not found.wrong, found.rows
    assert found.rows[0] == ("faults", str(len(day.KINDS)))


def test_a_wrong_figure_is_found(day: ModuleType) -> None:
    found = day.Day()
    found.same("gaps", 1, 2)
    assert found.wrong == {"gaps: 1, not 2": 1}
