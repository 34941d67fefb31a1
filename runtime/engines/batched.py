"""One engine for several cameras: steps that are asked for at the same time run as one batch, where that pays.

Each camera has a seat, which is an engine for its own predictor, with states of one row. For a batch, the rows of these
states are copied into a state of B rows, and back after the step. Whether a batch is faster than B steps, copies
included, is measured once: nearly always on a GPU, rarely on a CPU.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np

from framecast.camera import Image
from framecast.clock import SYSTEM, Clock
from framecast.errors import EngineError
from framecast.runtime.convert import Tensor
from framecast.runtime.engines.engine import Buffer, Engine, Moment, State

WAIT = 2e-3  # seconds that a step may wait for those of other cameras
MOST = 16  # rows of a batch
PAYS = 0.9  # a batch is used if it takes less than this share of the time of single steps
RUNS, LONG = 3, 8.0  # measured steps of a size, the fastest counts; seconds of all that end the measurement


@dataclass(eq=False)
class _Asked:
    """A camera's place in the queue for the engine, for a call that is no step."""

    changed: threading.Condition
    called: bool = False  # whether it is its turn, or its step is done
    batch: Sequence[_Asked] = ()  # whose steps it must run, itself among them


@dataclass(eq=False)
class _Step(_Asked):
    """A step that a camera asks for."""

    seat: int = 0
    images: Sequence[Image] = ()
    pair: tuple[State, State] = ()  # type: ignore[assignment]
    latest: float = 0.0  # until then it may wait for others
    failure: Exception | None = None


