"""The TensorRT engine's resources on a simulated GPU (``fake_gpu.py``): threads, waits, streams, and freeing."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framecast.errors import EngineError
from framecast.export.onnx import describe
from framecast.graph.artifact import save
from framecast.models.tau import TAU, TAUConfig
from framecast.runtime.engines import open_engine
from framecast.runtime.engines.tensorrt.cuda import DeviceBuffer, Streams, process_cuda
from framecast.runtime.engines.tensorrt.engine import TensorRTEngine
from framecast.runtime.predictor import Predictor
from framecast.runtime.stepper import Stepper

from ..exported import once  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)
from .fake_gpu import Driver  # noqa: TID252
from .test_tensorrt_engine import artifact, built, driver  # noqa: F401, TID252 (a fixture)

PICTURE = np.zeros((16, 16, 3), np.uint8)


@pytest.fixture
def path(tmp_path: Path, driver: Driver) -> Path:  # noqa: F811
    path = artifact("mau", tmp_path)
    built(path)
    return path


def elsewhere(function: Callable[[], None]) -> None:
    """Call a function in another thread, and wait."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def test_a_process_has_one_context_and_keeps_it(path: Path, driver: Driver) -> None:  # noqa: F811
    for _ in range(3):
        with TensorRTEngine(path), TensorRTEngine(path):
            pass
    assert driver.retained == 1
    assert process_cuda() is process_cuda()


def test_objects_dropped_in_another_thread_are_freed(path: Path, driver: Driver) -> None:  # noqa: F811
    held: list[Any] = []

    def make() -> None:
        engine = TensorRTEngine(path)
        predictor = Predictor(engine, watch=False)
        for _ in range(20):
            predictor.step(PICTURE)
        predictor.rollout(3)
        held.extend([engine, predictor])

    elsewhere(make)
    kinds = {"memory", "locked", "event", "stream", "executable"}
    assert all(driver.gpu.alive[kind] > 0 for kind in kinds)
    held[0].close()
    held.clear()
    gc.collect()
    assert driver.gpu.leaked == []
    assert set(driver.gpu.alive.values()) == {0}
    assert driver.gpu.memory == {}


def test_garbage_that_is_collected_in_a_capture_is_freed_after_it(path: Path, driver: Driver) -> None:  # noqa: F811
    """Freeing memory would invalidate the capture, and Python may collect garbage at any time."""
    with TensorRTEngine(path) as engine:
        streams = engine._streams
        alive = driver.gpu.alive["memory"]
        collected: list[int] = []

        def litter() -> None:
            if garbage and any(stream.capturer for stream in driver.gpu.streams):
                cycle: list[Any] = [garbage.pop()]
                cycle.append(cycle)
                del cycle
                collected.append(gc.collect())

        garbage = [DeviceBuffer(streams, (4,), np.float32) for _ in range(2)]
        engine._context.executing = litter
        predictor = Predictor(engine, watch=False)
        for _ in range(5):
            predictor.step(PICTURE)
        assert len(collected) == 2
        assert driver.gpu.launches > 0
        assert driver.gpu.leaked == []
        assert driver.gpu.alive["executable"] == len(driver.gpu.graphs) > 2  # no capture has failed
    del predictor, engine
    gc.collect()
    assert driver.gpu.alive["memory"] <= alive


def test_memory_is_not_freed_during_a_copy(driver: Driver) -> None:  # noqa: F811
    cuda = process_cuda()
    streams = Streams(cuda)
    for copy in (DeviceBuffer.fetch, lambda buffer: buffer.upload(np.ones(8, np.float32))):
        buffer = DeviceBuffer(streams, (8,), np.float32)
        copy(buffer)
        assert not driver.gpu.idle()
        del buffer
        with cuda.current():
            driver.Context.synchronize()  # the copy fails if its memory is freed
    assert driver.gpu.leaked == []


@pytest.mark.parametrize("camera", [None, (64, 40)])
def test_a_steady_frame_waits_once(driver: Driver, tmp_path: Path, camera: tuple[int, int] | None) -> None:  # noqa: F811
    """This wait also brings the frame at the model's size, for the score, if the GPU resizes."""
    path = artifact("mau", tmp_path)
    built(path, camera=camera)
    with TensorRTEngine(path) as engine:
        predictor = Predictor(engine, watch=False)
        width, height = camera or engine.manifest.size
        waits = []
        for _ in range(40):
            before = driver.gpu.synchronisations
            predictor.step(np.zeros((height, width, 3), np.uint8))
            assert predictor.rollout(1)
            assert predictor.input is not None
            waits.append(driver.gpu.synchronisations - before)
        assert waits[-10:] == [1] * 10


@pytest.mark.parametrize("every", [1, 2, 5])
def test_frames_without_a_prediction_wait_at_most_once(path: Path, driver: Driver, every: int) -> None:  # noqa: F811
    """Without a prediction, only a wait shows that the last upload is done."""
    with TensorRTEngine(path) as engine, open_engine(path) as plain:
        steppers = [Stepper(one) for one in (plain, engine)]
        for turn in range(40):
            before = driver.gpu.synchronisations
            image = np.random.default_rng().integers(0, 256, (16, 16, 3), dtype=np.uint8)
            for stepper in steppers:
                stepper.advance([image])
            if turn % every == 0:
                expected, got = (stepper.render()[0] for stepper in steppers)
                assert expected is not None
                assert got is not None
                assert np.abs(expected[0].astype(int) - got[0]).max() <= 1
            if turn > 20:
                assert driver.gpu.synchronisations - before <= 1 + (turn % every == 0 and every > 1)


