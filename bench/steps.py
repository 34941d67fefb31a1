"""The cost of a step. Cases alternate, so that slow phases of the machine affect all of them. Every sample is kept.

A turn (``TURN``) is long enough for clocks and caches to settle. It is short compared with the machine's slow phases,
which last seconds. With several cases the first iteration of a turn is discarded, because the caches still hold another
case's weights. Every second round runs the cases in reverse order, so that a drift does not favour the first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from framecast.camera import DEFAULT_FPS, Image
from framecast.clock import SYSTEM, Clock
from framecast.errors import OptionError
from framecast.graph.manifest import Manifest
from framecast.runtime.convert import Tensor, blank_frame
from framecast.runtime.engines import Engine
from framecast.runtime.engines.device import DeviceEngine
from framecast.runtime.resize import resize
from framecast.runtime.stepper import Stepper

TURN = 0.25  # minimum seconds of a turn
LEAST = 5  # minimum iterations of a turn
BACK_TO_BACK = 20  # steps on a device between two waits for the device


@dataclass(frozen=True)
class Case:
    """Something to measure.

    Attributes:
        name: unique name, shown in tables.
        iterate: runs one iteration, and returns the milliseconds of its parts by name (may be empty).
        warmup: minimum iterations before a measurement; the first ones are not typical.
        idle: runs after each iteration and is not timed: the work that a live loop does while it waits for a frame.
    """

    name: str
    iterate: Callable[[], Mapping[str, float]]
    warmup: int = LEAST
    idle: Callable[[], object] = lambda: None

    def once(self) -> None:
        """Iterate without a measurement."""
        self.iterate()
        self.idle()


@dataclass
class Series:
    """A case's samples in order.

    Attributes:
        name: name of the case.
        starts: start of each sample, in seconds since the measurement began.
        milliseconds: duration of each sample.
        rounds: round of each sample, from 0.
        parts: milliseconds of each part by its name, one value per sample.
    """

    name: str
    starts: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)

    def take(self, case: Case, number: int, zero: float, clock: Clock) -> float:
        """Measure one iteration of round ``number``; return its seconds. The measurement began at ``zero``."""
        begun = clock.now()
        parts = case.iterate()
        spent = clock.now() - begun
        case.idle()
        self.starts.append(begun - zero)
        self.milliseconds.append(1e3 * spent)
        self.rounds.append(number)
        for name, value in parts.items():
            self.parts.setdefault(name, []).append(value)
        return spent

    def by_round(self) -> list[list[float]]:
        """Return the latencies of each round, in milliseconds."""
        grouped: dict[int, list[float]] = {}
        for number, value in zip(self.rounds, self.milliseconds, strict=True):
            grouped.setdefault(number, []).append(value)
        return list(grouped.values())


def measure(
    cases: Sequence[Case],
    *,
    warmup: float = 0.2,
    duration: float = 3.0,
    iterations: int = 10,
    clock: Clock = SYSTEM,
    advance: Callable[[float], None] | None = None,
) -> list[Series]:
    """Measure cases alternately until each has run for ``duration`` and at least ``iterations`` times.

    Args:
        cases: the cases, with different names.
        warmup: seconds that each case runs before the measurement starts.
        duration: minimum seconds of samples per case.
        iterations: minimum samples per case.
        clock: measures the time.
        advance: called after every turn with the progress, 0 to 1.

    Raises:
        OptionError: there is no case, two cases have the same name, or a number is out of range.
        FramecastError: a case raised it.
    """
    if not cases or len({case.name for case in cases}) < len(cases):
        raise OptionError("nothing to measure, or two cases with the same name: give each case its own name")
    if warmup < 0 or duration < 0 or iterations < 1:
        raise OptionError("warmup and duration must be 0 or more, and iterations at least 1")
    for case in cases:
        warm_up(case, warmup, clock)
    zero = clock.now()
    series = [Series(case.name) for case in cases]
    taken = [0.0] * len(cases)  # seconds of samples
    number = 0
    while min(taken) < duration or any(len(one.starts) < iterations for one in series):
        order = range(len(cases)) if number % 2 == 0 else reversed(range(len(cases)))
        for index in order:
            if len(cases) > 1:
                cases[index].once()
            taken[index] += _turn(cases[index], series[index], number, zero, clock)
            if advance is not None:
                advance(_share(taken, duration, series, iterations))
        number += 1
    return series


def warm_up(case: Case, seconds: float, clock: Clock) -> None:
    """Iterate for at least ``seconds`` and at least the case's own number of warm-up iterations."""
    begun, done = clock.now(), 0
    while done < case.warmup or clock.now() - begun < seconds:
        case.once()
        done += 1


def _share(taken: Sequence[float], duration: float, series: Sequence[Series], iterations: int) -> float:
    """Return the progress of the measurement, 0 to 1."""
    of_time = min(taken) / duration if duration else 1.0
    return min(of_time, min(len(one.starts) for one in series) / iterations, 1.0)