class Batcher:
    """Shares an engine between cameras, in any number of threads.

    They get it in the order in which they ask for it, for one call each: a step, alone or with others, or a part of a
    lookahead. So no camera waits for more than one call of each other one, however far that one looks ahead.

    Args:
        engine: runs the steps; its owner closes it.
        wait: seconds that a step may wait for those of other cameras, but never until its camera's next frame is due.
        clock: for waiting, and for :meth:`measure`.

    Attributes:
        cost: seconds of a step by batch size, once measured. Only these sizes are used.
        batches: how many steps of each size have run.
        single: why all steps are single ones; "" if they need not be.
    """

    def __init__(self, engine: Engine, *, wait: float = WAIT, clock: Clock = SYSTEM) -> None:
        self.engine = engine
        self.cost: dict[int, float] = {1: 1.0}
        self.batches: dict[int, int] = {}
        self.single = ""
        self._wait, self._clock = wait, clock
        self._guard = threading.Lock()  # of all that follows
        self._seats = 0
        self._numbers = itertools.count()
        self._waiting: list[_Asked] = []  # in the order in which they asked
        self._busy = False
        self._states: dict[int, tuple[State, State]] = {}

    def seat(self) -> Seat:
        """An engine for one more camera; closing it frees its seat."""
        with self._guard:
            self._seats += 1
            return Seat(self, next(self._numbers))

    def leave(self) -> None:
        """Free a seat: from now on no step waits for it."""
        with self._guard:
            self._seats -= 1
        self._go_on()

    def measure(self, most: int) -> None:
        """Measure steps of 1, 2, 4, … rows on random pictures, up to ``most``, until they take long.

        It stays at 1 without batches, if built for single steps, and for motion: its cameras differ in ``elapsed``.

        Raises:
            EngineError: a step failed.
        """
        engine = self.engine
        if not engine.batches or engine.manifest.renders == "moments":
            self.single = f"{engine.name} steps one camera of {engine.manifest.config} at a time"
            return
        powers = [1 << power for power in range(min(most, MOST).bit_length())]
        sizes = [size for size in powers if engine.runs(size)]
        if sizes == [1] != powers:
            self.single = f"the engine was built for one camera: 'framecast build --batch {powers[-1]}' builds another"
        width, height = engine.camera or engine.manifest.size
        random, spent = np.random.default_rng(0), 0.0
        for size in sizes:
            pairs = [(engine.new_state(), engine.new_state()) for _ in range(size)]
            images = [random.integers(0, 256, (height, width, 3), np.uint8) for _ in range(size)]
            taken = []
            for _ in range(RUNS + 1):  # the first one warms up
                begun = self._clock.now()
                self._together([self._asked([image], pair) for image, pair in zip(images, pairs, strict=True)])
                for _, state in pairs:
                    engine.render(state, (1,))  # a device has finished only then
                taken.append(self._clock.now() - begun)
                pairs = [(after, before) for before, after in pairs]
            self.cost[size] = min(taken[1:])
            spent += sum(taken[1:])  # the first step may compile
            if spent > LONG:
                break
        single, measured = self.cost[1], len(self.cost)
        self.cost = {size: cost for size, cost in self.cost.items() if size == 1 or cost < PAYS * size * single}
        if len(self.cost) == 1 < len(sizes):
            why = "as long as single ones" if measured > 1 else "too long to measure"
            self.single = f"a step of several cameras takes {why}"

    def best(self, count: int) -> int:
        """The size of the next batch if ``count`` steps wait: the first of those that take least time together."""
        least: list[tuple[float, int]] = [(0.0, 0)]
        for n in range(1, count + 1):
            least.append(min((least[n - size][0] + cost, -size) for size, cost in self.cost.items() if size <= n))
        return -least[count][1]

    def step(self, seat: int, images: Sequence[Image], state_in: State, state_out: State, due: float) -> None:
        """Step the state of the camera in a seat, together with others if they come in time and before ``due``.

        Errors as for :meth:`Engine.run`.
        """
        latest = min(self._clock.now() + self._wait, due) if len(self.cost) > 1 else 0.0
        step = self._asked(images, (state_in, state_out), seat, latest)
        self._queue(step, step.latest)
        if step.batch:
            batch = [one for one in step.batch if isinstance(one, _Step)]
            try:
                with self.engine.lock:
                    self._run(batch)
            finally:
                with self._guard:
                    self.batches[len(batch)] = self.batches.get(len(batch), 0) + 1
                self._leave_to_next()
                for other in batch:
                    self._call(other)
        if step.failure is not None:
            raise step.failure

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The engine for one call that is no step."""
        self._queue(_Asked(self._clock.condition()))
        try:
            with self.engine.lock:
                yield
        finally:
            self._leave_to_next()

    def _asked(self, images: Sequence[Image], pair: tuple[State, State], seat: int = 0, latest: float = 0.0) -> _Step:
        return _Step(self._clock.condition(), seat=seat, images=images, pair=pair, latest=latest)

    def _queue(self, asked: _Asked, latest: float = 0.0) -> None:
        """Wait until it is the turn of ``asked``, or until another thread has run its step."""
        with self._guard:
            self._waiting.append(asked)
        self._go_on()
        with asked.changed:
            while not asked.called and self._clock.now() < latest:
                self._clock.wait(asked.changed, latest)
        self._go_on()
        with asked.changed:
            while not asked.called:
                self._clock.wait(asked.changed)

    def _leave_to_next(self) -> None:
        with self._guard:
            self._busy = False
        self._go_on()

    def _go_on(self) -> None:
        """Give the engine to who asked first, if it is free. Steps that may still wait for others do not count."""
        with self._guard:
            steps = [one for one in self._waiting if isinstance(one, _Step)]
            waits = len(steps) < self._seats and self._clock.now() < min((one.latest for one in steps), default=0.0)
            first = next((one for one in self._waiting if not (waits and isinstance(one, _Step))), None)
            if self._busy or first is None:
                return
            batch = steps[: self.best(len(steps))] if isinstance(first, _Step) else [first]
            self._waiting = [one for one in self._waiting if one not in batch]
            self._busy = True
            # A library may round the rows of a batch differently, so who was first does not decide a row.
            first.batch = sorted(batch, key=lambda one: one.seat if isinstance(one, _Step) else 0)
        self._call(first)

    @staticmethod
    def _call(asked: _Asked) -> None:
        with asked.changed:
            asked.called = True
            asked.changed.notify_all()

    def _run(self, batch: Sequence[_Step]) -> None:
        """Run a batch. If it fails, run each step alone, so that one camera's failure is not another's."""
        try:
            self._together(batch)
        except Exception as error:  # noqa: BLE001 (each camera's own thread raises its own)
            if len(batch) == 1:
                batch[0].failure = error
                return
            for step in batch:
                self._run([step])

    def _together(self, batch: Sequence[_Step]) -> None:
        engine, size = self.engine, len(batch)
        if size == 1:
            (step,) = batch
            engine.take(step.images, step.pair[1])
            engine.run(*step.pair)
            return
        if size not in self._states:
            self._states[size] = _distinct(engine, size), engine.new_state(size)
        before, after = self._states[size]
        for row, step in enumerate(batch):
            self._gather(step.pair[0], before, row)
        before.is_precomputed = all(step.pair[0].is_precomputed for step in batch)
        engine.take([image for step in batch for image in step.images], after)
        engine.run(before, after)
        for row, step in enumerate(batch):
            self._scatter(after, row, *step.pair)

    def _gather(self, state: State, batch: State, row: int) -> None:
        """Copy all that a step reads from a camera's state to a row of a batch."""
        pairs = [(state.tensors, batch.tensors), (state.precomputed, batch.precomputed)]
        pairs += [(old.tensors, new.tensors) for old, new in zip(state.past, batch.past, strict=True)]
        for source, target in pairs:
            for name, buffer in source.items():
                self.engine.copy_row(buffer, 0, target[name], row)
        self.engine.gathered(state, batch, row)

    def _scatter(self, batch: State, row: int, state_in: State, state: State) -> None:
        """Copy all that a step wrote from a row of a batch to a camera's state."""
        moment = state.follow(state_in)
        pairs = [(batch.tensors, state.tensors), ({"": batch.prediction}, {"": state.prediction})]
        pairs += [(batch.past[0].tensors, moment.tensors)] if batch.past else []
        for source, target in pairs:
            for name, buffer in source.items():
                self.engine.copy_row(buffer, row, target[name], 0)
        state.seen = batch.seen[row : row + 1]
        self.engine.scattered(batch, row, state)


