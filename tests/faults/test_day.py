"""A minute or two of ``benchmarks/day.py``, with every kind of fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import ModuleType

import pytest

from framecast.runtime.events.watch import Watch


@pytest.fixture
def day(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("day")


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


def test_the_scene_itself_holds_no_repeats_and_no_cuts(day: ModuleType) -> None:
    """Neither where a slow model drops two of three frames, nor where it is quick again; and a planted cut is one."""
    camera = day.Camera(day.VirtualClock(), [], 1, day.DayEngine(day.VirtualClock()))
    for size in (0, 1):
        watch, tick, found = Watch(), 0, Counter[str]()
        for k in range(400):
            tick += 3 if k // 30 % 2 else 1
            found[watch.see(camera.picture(tick, size, 0), tick / day.FPS, 1 / day.FPS).kind] += 1
        assert found == {"first": 1, "new": 399}
        watch, found = Watch(), Counter[str]()
        for k in range(241):
            found[watch.see(camera.picture(k, size, k // 40), k / day.FPS, 1 / day.FPS).kind] += 1
        assert found == {"first": 1, "new": 234, "cut": 6}