def _turn(case: Case, series: Series, number: int, zero: float, clock: Clock) -> float:
    """Measure a case for one turn; return the seconds of its samples."""
    taken, count = 0.0, 0
    while count < LEAST or taken < TURN:
        taken += series.take(case, number, zero, clock)
        count += 1
    return taken


def called(name: str, call: Callable[[], object], idle: Callable[[], object] = lambda: None) -> Case:
    """Return a case that times one call and has no parts; ``idle`` as in :class:`Case`."""

    def iterate() -> Mapping[str, float]:
        call()
        return {}

    return Case(name, iterate, idle=idle)


def live_step(
    name: str,
    engine: Engine,
    frames: Sequence[Image],
    clock: Clock = SYSTEM,
    *,
    interval: float = 1 / DEFAULT_FPS,
    ahead: float | None = None,
) -> Case:
    """Return a case like ``predictor.step`` and ``predictor.at``: from a camera's picture to the predicted one.

    If the engine runs on the host, the parts are ``picture in`` (resizing, colour, layout), ``step`` and
    ``picture out`` (check, clamping, layout). If the engine has a device, they are ``enqueue`` (until the host is free
    again) and ``wait, download``. A model that takes no pictures gets float frames made from ``frames``, and has no
    parts.

    Args:
        name: name of the case.
        engine: runs the step; its owner closes it.
        frames: uint8 [H, W, 3] BGR; they repeat.
        clock: measures the parts.
        interval: seconds between two frames.
        ahead: how many seconds ahead the predicted picture is (default: one interval). A model without pictures always
            predicts its next frame.

    Raises:
        OptionError: there is no frame.
        EngineError: the engine cannot make a state.
    """
    if not frames:
        raise OptionError("no frame to measure with: name a clip that has frames")
    stepper = Stepper(engine, clock=clock)
    warmup = LEAST + binding_steps(engine.manifest)
    if not engine.manifest.is_picture:
        tensors = itertools.cycle([floats(image, engine.manifest) for image in frames])

        def step() -> Mapping[str, float]:
            stepper.step(next(tensors))
            return {}

        return Case(name, step, warmup, idle=stepper.precompute)
    images = itertools.cycle(frames)
    has_device = _has_device(engine)

    def iterate() -> Mapping[str, float]:
        stepper.advance([next(images)], interval)
        (pictures,) = stepper.at([interval if ahead is None else ahead], interval)
        if pictures is None:  # as the predictor does; random weights can diverge
            stepper.reset()
        times = stepper.times
        if has_device:
            parts = {"enqueue": times.picture_in + times.step, "wait, download": times.picture_out}
        else:
            parts = {"picture in": times.picture_in, "step": times.step, "picture out": times.picture_out}
        return {part: 1e3 * seconds for part, seconds in parts.items()}

    return Case(name, iterate, warmup, idle=stepper.precompute)


def binding_steps(manifest: Manifest) -> int:
    """Return how many steps bind all buffers: once per phase of the ring, and again after a reset."""
    return 3 * manifest.slots


def floats(image: Image, manifest: Manifest) -> Tensor:
    """Return a picture as a float frame [1, C, H, W] in the model's value range. Its channels repeat to fill C."""
    (low, high), (width, height) = manifest.value_range, manifest.size
    frame = blank_frame(manifest)
    planes = resize(image, manifest.size)[..., np.arange(manifest.frame[0]) % 3].transpose(2, 0, 1)
    frame[0, :, :height, :width] = low + planes * np.float32((high - low) / 255)
    return frame


def on_device(engine: Engine, frames: Sequence[Image], clock: Clock = SYSTEM) -> dict[str, float]:
    """Measure the device's work on its own: medians in milliseconds; empty if the step runs on the host.

    ``step, back to back``: time per step when many steps are enqueued without waiting, including uploads. This is the
    device's time, unless enqueueing takes longer. ``transfers alone``: upload and download of one picture without a
    step, if the engine's buffers can be used on their own.
    """
    if not _has_device(engine) or not engine.manifest.is_picture:
        return {}
    stepper = Stepper(engine)

    def enqueued() -> None:
        for image in itertools.islice(itertools.cycle(frames), BACK_TO_BACK):
            stepper.advance([image])
        stepper.render()

    found = {"step, back to back": _median(enqueued, clock) / BACK_TO_BACK}
    if isinstance(engine, DeviceEngine):
        width, height = engine.camera or engine.manifest.size
        picture = np.zeros((1, height, width, 3), np.uint8)
        buffer = engine.allocate(picture.shape, np.uint8)

        def there_and_back() -> None:
            buffer.upload(picture)
            buffer.download()

        found["transfers alone"] = _median(there_and_back, clock)
    return found


def _has_device(engine: Engine) -> bool:
    return isinstance(engine, DeviceEngine) or engine.device != "cpu"


def _median(call: Callable[[], None], clock: Clock, times: int = 5) -> float:
    """Return the median milliseconds of a call, after one warm-up call."""
    call()
    taken = []
    for _ in range(times):
        begun = clock.now()
        call()
        taken.append(1e3 * (clock.now() - begun))
    return float(np.median(taken))