class Shared:
    """The engines of several cameras: seats at one, or one for each camera if it holds no weights.

    Args:
        opens: opens an engine. :meth:`close` closes what was opened.
        wait: see :class:`Batcher`.
        clock: for waiting.

    Attributes:
        engine: the shared one, or the first camera's.
        batcher: of the shared one; None if each camera has its own.
        opened: how many engines were opened.

    Raises:
        EngineError: the engine is not available on this machine.
    """

    def __init__(self, opens: Callable[[], Engine], *, wait: float = WAIT, clock: Clock = SYSTEM) -> None:
        self._opens, self._stack, self.opened = opens, ExitStack(), 0
        self.engine = self._open()
        self._free: list[Engine] = [self.engine]
        self.batcher = None if self.engine.light else Batcher(self.engine, wait=wait, clock=clock)

    def seat(self) -> Engine:
        """An engine for one more camera, which closes it."""
        if self.batcher is not None:
            return self.batcher.seat()
        return self._free.pop() if self._free else self._open()

    def measure(self, most: int) -> None:
        """Measure which batches pay, see :meth:`Batcher.measure`."""
        if self.batcher is not None:
            self.batcher.measure(most)

    def close(self) -> None:
        """Close every engine that is still open. May be called twice."""
        self._stack.close()

    def _open(self) -> Engine:
        engine = self._opens()
        self._stack.callback(engine.close)
        self.opened += 1
        return engine


def _distinct(engine: Engine, batch: int) -> State:
    """A state whose past moments are buffers of their own, because a camera's past is copied into each."""
    past: list[Moment] = []
    while len(past) < engine.manifest.slots:
        past.extend(engine.new_state(batch).own)
    state = engine.new_state(batch)
    state.past = tuple(past[: engine.manifest.slots])
    return state


class Seat(Engine):
    """A camera's share of an engine. Its states have one row. See :class:`Engine`."""

    def __init__(self, batcher: Batcher, number: int) -> None:
        self._batcher: Batcher | None = batcher
        self._queue = batcher.alone
        self._number = number
        self._inner = inner = batcher.engine
        self._taken: Sequence[Image] = ()
        self.name, self.device, self.version = inner.name, inner.device, inner.version
        self.precision, self.manifest = inner.precision, inner.manifest
        # Otherwise a camera would wait for another one's step several times a frame: to step, to render, to be seen.
        self._unless_apart: Callable[[], AbstractContextManager[None]] = nullcontext if inner.apart else batcher.alone
        self.batch, self.camera, self.any_size, self.compiles = 1, inner.camera, inner.any_size, inner.compiles

    def zeros(self, shape: tuple[int, ...]) -> Buffer:
        """See :meth:`Engine.zeros`."""
        return self._inner.zeros(shape)

    def new_state(self, batch: int = 1) -> State:
        """See :meth:`Engine.new_state`."""
        with self._queue():
            return self._inner.new_state(batch)

    def reset(self, state: State, rows: Sequence[int] | None = None) -> None:
        """See :meth:`Engine.reset`."""
        with self._unless_apart():
            self._inner.reset(state, rows)

    def take(self, images: Sequence[Image], state: State) -> None:
        """See :meth:`Engine.take`. The conversion waits for the batch."""
        del state
        self._taken = images

    def run(self, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.run`."""
        if self._batcher is None:
            raise EngineError(f"{self.manifest.config} is closed: load it again")
        self._batcher.step(self._number, self._taken, state_in, state_out, self.due)

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """See :meth:`Engine.step`; alone."""
        with self._queue():
            return self._inner.step(frame, state_in, state_out)

    def precompute(self, state: State) -> None:
        """See :meth:`Engine.precompute`. Without halves there is nothing to wait for."""
        if self.manifest.precomputed:
            with self._queue():
                self._inner.precompute(state)

    def feed_back(self, source: State, k: int, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.feed_back`; alone."""
        with self._queue():
            self._inner.feed_back(source, k, state_in, state_out)

    def render(self, state: State, ahead: Sequence[int]) -> list[list[Image] | None]:
        """See :meth:`Engine.render`."""
        with self._unless_apart():
            return self._inner.render(state, ahead)

    def render_at(self, state: State, ahead: Sequence[float]) -> list[list[Image]]:
        """See :meth:`Engine.render_at`."""
        with self._queue():
            return self._inner.render_at(state, ahead)

    def fit(self, image: Image) -> Image:
        """See :meth:`Engine.fit`."""
        return self._inner.fit(image)

    def seen(self, state: State) -> list[Image]:
        """See :meth:`Engine.seen`."""
        with self._unless_apart():
            return self._inner.seen(state)

    def interrupt(self, reason: str) -> bool:
        """See :meth:`Engine.interrupt`. It ends the shared engine's call, and so every camera's."""
        return self._inner.interrupt(reason)

    def close(self) -> None:
        """Leave the seat. The shared engine stays open."""
        if self._batcher is not None:
            self._batcher.leave()
            self._batcher = None
