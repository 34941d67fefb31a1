"""A camera on a virtual clock that breaks on a planted schedule, for ``day.py``."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from framecast.camera import Image, Source
from framecast.camera.live import LiveSource
from framecast.errors import SourceUnavailableError
from framecast.runtime.convert import Tensor
from framecast.runtime.engines import State
from framecast.testing import TrendEngine, VirtualClock

FPS = 30
STALL = 2.5  # seconds, as ``framecast run --stall``
DELAY = 0.01  # seconds from a picture to its arrival
SLOW = 0.09  # seconds of a slow step
# Pixels after which a scene begins anew, without a seam: a scene that turned would look for a moment as if it stood
# still, where every other picture is dropped. Both begin anew at once every two minutes.
DOWN, ACROSS = 46, 159
GRAIN = 8  # pixels between two bright or dark places
SIZES = ((24, 32), (36, 48))
HOUR, YEAR = 3600.0, 365 * 86400.0

LOST = (
    "it dies",
    "it ends",
    "it freezes",
    "it answers slowly",
    "it comes back at another size",
    "the machine is suspended",
)
"""Faults that end the connection: each is a reconnection, and a new stream."""

KINDS = (
    *LOST,
    "its size changes",
    "a gap",
    "pictures lost on the way",
    "damaged pictures",
    "repeated pictures",
    "another scene",
    "a late burst",
    "a slow model",
    "a prediction is not finite",
    "its clock steps",
)


@dataclass(frozen=True)
class Fault:
    """A planted fault.

    Attributes:
        kind: one of ``KINDS``.
        tick: the number of the picture at which it begins, of those that the sensor takes.
        count: how many pictures it concerns.
        seconds: how long it lasts, or by how much the clock steps.
    """

    kind: str
    tick: int
    count: int = 0
    seconds: float = 0.0


def planted(faults: int, apart: float, seed: int = 17) -> tuple[list[Fault], int]:
    """A schedule with all kinds in turn, and the number of pictures that the sensor takes.

    Args:
        faults: how many.
        apart: seconds between two of them; the longest outage takes a third of that.
        seed: of the random parts.
    """
    chance, schedule = random.Random(seed), []
    for number in range(faults):
        kind = KINDS[number % len(KINDS)]
        tick = round(FPS * apart * (number + 0.5 + chance.uniform(-0.1, 0.1)))
        count, seconds = chance.randint(1, 2), chance.uniform(0.3, apart / 3)
        if kind == "a gap":
            seconds = chance.uniform(1.1, STALL - 0.2)  # a shorter one counts from its second frame on
        elif kind == "repeated pictures":
            count = chance.randint(1, 5)
        elif kind == "a late burst":
            count = 3
        elif kind in ("it freezes", "it answers slowly"):
            seconds = max(seconds, STALL + 0.1)
        elif kind == "its clock steps":
            seconds = chance.choice((HOUR, -HOUR, 10 * YEAR, -10 * YEAR, 30.0, -30.0))
            count = FPS * 2
        elif kind == "the machine is suspended":
            seconds = chance.uniform(2.0, 8 * HOUR)
        schedule.append(Fault(kind, tick, count, seconds))
    return schedule, round(FPS * apart * faults)


class Camera:
    """A sensor that takes a picture every thirtieth of a second, whether or not somebody is connected.

    Args:
        clock: a virtual one.
        schedule: the faults.
        ticks: pictures that the sensor takes; then it calls ``over``.
        engine: the model, whose faults are planted here as well.

    Attributes:
        happened: the faults so far.
        delivered: the number of the picture in each delivered frame, in order.
        shape: of each picture now: an index of ``SIZES``.
        fate: what became of the pictures that were not delivered, counted by reason.
        silences: when each frame came that followed more than a second without one, and the one before it.
        over: called at the end.
        expired: whether to end now.
    """

    def __init__(self, clock: VirtualClock, schedule: list[Fault], ticks: int, engine: DayEngine) -> None:
        self.clock, self.engine = clock, engine
        self.begun = clock.now()
        self.happened: list[Fault] = []
        self.delivered = array("q")
        self.fate: Counter[str] = Counter()
        self.silences: list[tuple[float, float]] = []
        self.over: Callable[[], object] = lambda: None
        self.expired: Callable[[], bool] = lambda: False
        self.size = self.scene = 0
        self.tick, self.ticks = 0, ticks
        self._faults = {fault.tick: fault for fault in schedule}
        self._away = -1.0  # until when it does not answer
        self._slow = False  # whether its next answer takes two seconds
        self._arrived: float | None = None
        noise = np.random.default_rng(3).integers(0, 256, (DOWN // GRAIN, ACROSS // GRAIN, 3), np.uint8)
        tiled = cv2.resize(np.tile(noise, (3, 3, 1)), (3 * ACROSS, 3 * DOWN), interpolation=cv2.INTER_CUBIC)
        scene = tiled[DOWN:, ACROSS:]
        self._scenes = (scene, 255 - scene)  # nowhere alike: two scenes by chance are, here and there

    def moment(self, tick: int) -> float:
        """When a picture is taken, in seconds on the clock."""
        return self.begun + tick / FPS

    def picture(self, tick: int, size: int, scene: int) -> Image:
        """The picture of a moment: a scene that moves by a pixel, across and down."""
        height, width = SIZES[size]
        y, x = tick % DOWN, tick % ACROSS
        return np.ascontiguousarray(self._scenes[scene % 2][y : y + height, x : x + width], np.uint8)

    def open(self) -> Source:
        """Connect: see :class:`framecast.camera.reconnect.Reconnecting`."""
        if self.clock.now() < self._away or self.tick >= self.ticks:
            raise SourceUnavailableError("no stream from the camera (connection refused)")
        if self._slow:
            self._slow = False
            self.clock.wait_until(self.clock.now() + 2.0)
        while self.tick < self.ticks and self.moment(self.tick) < self.clock.now():
            self.fate["away" if self.moment(self.tick) < self._away else "not opened yet"] += 1
            self.tick += 1
        faults: Counter[str] = Counter()
        connection = _Connection(self, faults)
        return LiveSource(
            "the camera", connection, FPS, patience=STALL, cure="wait", clock=self.clock, faults=faults, notes=[]
        )

    def fault(self) -> Fault | None:
        """The fault that begins now, once."""
        return self._faults.pop(self.tick, None)

    def leave(self, seconds: float, *, slow: bool = False) -> None:
        """Do not answer for so many seconds."""
        self._away, self._slow = self.clock.now() + seconds, slow

    def arrive(self, tick: int) -> None:
        """A frame was delivered."""
        now = self.clock.now()
        if self._arrived is not None and now - self._arrived > 1.0:
            self.silences.append((self._arrived, now))
        self._arrived = now
        self.delivered.append(tick)


class _Connection:
    """One connection: a :class:`framecast.camera.live.Capture`."""

    def __init__(self, camera: Camera, faults: Counter[str]) -> None:
        self._camera, self._faults = camera, faults
        self._held = 0  # pictures that come late, at once
        self._repeats = self._astray = 0  # pictures that this still concerns
        self._step = 0.0  # of the clock, in seconds
        self._stamp = 0.0
        self._reason = "it ended"
        self._stale = False
        self._before: Image | None = None
        self._current: Image | None = None
        self._tick = 0

    def grab(self) -> bool:
        camera = self._camera
        fault = camera.fault()
        if fault is not None:
            camera.happened.append(fault)
            if not self._begin(fault):
                return False
        if camera.tick >= camera.ticks or camera.expired():
            camera.ticks = camera.tick
            camera.over()
            self._reason = "the day is over"
            return False
        self._tick = camera.tick
        camera.tick += 1
        if self._held:
            self._held -= 1
        else:
            camera.clock.wait_until(camera.moment(self._tick) + DELAY)
        self._current = camera.picture(self._tick, camera.size, camera.scene)
        if self._repeats and self._before is not None:
            self._repeats -= 1
            self._current = self._before.copy()
        self._stamp = camera.moment(self._tick) + (self._step if self._astray else 0.0)
        self._astray = max(0, self._astray - 1)
        return True

    def _begin(self, fault: Fault) -> bool:
        """Begin a fault; False if it ends the connection at once."""
        camera, clock = self._camera, self._camera.clock
        clock.wait_until(camera.moment(fault.tick) - 0.4 / FPS)
        match fault.kind:
            case "it dies" | "it answers slowly" | "it comes back at another size":
                camera.leave(fault.seconds, slow=fault.kind == "it answers slowly")
                if fault.kind == "it comes back at another size":
                    camera.size = 1 - camera.size
                self._reason = "it broke off"
                return False
            case "it ends":
                return False
            case "it freezes":  # the read times out, and gives a picture that the decoder had held back
                camera.leave(fault.seconds)
                clock.wait_until(clock.now() + STALL)
                camera.fate["held back in a read that timed out"] += 1
            case "the machine is suspended":  # this frame may be older than it seems
                clock.suspended += fault.seconds
                camera.fate["read before the machine was suspended"] += 1
                self._stale = True
            case "its size changes":
                camera.size = 1 - camera.size
            case "a gap":
                self._skip(round(FPS * fault.seconds), "in a gap")
            case "pictures lost on the way":
                self._skip(fault.count, "lost on the way")
            case "damaged pictures":
                self._faults["damaged"] += fault.count
                self._skip(fault.count, "damaged")
            case "repeated pictures":
                self._repeats = fault.count
            case "another scene":
                camera.scene += 1
            case "a late burst":
                clock.wait_until(camera.moment(fault.tick + fault.count - 1) + DELAY)
                self._held = fault.count
            case "a slow model":
                camera.engine.slow = 30
            case "a prediction is not finite":
                camera.engine.poison = camera.engine.steps + 1
            case "its clock steps":
                self._step, self._astray = fault.seconds, fault.count
        return True

    def _skip(self, count: int, reason: str) -> None:
        self._camera.tick += count
        self._camera.fate[reason] += count

    def stamp(self) -> float | None:
        return self._stamp

    def retrieve(self) -> Image | None:
        self._before = self._current
        if not self._stale:
            self._camera.arrive(self._tick)
        return self._current

    def reason(self) -> str:
        return self._reason

    def release(self) -> None:
        pass


class DayEngine(TrendEngine):
    """A :class:`TrendEngine` with steps that are slow when the schedule says so.

    Attributes:
        slow: how many of the next steps are slow.
    """

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(0.4, size=SIZES[0])
        self.slow = 0
        self._clock = clock

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """See :meth:`Engine.step`."""
        if self.slow:
            self.slow -= 1
            self._clock.wait_until(self._clock.now() + SLOW)
        return super().step(frame, state_in, state_out)
