"""Patterns of new pictures and repeats."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from framecast.runtime.events.cadence import Cadence

PATTERNS: dict[str, Callable[[int], bool]] = {
    "doubled": lambda k: k % 2 == 0,
    "one of six": lambda k: k % 6 == 0,
    "four of five": lambda k: k % 5 != 4,
    "two and three": lambda k: k % 5 in (0, 2),
    "13 of 30": lambda k: k * 13 // 30 != (k - 1) * 13 // 30,
}


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_found_and_goes_on(name: str) -> None:
    cadence = Cadence()
    for k in range(90):
        cadence.see(PATTERNS[name](k))
    assert cadence.locked
    assert cadence.coming(20) == [PATTERNS[name](k) for k in range(90, 110)]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5])
def test_chance_is_no_pattern(share: float) -> None:
    locked = 0
    for seed in range(20):
        chance, cadence = random.Random(seed), Cadence()
        for _ in range(300):
            cadence.see(chance.random() >= share)
            locked += cadence.locked
    assert locked < 0.01 * 20 * 300


@pytest.mark.parametrize("moving", [1, 5, 60])
def test_a_stop_is_no_pattern(moving: int) -> None:
    cadence = Cadence()
    for k in range(moving + 60):
        cadence.see(k < moving)
        assert not cadence.locked


def test_a_pattern_that_ends_is_given_up() -> None:
    cadence = Cadence()
    for k in range(60):
        cadence.see(k % 2 == 0)
    for _ in range(5):
        cadence.see(True)
    assert not cadence.locked


def test_a_pattern_survives_one_mistake() -> None:
    cadence = Cadence()
    for k in range(60):
        cadence.see((k % 2 == 0) != (k == 50))
    assert cadence.locked
    assert cadence.coming(4) == [True, False, True, False]


def test_waiting_without_a_pattern() -> None:
    cadence = Cadence()
    for _ in range(10):
        cadence.see(True)
    assert cadence.wait() == 1
    for _ in range(4):
        cadence.see(False)
    assert cadence.wait() is None
