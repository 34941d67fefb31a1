"""Measures a camera's glass-to-glass latency: a window blinks on a screen at known times, and the camera films it.

The part of a frame that shows the window is as bright as the window was ``delay`` seconds before, averaged over the
exposure. Changes from frame to frame are compared, so that slow changes (automatic exposure, daylight) do not matter.
The delay is the one at which these changes correlate best. The result is finer than the camera's interval because some
exposures catch part of a blink. The window blinks at random times, so that no other delay fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from framecast.camera import Image, Source
from framecast.errors import SourceError
from framecast.runtime.arrivals import Arrivals

LONGEST = 3.0  # seconds: the longest delay tried
GRID = (12, 16)  # rows and columns of cells
GAPS = (0.3, 0.7)  # seconds between two changes, random: two flashes a second at most, safe for photosensitive people
LEAST = 16  # changes needed for a result
LEAD = 1.0  # seconds skipped at the start of a stream, because its first frames may come in a burst

_COARSE, _FINE = 0.01, 0.001  # seconds between two delays tried
_NEAR = 0.06  # seconds that the fine search covers on each side of the coarse result
_EXPOSURES = (0.002, 0.01, 0.02, 0.033, 0.05, 0.067, 0.1)  # exposures tried, in seconds
_ALIKE = 0.5  # least correlation, of each cell used and of their mean
_CELLS = 0.7  # least correlation of a cell used, as a share of the best cell's
_ELSEWHERE = 0.75  # largest correlation allowed at any other delay, as a share of the best
_APART = 0.15  # seconds: a delay further than this from the best counts as another one
_AGREE = 0.04  # seconds by which each half of the recording may differ from the whole
_STEP = 0.4  # least change of brightness that counts as seen, as a share of the median change
_SHARE = 0.7  # least share of the changes that must be seen
_SETTLED = 0.1  # seconds after a change until frames no longer show it in progress

_AIM = "let the camera see the whole window, large and in focus; darken the room; keep both still; then try again"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Delay:
    """A measured delay.

    Attributes:
        seconds: from the request for a change on the screen to the time of the frame whose exposure is centred on that
            change. It includes the screen's own delay. If the camera repeats frames, it is the mean over all frames,
            repeats included.
        low: the 5th percentile over single changes, in seconds. A single change is known only to within an exposure.
        high: the 95th percentile over single changes, in seconds.
        seen: changes that were seen.
        shown: changes that could have been seen.
        interval: seconds between frames.
    """

    seconds: float
    low: float
    high: float
    seen: int
    shown: int
    interval: float


class Blinking(Protocol):
    """A window that blinks. See :class:`framecast.runtime.sinks.blink.BlinkWindow`."""

    changes: list[float]

    def check(self) -> None:
        """Raise an error if the window is gone."""


def measure(source: Source, window: Blinking, seconds: float) -> Delay:
    """Measure a camera that films a blinking window. Jitter is removed from the frames' times, as in a run.

    Args:
        source: an opened camera.
        window: already blinking. Its times are on the camera's clock.
        seconds: how long to measure, by the frames' times.

    Raises:
        SourceError: the camera was lost, or did not see the window.
        SinkError: the window is gone.
    """
    arrivals = Arrivals(1 / source.fps if source.fps else None)
    times: list[float] = []
    grids: list[NDArray[np.float32]] = []
    begun: float | None = None
    for frame in source:
        window.check()
        time = arrivals.see(frame.time)
        begun = time if begun is None else begun
        if time - begun >= LEAD + seconds:
            break
        if time - begun >= LEAD:
            times.append(time)
            grids.append(brightness(frame.image))
    return estimate(window.changes.copy(), times, grids)


def brightness(image: Image) -> NDArray[np.float32]:
    """Mean brightness of each cell, float32 [rows, columns], of a picture uint8 [H, W, 3]."""
    rows, columns = GRID
    small = cv2.resize(image, (4 * columns, 4 * rows), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)
    return cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def estimate(changes: ArrayLike, times: ArrayLike, grids: ArrayLike) -> Delay:
    """Estimate a camera's delay.

    Args:
        changes: when the window was asked to turn white, black, white, … in seconds. It starts black.
        times: the frames' times, in seconds on the same clock.
        grids: the frames' brightness, [N, rows, columns].

    Raises:
        SourceError: the window was not seen, or it blinked too few times.
    """
    field, at = np.asarray(changes, float), np.asarray(times, float)
    shown = int(((field > at[0]) & (field < at[-1])).sum()) if len(at) else 0
    if shown < LEAST or len(at) < 2 * shown:
        raise SourceError(f"too few: {len(at)} frames, {shown} changes of the window (measure longer: --duration 20)")
    cells = np.asarray(grids, float).reshape(len(at), -1)  # [N, C]
    delays = np.arange(0.0, LONGEST + _COARSE / 2, _COARSE)
    interval = float(np.median(np.diff(at)))
    changed = _unit(_changes(field, at, delays, interval), axis=1)  # [D, N - 1]
    alike = changed @ _unit(_bounded(cells, shown), axis=0)  # [D, C]
    best = int(alike.max(axis=1).argmax())
    signal = cells[:, alike[best] >= max(_ALIKE, _CELLS * alike.max())]  # [N, cells that show the window]
    if not signal.size:
        raise SourceError(f"the blinking window was not seen ({_AIM})")
    light = signal.mean(axis=1)
    seen = _bounded(light, shown)
    coarse = _certain(_changes(field, at, delays, interval), seen, delays)
    fine = np.arange(max(coarse - _NEAR, 0.0), coarse + _NEAR, _FINE)
    fits = np.array([_unit(_changes(field, at, fine, exposure), axis=1) @ seen for exposure in _EXPOSURES])
    delay = float(fine[np.unravel_index(fits.argmax(), fits.shape)[1]])
    single, possible = _single(field + delay, at, light)
    if len(single) < _SHARE * possible:
        raise SourceError(f"only {len(single)} of {possible} changes of the window were seen ({_AIM})")
    if len(single) < LEAST:
        raise SourceError(f"too few: the window was seen at {len(single)} changes (measure longer: --duration 20)")
    low, high = np.percentile(single, (5, 95)) + delay
    return Delay(delay, float(low), float(high), len(single), possible, interval)


def expected(changes: Floats, times: Floats, exposure: float) -> Floats:
    """Brightness of the window, 0 … 1, averaged over ``exposure`` seconds around each of ``times`` (any shape)."""
    return (_white(changes, times + exposure / 2) - _white(changes, times - exposure / 2)) / exposure


def _white(changes: Floats, times: Floats) -> Floats:
    """Total seconds that the window was white before ``times``: from its first change to its second, and so on."""
    white = np.arange(len(changes)) % 2 == 0
    before = np.concatenate([[0.0], np.cumsum(np.where(white[:-1], np.diff(changes), 0.0))])  # [B], up to each change
    last = np.searchsorted(changes, times, side="right") - 1
    index = np.maximum(last, 0)
    since = np.where(white[index], times - changes[index], 0.0)
    lit: Floats = np.where(last < 0, 0.0, before[index] + since)
    return lit


def _changes(changes: Floats, times: Floats, delays: Floats, exposure: float) -> Floats:
    """How the window's brightness changes from frame to frame, [D, N - 1], for each delay."""
    return np.diff(expected(changes, times - delays[:, None], exposure), axis=1)


