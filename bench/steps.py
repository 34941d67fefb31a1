"""What a step costs: cases that take turns, so that the machine's moods fall on all of them, and every sample kept.

A turn is long enough for clocks and caches to settle (``TURN``), and short beside the moods of a machine, which last
seconds. The first iteration of a turn is thrown away where there are several cases: it finds the caches full of another
one's weights. Every second round goes through the cases backwards, so that a drift does not favour the first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from framecast.camera import Image
from framecast.clock import SYSTEM, Clock
from framecast.errors import OptionError
from framecast.graph.manifest import Manifest
from framecast.runtime.convert import Tensor, blank_frame
from framecast.runtime.engines import Engine
from framecast.runtime.engines.device import DeviceEngine
from framecast.runtime.resize import resize
from framecast.runtime.stepper import Stepper

TURN = 0.25  # seconds that a case keeps the machine for
LEAST = 5  # iterations of a turn, however long they take
BACK_TO_BACK = 20  # steps on a device between two waits for it


@dataclass(frozen=True)
class Case:
    """Something to be measured.

    Attributes:
        name: shown, and told apart by it.
        iterate: does it once, and returns the milliseconds of its parts by name (or of none).
        warmup: iterations before which it is not itself, however long they take.
        idle: done after each iteration, and not in its time: what a live loop does until the next frame is there.
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
    """A case's samples in the order in which they were taken.

    Attributes:
        name: of the case.
        starts: when each began, in seconds since the measuring began.
        milliseconds: how long each took.
        rounds: in which round each was taken, from 0.
        parts: milliseconds of each by the part's name.
    """

    name: str
    starts: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)

    def take(self, case: Case, number: int, zero: float, clock: Clock) -> float:
        """Measure one iteration in a round; returns its seconds. ``zero`` is when the measuring began."""
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
        """The latencies of each round, in milliseconds."""
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
    """Measure cases in turns, until each has been measured for ``duration`` and ``iterations`` times at least.

    Args:
        cases: what takes turns; their names differ.
        warmup: seconds of each before anything is measured.
        duration: seconds of samples of each.
        iterations: samples of each.
        clock: measures.
        advance: told after every turn what share, 0 … 1, is done.

    Raises:
        OptionError: no case, two of one name, or a number that is out of its range.
        FramecastError: what a case raises.
    """
    if not cases or len({case.name for case in cases}) < len(cases):
        raise OptionError("nothing to measure, or the same twice: name every model and engine once")
    if warmup < 0 or duration < 0 or iterations < 1:
        raise OptionError("a benchmark takes a warm-up and a duration of 0 or more, and 1 iteration or more")
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
    """Iterate for ``seconds`` and until the case is itself, whichever is later."""
    begun, done = clock.now(), 0
    while done < case.warmup or clock.now() - begun < seconds:
        case.once()
        done += 1


def _share(taken: Sequence[float], duration: float, series: Sequence[Series], iterations: int) -> float:
    """How much of the measuring is done, 0 … 1."""
    of_time = min(taken) / duration if duration else 1.0
    return min(of_time, min(len(one.starts) for one in series) / iterations, 1.0)


def _turn(case: Case, series: Series, number: int, zero: float, clock: Clock) -> float:
    """Measure a case for one turn; returns the seconds of its samples."""
    taken, count = 0.0, 0
    while count < LEAST or taken < TURN:
        taken += series.take(case, number, zero, clock)
        count += 1
    return taken


def called(name: str, call: Callable[[], object], idle: Callable[[], object] = lambda: None) -> Case:
    """A case that is one call, of which no parts are known; ``idle`` as in :class:`Case`."""

    def iterate() -> Mapping[str, float]:
        call()
        return {}

    return Case(name, iterate, idle=idle)


def live_step(name: str, engine: Engine, frames: Sequence[Image], clock: Clock = SYSTEM) -> Case:
    """A live step as ``predictor.step`` does it: from a camera's picture to the predicted one, the state carried on.

    Its parts are ``picture in`` (resizing, colour, layout), ``step`` and ``picture out`` (check, clamping, layout)
    where the engine steps on the host; ``enqueue`` (until the host is free again) and ``wait, download`` where it has a
    device. A model that takes no pictures is stepped on frames of floats made from them, and has no parts.

    Args:
        name: of the case.
        engine: steps; it is left open.
        frames: uint8 [H, W, 3] BGR, one after the other and then again from the first.
        clock: measures the parts.

    Raises:
        OptionError: there is no frame.
        EngineError: it cannot make a state.
    """
    if not frames:
        raise OptionError("no frame to measure with: name a clip that has some")
    stepper = Stepper(engine, clock=clock)
    warmup = LEAST + 3 * engine.manifest.slots  # buffers are bound once a phase of the ring, and again after a reset
    if not engine.manifest.is_picture:
        tensors = itertools.cycle([floats(image, engine.manifest) for image in frames])

        def step() -> Mapping[str, float]:
            stepper.step(next(tensors))
            return {}

        return Case(name, step, warmup, idle=stepper.precompute)
    images = itertools.cycle(frames)
    has_device = _has_device(engine)

    def iterate() -> Mapping[str, float]:
        stepper.advance([next(images)])
        (pictures,) = stepper.render()
        if pictures is None:  # as the predictor does; random weights may come to that
            stepper.reset()
        times = stepper.times
        if has_device:
            parts = {"enqueue": times.picture_in + times.step, "wait, download": times.picture_out}
        else:
            parts = {"picture in": times.picture_in, "step": times.step, "picture out": times.picture_out}
        return {part: 1e3 * seconds for part, seconds in parts.items()}

    return Case(name, iterate, warmup, idle=stepper.precompute)


def floats(image: Image, manifest: Manifest) -> Tensor:
    """A picture as a frame of a model that takes none, [1, C, H, W]: its channels over and over, in its range."""
    (low, high), (width, height) = manifest.value_range, manifest.size
    frame = blank_frame(manifest)
    planes = resize(image, manifest.size)[..., np.arange(manifest.frame[0]) % 3].transpose(2, 0, 1)
    frame[0, :, :height, :width] = low + planes * np.float32((high - low) / 255)
    return frame


def on_device(engine: Engine, frames: Sequence[Image], clock: Clock = SYSTEM) -> dict[str, float]:
    """What an engine's device does, apart, in milliseconds (medians); empty where the step runs on the host.

    ``step, back to back``: a step of many that are enqueued without a wait, with their uploads beside them: what the
    device takes where that is longer than enqueueing. ``transfers alone``: the bytes of a picture up and down again,
    with no step between, where the engine lets its buffers be used alone.
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
    """Milliseconds of a call, after one that does not count."""
    call()
    taken = []
    for _ in range(times):
        begun = clock.now()
        call()
        taken.append(1e3 * (clock.now() - begun))
    return float(np.median(taken))