def test_it_does_not_wait_for_the_default_stream(path: Path, driver: Driver) -> None:  # noqa: F811
    """Another library may have work on that stream that takes long."""
    with TensorRTEngine(path) as engine:
        predictor = Predictor(engine, watch=False)
        with process_cuda().current():
            driver.gpu.legacy.put(lambda: None, lambda: False)
        for _ in range(5):
            predictor.step(PICTURE)
        driver.gpu.legacy.queue.clear()
    assert driver.gpu.launches > 0


def test_another_librarys_work_does_not_invalidate_a_capture(path: Path, driver: Driver) -> None:  # noqa: F811
    with TensorRTEngine(path) as engine:
        engine._context.executing = lambda: driver.gpu.legacy.put(lambda: None)
        Predictor(engine, watch=False).step(PICTURE)
    assert driver.gpu.launches > 0 or driver.gpu.graphs


def test_the_default_stream_of_the_fake_is_ordered_with_blocking_streams(driver: Driver) -> None:  # noqa: F811
    seen: list[str] = []
    with process_cuda().current():
        blocking, free = driver.Stream(0), driver.Stream(1)
        blocking.on.put(lambda: seen.append("before"))
        driver.gpu.legacy.put(lambda: seen.append("default"))
        blocking.on.put(lambda: seen.append("after"))
        free.on.put(lambda: seen.append("free"))
        free.synchronize()
        seen.remove("free")
        blocking.synchronize()
    assert seen == ["before", "default", "after"]


def test_one_engine_captures_while_others_step_and_capture(path: Path, driver: Driver) -> None:  # noqa: F811
    with TensorRTEngine(path) as engine, TensorRTEngine(path) as other, open_engine(path) as plain:
        frames = np.random.default_rng().integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
        predictors = {one: Predictor(one, watch=False) for one in (engine, other, plain)}
        got: dict[Any, list[Any]] = {one: [] for one in predictors}

        def steps(one: Any) -> None:
            for frame in frames:
                predictors[one].step(frame)
                got[one].append(predictors[one].rollout(1)[0].image)

        beside = threading.Thread(target=steps, args=(other,))

        def executing() -> None:
            if beside.ident is None and driver.stream(engine._streams.handle).captured is not None:
                beside.start()
                beside.join(0.05)  # gives it time to wait for the capture's end

        engine._context.executing = executing
        steps(engine)
        beside.join()
        steps(plain)
        for one in (engine, other):
            assert len(got[one]) == len(frames)
            for expected, image in zip(got[plain], got[one], strict=True):
                assert np.abs(expected.astype(int) - image).max() <= 1
        assert driver.gpu.launches > 0
        handles = {stream.handle for stream in driver.gpu.streams}
        assert len(handles) == len(driver.gpu.streams) == 6


def test_an_engine_is_loaded_while_another_captures(path: Path, driver: Driver) -> None:  # noqa: F811
    """Loading waits for the whole device, which would invalidate the capture."""
    failed: list[Exception] = []

    def load() -> None:
        try:
            TensorRTEngine(path).close()
        except Exception as error:  # noqa: BLE001 (any error fails the test)
            failed.append(error)

    beside = threading.Thread(target=load)
    with TensorRTEngine(path) as engine:

        def executing() -> None:
            if beside.ident is None and driver.stream(engine._streams.handle).captured is not None:
                beside.start()
                beside.join(0.2)  # gives it time to wait for the end of the capture

        engine._context.executing = executing
        predictor = Predictor(engine, watch=False)
        for _ in range(4):
            predictor.step(PICTURE)
        beside.join()
    assert failed == []
    assert driver.gpu.launches > 0


def test_memory_that_cannot_be_locked_is_named(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    buffer = DeviceBuffer(Streams(process_cuda()), (8,), np.float32)

    def full(*_: Any) -> np.ndarray:
        raise driver.MemoryError

    monkeypatch.setattr(driver, "pagelocked_empty", full)
    with pytest.raises(EngineError, match=r"page-locked memory is full"):
        buffer.download()


def test_each_load_reports_its_own_error(path: Path, tmp_path: Path) -> None:
    """TensorRT keeps the logger of the first load."""
    with TensorRTEngine(path):
        for bad in (b"no engine", b"nor this"):
            built(path, data=bad)
            with pytest.raises(EngineError, match=rf"could not load the engine of .* \(cannot read {bad!r}\)"):
                TensorRTEngine(path)


def test_every_address_is_aligned(driver: Driver, tmp_path: Path) -> None:  # noqa: F811
    """Three predictions of 60×60 grey pixels, 14400 bytes each: a view of the second would not be aligned."""
    sizes: dict[str, Any] = {"height": 60, "width": 60, "channels": 1, "frames": 4, "outputs": 3}
    layers: dict[str, Any] = {"hidden_spatial": 4, "hidden_temporal": 4, "encoder_layers": 2, "translator_layers": 2}
    model = TAU(TAUConfig(**sizes, **layers)).eval()
    path = tmp_path / "grey.onnx"
    save(once(model, describe(model, "grey")), path)
    built(path)
    with open_engine(path) as plain, TensorRTEngine(path) as engine:  # the fake refuses any other address
        one, other = Predictor(plain, watch=False), Predictor(engine, watch=False)
        for image in np.random.default_rng().integers(0, 256, (3, 60, 60, 3), dtype=np.uint8):
            one.step(image)
            other.step(image)
            for expected, got in zip(one.rollout(7), other.rollout(7), strict=True):
                assert np.abs(expected.image.astype(int) - got.image).max() <= 1
