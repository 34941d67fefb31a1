"""One engine for several cameras: steps that are asked for at the same time run as one batch, where that pays.

Each camera has a seat, which is an engine for its own predictor, with states of one row. For a batch, the rows of these
states are copied into a state of B rows, and back after the step. Whether a batch is faster than B steps, copies
included, is measured once: nearly always on a GPU, rarely on a CPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace

import numpy as np

from framecast.camera import Image
from framecast.clock import SYSTEM, Clock
from framecast.errors import EngineError
from framecast.runtime.convert import Tensor
from framecast.runtime.engines.engine import Buffer, Engine, Moment, State

WAIT = 2e-3  # seconds that a step may wait for those of other cameras
MOST = 16  # rows of a batch
PAYS = 0.9  # a batch is used if it takes less than this share of the time of single steps
RUNS = 3  # steps of each batch size in the measurement; the fastest counts


@dataclass(eq=False)
class _Step:
    """A step that a camera asks for."""

    seat: int
    images: Sequence[Image]
    state_in: State
    state_out: State
    latest: float  # until then it may wait for others
    done: bool = False
    failure: Exception | None = None


class Batcher:
    """Shares an engine between cameras, in any number of threads.

    Args:
        engine: runs the steps; its owner closes it.
        wait: seconds that a step may wait for those of other cameras. It never waits longer than its camera's interval.
        clock: for waiting, and for :meth:`measure`.

    Attributes:
        cost: seconds of a step by batch size, once measured. Only these sizes are used.
        batches: how many steps of each size have run.
    """

    def __init__(self, engine: Engine, *, wait: float = WAIT, clock: Clock = SYSTEM) -> None:
        self.engine = engine
        self.cost: dict[int, float] = {1: 1.0}
        self.batches: dict[int, int] = {}
        self._wait, self._clock = wait, clock
        self._changed = clock.condition()
        self._seats = 0
        self._numbers = itertools.count()
        self._waiting: list[_Step] = []
        self._busy = False
        self._states: dict[int, tuple[State, State]] = {}

    def seat(self) -> Seat:
        """An engine for one more camera; closing it frees its seat."""
        with self._changed:
            self._seats += 1
            return Seat(self, next(self._numbers))

    def leave(self) -> None:
        """Free a seat: from now on no step waits for it."""
        with self._changed:
            self._seats -= 1
            self._changed.notify_all()

    def measure(self, most: int) -> None:
        """Measure steps of 1, 2, 4, … rows on random pictures, up to ``most``.

        An engine without batches stays at 1, and so does a model of motion: its cameras differ in ``elapsed``.

        Raises:
            EngineError: a step failed.
        """
        engine = self.engine
        if not engine.batches or engine.batch is not None or engine.manifest.renders == "moments":
            return
        width, height = engine.manifest.size
        random = np.random.default_rng(0)
        size = 1
        while size <= min(most, MOST):
            pairs = [(engine.new_state(), engine.new_state()) for _ in range(size)]
            images = [random.integers(0, 256, (height, width, 3), np.uint8) for _ in range(size)]
            taken = []
            for _ in range(RUNS + 1):  # the first one warms up
                begun = self._clock.now()
                self._together([_Step(0, [image], *pair, 0.0) for image, pair in zip(images, pairs, strict=True)])
                for _, state in pairs:
                    engine.render(state, (1,))  # a device has finished only then
                taken.append(self._clock.now() - begun)
                pairs = [(after, before) for before, after in pairs]
            self.cost[size] = min(taken[1:])
            size *= 2
        single = self.cost[1]
        self.cost = {size: cost for size, cost in self.cost.items() if size == 1 or cost < PAYS * size * single}

    def best(self, count: int) -> int:
        """The size of the next batch if ``count`` steps wait: the first of those that take least time together."""
        least: list[tuple[float, int]] = [(0.0, 0)]
        for n in range(1, count + 1):
            least.append(min((least[n - size][0] + cost, -size) for size, cost in self.cost.items() if size <= n))
        return -least[count][1]

    def step(self, seat: int, images: Sequence[Image], state_in: State, state_out: State) -> None:
        """Step the state of the camera in a seat, together with others if they come in time.

        Errors as for :meth:`Engine.run`.
        """
        wait = min(self._wait, self.engine.since(state_out)) if len(self.cost) > 1 else 0.0
        step = _Step(seat, images, state_in, state_out, self._clock.now() + wait)
        with self._changed:
            self._waiting.append(step)
            self._changed.notify_all()
        while batch := self._turn(step):
            try:
                with self.engine.lock:
                    self._run(batch)
            finally:
                with self._changed:
                    self._busy = False
                    self.batches[len(batch)] = self.batches.get(len(batch), 0) + 1
                    for other in batch:
                        other.done = True
                    self._changed.notify_all()
        if step.failure is not None:
            raise step.failure

    def _turn(self, step: _Step) -> list[_Step]:
        """Wait until ``step`` is done, or until its caller must run a batch, which need not contain it."""
        with self._changed:
            while not step.done:
                if self._busy:
                    self._clock.wait(self._changed)
                    continue
                deadline = min(other.latest for other in self._waiting)
                if len(self._waiting) < self._seats and self._clock.now() < deadline:
                    self._clock.wait(self._changed, deadline)
                    continue
                size = self.best(len(self._waiting))
                batch, self._waiting = self._waiting[:size], self._waiting[size:]
                self._busy = True
                # A library may round the rows of a batch differently, so who was first does not decide a row.
                return sorted(batch, key=lambda step: step.seat)
            return []

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
            engine.take(step.images, step.state_out)
            engine.run(step.state_in, step.state_out)
            return
        if size not in self._states:
            self._states[size] = _distinct(engine, size), engine.new_state(size)
        before, after = self._states[size]
        for row, step in enumerate(batch):
            self._gather(step.state_in, before, row)
        before.is_precomputed = all(step.state_in.is_precomputed for step in batch)
        engine.take([image for step in batch for image in step.images], after)
        engine.run(before, after)
        for row, step in enumerate(batch):
            self._scatter(after, row, step)

    def _gather(self, state: State, batch: State, row: int) -> None:
        """Copy all that a step reads from a camera's state to a row of a batch."""
        pairs = [(state.tensors, batch.tensors), (state.precomputed, batch.precomputed)]
        pairs += [(old.tensors, new.tensors) for old, new in zip(state.past, batch.past, strict=True)]
        for source, target in pairs:
            for name, buffer in source.items():
                self.engine.copy_row(buffer, 0, target[name], row)

    def _scatter(self, batch: State, row: int, step: _Step) -> None:
        """Copy all that a step wrote from a row of a batch to a camera's state."""
        state = step.state_out
        moment = state.follow(step.state_in)
        pairs = [(batch.tensors, state.tensors), ({"": batch.prediction}, {"": state.prediction})]
        pairs += [(batch.past[0].tensors, moment.tensors)] if batch.past else []
        for source, target in pairs:
            for name, buffer in source.items():
                self.engine.copy_row(buffer, row, target[name], 0)
        state.seen = [batch.seen[row]]
        self.engine.copied(state)


