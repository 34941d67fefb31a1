"""Cameras that share an engine: a batch computes what each would alone, and no camera sees or delays another."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from framecast.camera import Image
from framecast.errors import EngineError, FrameError
from framecast.graph.artifact import manifest_of, save
from framecast.runtime.engines import Engine, State, open_engine
from framecast.runtime.engines.batched import Batcher, Seat
from framecast.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine
from framecast.runtime.engines.torch import TorchEngine
from framecast.runtime.stepper import Stepper
from framecast.testing import DriftEngine, ManualClock, PacedEngine, TrendEngine, VirtualClock

from ..clips import moving_pictures  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)
from ..exported import exported, pair  # noqa: TID252

NETWORKS = ["stip", "astm-tau", "stau", "tau-block"]  # carried states, histories, several predictions
OPENERS: dict[str, Callable[[Path], Engine]] = {
    "onnxruntime": lambda path: open_engine(path, threads=1),
    "openvino": lambda path: open_engine(path, "openvino", threads=1),
    "onnxruntime-cuda": lambda path: OnnxRuntimeCudaEngine(path, device="cpu"),
    "torch": lambda path: TorchEngine(pair(path.stem)[0], manifest_of(pair(path.stem)[1]), device="cpu"),
}
SLOW = {"onnxruntime-cuda": ("stip", "stau")}  # left out: the others have all kinds of state as well
FOREVER = 60.0


def artifact(name: str, folder: Path) -> Path:
    path = folder / f"{name}.onnx"
    save(exported(name), path)
    return path


def clips(engine: Engine, count: int, length: int) -> list[list[Image]]:
    pictures = moving_pictures(engine.manifest.size, count * length)
    return [pictures[i * length : (i + 1) * length] for i in range(count)]


def in_threads(works: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(FOREVER)
        assert not thread.is_alive()


def always(engine: Engine, count: int) -> tuple[Batcher, list[Seat]]:
    """A batcher that always waits for all of ``count`` cameras."""
    batcher = Batcher(engine, wait=FOREVER)
    batcher.cost = {1: 1.0, count: 0.5}
    seats = [batcher.seat() for _ in range(count)]
    for seat in seats:
        seat.since = lambda state: FOREVER  # type: ignore[method-assign]
    engine.since = lambda state: FOREVER  # type: ignore[method-assign]
    return batcher, seats


@pytest.mark.parametrize(
    ("name", "library"), [(n, o) for n, o in itertools.product(NETWORKS, OPENERS) if n not in SLOW.get(o, ())]
)
def test_each_camera_is_bit_equal_to_a_row_of_a_solo_batch(name: str, library: str, tmp_path: Path) -> None:
    with OPENERS[library](artifact(name, tmp_path)) as engine:
        check_rows(engine)


def check_rows(engine: Engine) -> None:
    """Three cameras that share steps of three: each gets what a batch of its own frames gives it."""
    streams = clips(engine, 3, 7)
    batcher, seats = always(engine, 3)
    steppers = [Stepper(seat) for seat in seats]
    outputs = engine.manifest.outputs
    got: dict[tuple[int, int], list[Image]] = {}

    def camera(which: int) -> None:
        for turn, image in enumerate(streams[which]):
            if turn == 4 and which == 1:
                steppers[which].reset()
            steppers[which].advance([image])
            (row,) = steppers[which].render(range(1, outputs + 1))
            assert row is not None
            got[which, turn] = row

    in_threads([lambda which=which: camera(which) for which in range(3)])  # type: ignore[misc]
    assert batcher.batches == {3: 7}
    for which in range(3):  # alone, at the same batch size: every row shows this camera
        solo = Stepper(engine, 3)
        for turn, image in enumerate(streams[which]):
            if turn == 4 and which == 1:
                solo.reset()
            solo.advance([image] * 3)
            row = solo.render(range(1, outputs + 1))[which]
            assert row is not None
            np.testing.assert_array_equal(got[which, turn], row)
        np.testing.assert_array_equal(seats[which].seen(steppers[which].state)[0], streams[which][-1])


def test_one_camera_fails_and_the_others_go_on() -> None:
    engine = TrendEngine(0.5)
    batcher, seats = always(engine, 2)
    good, bad = Stepper(seats[0]), Stepper(seats[1])
    (images,) = clips(engine, 1, 3)
    take = engine.take
    errors: list[object] = []

    def refusing(images: Sequence[Image], state: State) -> None:
        if any(image.shape[0] < 4 for image in images):
            raise FrameError("too small")
        take(images, state)

    engine.take = refusing  # type: ignore[method-assign]

    def failing() -> None:
        for image in images:
            with pytest.raises(FrameError) as caught:
                bad.advance([image[:3]])
            errors.append(caught)

    def going_on() -> None:
        for image in images:
            good.advance([image])

    in_threads([going_on, failing])
    assert len(errors) == 3
    assert batcher.batches == {2: 3}
    alone = Stepper(TrendEngine(0.5))
    for image in images:
        alone.advance([image])
    np.testing.assert_array_equal(good.render(), alone.render())


def test_a_camera_that_leaves_is_not_waited_for() -> None:
    engine = TrendEngine(0.5)
    batcher, seats = always(engine, 2)
    stepper = Stepper(seats[0])
    (images,) = clips(engine, 1, 1)
    in_threads([lambda: stepper.advance(images), seats[1].close])
    assert batcher.batches == {1: 1}
    seats[0].close()
    seats[0].close()
    with pytest.raises(EngineError, match="closed"):
        stepper.advance(images)


def test_no_camera_waits_for_more_than_one_call_of_each_other_one() -> None:
    """Two cameras feed predictions back all the time. Each call of the engine takes 3 ms."""
    clock = VirtualClock()
    batcher = Batcher(PacedEngine(clock, lambda n: 0.003), clock=clock)
    far, near = [batcher.seat(), batcher.seat()], Stepper(batcher.seat(), clock=clock)
    image = np.zeros((20, 28, 3), np.uint8)
    states = [(seat, seat.new_state(), seat.new_state()) for seat in far]
    begun, ended = clock.now(), list[float]()

    def feed(seat: Seat, source: State, target: State) -> None:
        for _ in range(31):
            seat.feed_back(source, 0, source, target)
        ended.append(clock.now() - begun)

    threads = [threading.Thread(target=feed, args=seat, daemon=True) for seat in states]
    for thread in threads:
        thread.start()
    taken = []
    for frame in range(1, 9):
        clock.wait_until(begun + 0.0201 * frame)
        near.advance([image])
        taken.append(clock.now() - begun - 0.0201 * frame)
    for thread in threads:
        clock.join(thread)
    assert max(taken) <= 0.0091  # a call of each other camera, and its own
    assert min(ended) > 8 * 0.0201  # they were at it all the time
    assert max(ended) - min(ended) <= 0.0031  # neither got ahead of the other


@pytest.mark.parametrize(("due", "waited"), [(0.001, 0.001), (0.1, 0.002), (-0.01, 0.0)])
def test_a_step_waits_for_others_but_not_past_its_next_frame(due: float, waited: float) -> None:
    clock = VirtualClock()
    batcher = Batcher(DriftEngine(), wait=0.002, clock=clock)
    batcher.cost = {1: 1.0, 2: 1.1}
    seat = batcher.seat()
    stepper = Stepper(seat, clock=clock)
    batcher.seat()  # a camera that sends nothing
    begun = clock.now()
    seat.due = begun + due
    stepper.advance([np.zeros((12, 16, 3), np.uint8)], 0.1)
    assert clock.now() - begun == pytest.approx(waited)


@pytest.mark.parametrize(
    ("cost", "waiting", "size"),
    [
        ({1: 1.0}, 5, 1),
        ({1: 1.0, 2: 1.1, 4: 1.2}, 5, 4),
        ({1: 1.0, 2: 1.1, 4: 1.2}, 3, 2),
        ({1: 1.0, 2: 2.5, 4: 2.6}, 3, 1),
        ({1: 1.0, 2: 2.5, 4: 2.6}, 4, 4),
    ],
)
def test_the_cheapest_sizes_are_used(cost: dict[int, float], waiting: int, size: int) -> None:
    batcher = Batcher(TrendEngine(0.5))
    batcher.cost = cost
    assert batcher.best(waiting) == size


@pytest.mark.parametrize(("power", "sizes"), [(1.1, {1}), (0.98, {1}), (0.5, {1, 2, 4})])
def test_a_batch_must_pay(power: float, sizes: set[int]) -> None:
    clock, engine = ManualClock(), TrendEngine(0.5)
    batcher, run = Batcher(engine, clock=clock), engine.run

    def slow(state_in: State, state_out: State) -> None:
        run(state_in, state_out)
        clock.work(10 * len(state_out.prediction) ** power)

    engine.run = slow  # type: ignore[method-assign]
    batcher.measure(7)
    assert batcher.cost == pytest.approx({size: 0.01 * size**power for size in sizes})


@pytest.mark.parametrize(
    ("seconds", "ran", "single"),
    [
        (3.0, 4, "a step of several cameras takes too long to measure"),
        (1.0, 12, "a step of several cameras takes as long as single ones"),
    ],
)
def test_the_start_does_not_wait_long_for_measurements(seconds: float, ran: int, single: str) -> None:
    """The first step of all compiles for a minute, which does not count."""
    clock, engine = ManualClock(), TrendEngine(0.5)
    batcher, run, rows = Batcher(engine, clock=clock), engine.run, list[int]()

    def slow(state_in: State, state_out: State) -> None:
        run(state_in, state_out)
        clock.work(1e3 * seconds * len(state_out.prediction) + 6e4 * (not rows))
        rows.append(len(state_out.prediction))

    engine.run = slow  # type: ignore[method-assign]
    batcher.measure(16)
    assert sum(rows) == ran
    assert batcher.single == single
