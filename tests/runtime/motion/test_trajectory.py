from __future__ import annotations

import numpy as np
import pytest

from framecast.runtime.motion import trajectory
from framecast.runtime.motion.lattice import points
from framecast.runtime.motion.trajectory import Field, calmed, displacement, field, gained

GRID = points(40, 30)


def straight(velocity: tuple[float, float], elapsed: float = 0.5) -> Field:
    values = np.zeros_like(GRID) + np.array(velocity, np.float32)
    return Field(values, np.zeros_like(values), values, elapsed)


def test_the_fixed_point_of_a_zoom() -> None:
    # v(q) = s (q - c), so d = Δ s (p + d - c): d = Δ s (p - c) / (1 - Δ s).
    rate, centre = 0.05, np.array([19.5, 14.5], np.float32)
    motion = Field(np.float32(rate) * (GRID - centre), np.zeros_like(GRID), np.zeros_like(GRID), 1.0)
    for ahead in (1.0, 3.0):
        exact = ahead * rate * (GRID.astype(np.float64) - centre) / (1 - ahead * rate)
        inner = (slice(6, -6), slice(8, -8))
        np.testing.assert_allclose(displacement(motion, ahead, GRID)[inner], exact[inner], atol=0.02 * ahead)


def test_the_fixed_point_of_random_flow_in_float64() -> None:
    velocity = np.random.default_rng(0).normal(0, 0.3, GRID.shape).astype(np.float32)
    motion = Field(velocity, np.zeros_like(velocity), velocity, 1.0)

    def read(at: np.ndarray) -> np.ndarray:  # bilinear, borders replicated
        x, y = at[..., 0].clip(0, 39), at[..., 1].clip(0, 29)
        left, top = np.minimum(x.astype(int), 38), np.minimum(y.astype(int), 28)
        a, b = (x - left)[..., None], (y - top)[..., None]
        upper = velocity[top, left] * (1 - a) + velocity[top, left + 1] * a
        return np.asarray(upper * (1 - b) + (velocity[top + 1, left] * (1 - a) + velocity[top + 1, left + 1] * a) * b)

    found = np.zeros(GRID.shape)
    for _ in range(1 + trajectory.CONVERGED):
        found = read(GRID + found)
    np.testing.assert_allclose(displacement(motion, 1.0, GRID), found, atol=0.06)  # OpenCV may read at 1/32 pixels


@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0), (0.5, 2.0)])
def test_an_acceleration_is_carried_on_over_uneven_times(first: float, second: float) -> None:
    # x(t) = a t² / 2 + v t at -first - second, -second and 0. Its differences are backward displacements.
    def x(t: float) -> float:
        return 0.4 * t * t / 2 + 0.3 * t

    before = field(np.zeros_like(GRID) + np.float32(x(-second - first) - x(-second)), first, None, GRID)
    now = field(np.zeros_like(GRID) + np.float32(x(-second) - x(0)), second, before, GRID)
    for ahead in (0.5, 1.0, 3.0):
        found = displacement(now, ahead, GRID)
        travelled = -(found + gained(now, ahead, GRID + found))
        np.testing.assert_allclose(travelled, x(ahead), atol=1e-3)


def test_a_steady_velocity_is_a_mean_of_the_past() -> None:
    now = field(np.zeros_like(GRID) + 2, 1.0, straight((0.0, 0.0)), GRID)
    assert 0 < now.steady.mean() < 1


def test_far_ahead_the_iteration_settles_where_whole_steps_would_swing() -> None:
    # Along x, v = -s (q - c). Each full step multiplies the error by -Δ s, here -1.2, so it would grow. The solution is
    # d = -Δ s (p - c) / (1 + Δ s).
    rate, ahead, centre = 0.4, 3.0, 19.5
    velocity = np.zeros_like(GRID)
    velocity[..., 0] = -np.float32(rate) * (GRID[..., 0] - np.float32(centre))
    motion = Field(velocity, np.zeros_like(GRID), velocity, 1.0)
    exact = -ahead * rate * (GRID[..., 0] - centre) / (1 + ahead * rate)
    inner = (slice(None), slice(12, -12))
    np.testing.assert_allclose(displacement(motion, ahead, GRID)[inner][..., 0], exact[inner], atol=0.05)


def test_motion_is_calmed_the_more_the_further_it_goes() -> None:
    grid = points(320, 180)
    noise = np.random.default_rng(0).normal(0, 1, grid.shape).astype(np.float32)
    motion = Field(noise, noise, noise, 0.04)
    assert calmed(motion, 0.04) is motion
    uneven = [float(calmed(motion, ahead).velocity.std()) for ahead in (0.04, 0.12, 0.24, 0.48)]
    assert uneven == sorted(uneven, reverse=True)
    assert uneven[-1] < 0.2
    assert calmed(motion, 100.0).acceleration.std() > 0.02  # because the blur's box is bounded


def test_a_uniform_motion_is_calm() -> None:
    found = displacement(calmed(straight((2.0, -1.0)), 6.0), 6.0, GRID)
    np.testing.assert_allclose(found, np.zeros_like(GRID) + np.array([12.0, -6.0], np.float32), atol=1e-4)