class Shared:
    """The engines of several cameras: seats at one, or one for each camera if it holds no weights.

    The cameras of an engine without weights would otherwise wait for its lock in vain.

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
    return replace(engine.new_state(batch), past=tuple(past[: engine.manifest.slots]))


class Seat(Engine):
    """A camera's share of an engine. Its states have one row. See :class:`Engine`."""

    def __init__(self, batcher: Batcher, number: int) -> None:
        self._batcher: Batcher | None = batcher
        self._number = number
        self._inner = inner = batcher.engine
        self._taken: Sequence[Image] = ()
        self.name, self.device, self.version = inner.name, inner.device, inner.version
        self.precision, self.manifest = inner.precision, inner.manifest
        # Otherwise a camera would wait for another one's step several times a frame: to step, to render, to be seen.
        self._alone: AbstractContextManager[object] = nullcontext() if inner.apart else inner.lock
        self.batch, self.any_size, self.compiles = 1, inner.any_size, inner.compiles

    def zeros(self, shape: tuple[int, ...]) -> Buffer:
        """See :meth:`Engine.zeros`."""
        return self._inner.zeros(shape)

    def new_state(self, batch: int = 1) -> State:
        """See :meth:`Engine.new_state`."""
        with self._inner.lock:
            return self._inner.new_state(batch)

    def reset(self, state: State, rows: Sequence[int] | None = None) -> None:
        """See :meth:`Engine.reset`."""
        with self._alone:
            self._inner.reset(state, rows)

    def take(self, images: Sequence[Image], state: State) -> None:
        """See :meth:`Engine.take`. The conversion waits for the batch."""
        del state
        self._taken = images

    def run(self, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.run`."""
        if self._batcher is None:
            raise EngineError(f"{self.manifest.config} is closed: load it again")
        self._batcher.step(self._number, self._taken, state_in, state_out)

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """See :meth:`Engine.step`; alone."""
        with self._inner.lock:
            return self._inner.step(frame, state_in, state_out)

    def precompute(self, state: State) -> None:
        """See :meth:`Engine.precompute`. Without halves there is nothing to wait for."""
        if self.manifest.precomputed:
            with self._inner.lock:
                self._inner.precompute(state)

    def feed_back(self, source: State, k: int, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.feed_back`; alone."""
        with self._inner.lock:
            self._inner.feed_back(source, k, state_in, state_out)

    def render(self, state: State, ahead: Sequence[int]) -> list[list[Image] | None]:
        """See :meth:`Engine.render`."""
        with self._alone:
            return self._inner.render(state, ahead)

    def render_at(self, state: State, ahead: Sequence[float]) -> list[list[Image]]:
        """See :meth:`Engine.render_at`."""
        with self._inner.lock:
            return self._inner.render_at(state, ahead)

    def fit(self, image: Image) -> Image:
        """See :meth:`Engine.fit`."""
        return self._inner.fit(image)

    def seen(self, state: State) -> list[Image]:
        """See :meth:`Engine.seen`."""
        with self._alone:
            return self._inner.seen(state)

    def interrupt(self, reason: str) -> bool:
        """See :meth:`Engine.interrupt`. It ends the shared engine's call, and so every camera's."""
        return self._inner.interrupt(reason)

    def close(self) -> None:
        """Leave the seat. The shared engine stays open."""
        if self._batcher is not None:
            self._batcher.leave()
            self._batcher = None
