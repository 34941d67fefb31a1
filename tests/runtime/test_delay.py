"""The estimate of a camera's delay is within 10 ms for any camera, or it is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from framecast.errors import SourceError
from framecast.runtime.delay import GRID, LEAD, Delay, brightness, estimate, measure
from framecast.testing import ListSource

from .blinking import START, Camera, Floats, things, window  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

WRONG = 0.01  # seconds: the largest error allowed


def estimated(camera: Camera, seed: int = 1, seconds: float = 20.0) -> Delay:
    random = np.random.default_rng(seed)
    changes = window(random, seconds)
    return estimate(changes, *camera.look(random, changes, seconds))


@pytest.mark.parametrize("delay", [0.15, 0.4, 1.2])
@pytest.mark.parametrize("fps", [15.0, 25.0, 30.0])
@pytest.mark.parametrize(("exposure", "jitter"), [(0.01, 0.02), (0.033, 0.0)])
def test_the_delay_of_a_camera_is_found(delay: float, fps: float, exposure: float, jitter: float) -> None:
    found = estimated(Camera(delay, fps, exposure, jitter), seed=round(1000 * delay + fps))
    assert found.seconds == pytest.approx(delay, abs=WRONG)
    assert found.seen == found.shown > 30
    assert found.low <= found.seconds <= found.high
    assert found.high - found.low < 1 / fps + 2 * jitter
    assert found.interval == pytest.approx(1 / fps, rel=0.15)


@pytest.mark.parametrize(
    "camera",
    [
        Camera(0.0),
        Camera(2.9),
        Camera(0.4, fps=5.0, exposure=0.1),
        Camera(0.4, fps=15.0, exposure=0.066),
        Camera(0.4, fps=60.0, exposure=0.008),
        Camera(0.4, contrast=4.0),
        Camera(0.4, contrast=20.0, noise=3.0),
        Camera(0.4, fill=0.03),
        Camera(0.4, fill=1.0),
    ],
    ids=str,
)
def test_a_camera_with_a_poor_view_is_measured_too(camera: Camera) -> None:
    assert estimated(camera).seconds == pytest.approx(camera.delay, abs=WRONG)


def test_lost_frames_do_not_matter() -> None:
    random = np.random.default_rng(1)
    changes = window(random, 20)
    times, grids = Camera(0.4).look(random, changes, 20)
    kept = random.random(len(times)) > 0.3
    assert estimate(changes, times[kept], grids[kept]).seconds == pytest.approx(0.4, abs=WRONG)


def test_a_person_who_walks_by_does_not_matter() -> None:
    random = np.random.default_rng(1)
    changes = window(random, 20)
    times, grids = Camera(0.4).look(random, changes, 20)
    grids[(times > START + 4) & (times < START + 7)] = 200.0
    found = estimate(changes, times, grids)
    assert found.seconds == pytest.approx(0.4, abs=WRONG)
    assert found.seen < found.shown


def unrelated(random: np.random.Generator, times: Floats, kind: str) -> Floats:
    """Brightness [N, rows, columns] of a scene that does not show the window."""
    shape = (len(times), *GRID)
    match kind:
        case "nothing":
            return np.full(shape, 77.0)
        case "noise":
            return 100 + random.normal(0, 2, shape)
        case "things that move":
            return 100 + things(random, times) + random.normal(0, 0.5, shape)
        case "cuts":
            cuts = np.sort(random.uniform(times[0], times[-1], 40))
            return random.uniform(20, 230, (41, *GRID))[np.searchsorted(cuts, times)]
        case "a light that flashes":
            return 50 + 100.0 * ((times % 1.0) < 0.5)[:, None, None] + random.normal(0, 1, shape)
    return Camera(0.2).look(random, window(random, 20), 20)[1][: len(times)]


@pytest.mark.parametrize(
    "kind", ["nothing", "noise", "things that move", "cuts", "a light that flashes", "another window"]
)
def test_other_changes_are_not_mistaken_for_the_window(kind: str) -> None:
    for seed in range(2):
        random = np.random.default_rng(seed)
        changes = window(random, 20)
        times = START + np.arange(600) / 30
        with pytest.raises(SourceError, match=r"was not seen .*\(let the camera see the whole window.*darken"):
            estimate(changes, times, unrelated(random, times, kind))


@pytest.mark.parametrize("camera", [Camera(3.4), Camera(5.0), Camera(0.4, contrast=0.5)], ids=str)
def test_a_delay_that_cannot_be_measured_is_refused(camera: Camera) -> None:
    with pytest.raises(SourceError, match="not seen"):
        estimated(camera)


def test_a_window_that_is_seen_half_of_the_time_is_refused() -> None:
    random = np.random.default_rng(1)
    changes = window(random, 20)
    times, grids = Camera(0.4).look(random, changes, 20)
    grids[times > START + 10] = 120.0
    with pytest.raises(SourceError, match=r"only \d+ of \d+ changes|was not seen well enough"):
        estimate(changes, times, grids)


@pytest.mark.parametrize("seconds", [0.0, 1.0, 7.0])
def test_a_recording_that_is_too_short_is_refused(seconds: float) -> None:
    with pytest.raises(SourceError, match=r"^too few: .*measure longer: --duration 20"):
        estimated(Camera(0.4), seconds=seconds)


def test_brightness_is_the_mean_of_each_cell() -> None:
    image = np.random.default_rng(1).integers(0, 256, (12 * 30, 16 * 40, 1), np.uint8).repeat(3, axis=2)
    image[:30, :40] = 255
    cells = brightness(image)
    assert cells.shape == GRID
    assert cells[0, 0] == 255
    assert cells == pytest.approx(image[..., 0].reshape(12, 30, 16, 40).mean(axis=(1, 3)), abs=1)
    assert brightness(np.zeros((7, 5, 3), np.uint8)).shape == GRID


class Window:
    """A fake window with known changes."""

    def __init__(self, changes: Floats) -> None:
        self.changes = list(changes)
        self.checked = 0

    def check(self) -> None:
        self.checked += 1


def test_a_measurement_ends_by_itself_and_skips_the_first_frames() -> None:
    random = np.random.default_rng(1)
    changes = window(random, 40)
    camera = Camera(0.25, fps=25.0, jitter=0.01)
    frames = camera.frames(random, changes, 40)
    late = [replace(frame, time=START) for frame in frames[:10]]  # in a burst
    source, shown = ListSource([*late, *frames[10:]], live=True, fps=25.0), Window(changes)
    found = measure(source, shown, 15.0)
    assert found.seconds == pytest.approx(0.25, abs=WRONG)
    assert 20 < found.seen < 40
    assert shown.checked == pytest.approx((LEAD + 15) * 25, abs=20)
    assert source.read() is not None
