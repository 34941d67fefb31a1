"""The guard replaces predictions by copies only if recent predictions were worse than copying."""

from __future__ import annotations

import numpy as np

from framecast.camera import Image
from framecast.runtime.events import Guard

INTERVAL = 0.04


def noisy(level: float, seed: int) -> Image:
    rng = np.random.default_rng(seed)
    return np.clip(120 + rng.normal(0, level, (90, 120, 3)), 0, 255).astype(np.uint8)


def run(guard: Guard, good: bool, first: int, frames: int, moment: str = "steady", steps: float = 1) -> list[bool]:
    """Whether the guard replaced each prediction by a copy. All predictions are better than the copy, or all worse."""
    copied = []
    for k in range(first, first + frames):
        guard.see(noisy(0, k), k * INTERVAL, INTERVAL)
        prediction, copy = noisy(4 if good else 9, k), noisy(6, k + 1)
        time = (k + steps) * INTERVAL
        copied.append(guard.choose(prediction, copy, time, steps * INTERVAL, INTERVAL, moment) is copy)
    return copied


def test_good_predictions_are_never_copied() -> None:
    guard = Guard()
    assert not any(run(guard, True, 0, 60))
    assert guard.copied == 0


def test_bad_predictions_are_copied_and_counted() -> None:
    guard = Guard()
    copied = run(guard, False, 0, 60)
    assert all(copied[5:])
    assert guard.copied == sum(copied)


def test_predictions_that_become_good_are_used_again() -> None:
    guard = Guard()
    run(guard, False, 0, 60)
    assert not any(run(guard, True, 60, 80)[60:])


def test_moments_and_lookaheads_are_apart() -> None:
    guard = Guard()
    assert all(run(guard, False, 0, 30)[10:])
    assert not any(run(guard, True, 30, 30, moment="loose"))
    assert not any(run(guard, True, 60, 30, steps=4))
    assert run(guard, False, 90, 1) == [True]


def test_reset_forgets_the_evidence_and_keeps_the_count() -> None:
    guard = Guard()
    run(guard, False, 0, 60)
    count = guard.copied
    guard.reset()
    assert run(guard, False, 60, 1) == [False]
    assert guard.copied == count > 0


def test_predictions_of_other_moments_are_not_compared() -> None:
    guard = Guard()
    for k in range(60):
        guard.see(noisy(0, k), k * INTERVAL, INTERVAL)
        copy = noisy(1, k)
        assert guard.choose(noisy(40, k), copy, 1000.0, INTERVAL, INTERVAL, "steady") is not copy


def test_a_frame_of_another_size_is_not_compared() -> None:
    guard = Guard()
    run(guard, False, 0, 5)
    guard.see(np.zeros((10, 10, 3), np.uint8), 5 * INTERVAL, INTERVAL)