def _bounded(light: Floats, shown: int) -> Floats:
    """Changes of brightness [N] or [N, C] from frame to frame. Rare large ones are clipped to the size of a blink."""
    steps = np.diff(light, axis=0)
    most = np.quantile(np.abs(steps), max(0.0, 1 - shown / 2 / len(steps)), axis=0)
    bounded: Floats = np.clip(steps, -most, most)
    return bounded


def _unit(vectors: Floats, axis: int) -> Floats:
    """Scale to length 1."""
    scaled: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=axis, keepdims=True), 1e-9)
    return scaled


def _certain(changed: Floats, seen: Floats, delays: Floats) -> float:
    """The delay that fits best, given the changes [D, N - 1] expected at each.

    Raises:
        SourceError: none fits well, another one fits almost as well, or the halves of the recording disagree.
    """
    alike = _unit(changed, axis=1) @ _unit(seen, axis=0)
    best = float(delays[alike.argmax()])
    other = alike[np.abs(delays - best) > _APART].max()
    half = len(seen) // 2
    halves = [_unit(changed[:, part], axis=1) @ seen[part] for part in (slice(half), slice(half, None))]
    differ = max(abs(float(delays[part.argmax()]) - best) for part in halves)
    if alike.max() < _ALIKE or other > _ELSEWHERE * alike.max() or differ > _AGREE:
        raise SourceError(f"the blinking window was not seen well enough ({_AIM})")
    return best


def _single(due: Floats, times: Floats, light: Floats) -> tuple[Floats, int]:
    """Measure single changes. Returns the lateness in seconds of each one seen, and how many could be seen.

    The missing part of a change falls from 1 to 0 over some frames. The area under it is the time from the first of
    these frames to the change.
    """
    found: list[tuple[float, float]] = []  # step, lateness
    for number in range(1, len(due) - 1):
        before = (times > due[number - 1] + _SETTLED) & (times < due[number] - _SETTLED / 2)
        after = (times > due[number] + _SETTLED) & (times < due[number + 1] - _SETTLED / 2)
        if not (before.any() and after.any()):
            continue
        first, last = np.flatnonzero(before)[-1], np.flatnonzero(after)[0]
        old, new = np.median(light[before]), np.median(light[after])
        part = (light[first : last + 1] - old) / (new - old if new != old else 1.0)
        part[[0, -1]] = 0.0, 1.0
        when, missing = times[first : last + 1], 1 - np.clip(part, 0, 1)
        area = float(np.sum(np.diff(when) * (missing[:-1] + missing[1:]) / 2))
        found.append((float(new - old) * (1 if number % 2 == 0 else -1), float(when[0]) + area - float(due[number])))
    if not found:
        return np.empty(0), 0
    steps, late = np.array(found).T
    return late[steps > _STEP * max(float(np.median(steps)), 1e-9)], len(found)
