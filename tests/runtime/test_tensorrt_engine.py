"""The TensorRT engine on a simulated GPU (``fake_gpu.py``): what it binds, captures and waits for.

``benchmarks/gpu_check.py`` checks it with the real TensorRT on a real GPU.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from framecast.errors import EngineError, FrameError
from framecast.files import sha256
from framecast.graph.artifact import save
from framecast.graph.device import device_graph
from framecast.graph.tensorrt_workarounds import fixed
from framecast.runtime.convert import blank_frame, to_frame, to_model_size
from framecast.runtime.engines import open_engine
from framecast.runtime.engines.batched import Batcher
from framecast.runtime.engines.tensorrt import cache, cuda, plugin
from framecast.runtime.engines.tensorrt import engine as tensorrt_engine
from framecast.runtime.engines.tensorrt.engine import TensorRTEngine
from framecast.runtime.engines.tensorrt.library import Gpu, Library
from framecast.runtime.predictor import Predictor
from framecast.runtime.stepper import Stepper

from ..calls import watched  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)
from ..exported import exported  # noqa: TID252
from ..stepping import stepped  # noqa: TID252
from .fake_gpu import Driver, installed  # noqa: TID252
from .fake_tensorrt import TensorRT  # noqa: TID252

GPU = Gpu("Fake 9000", "8.7", "12.6")
NAMES = ["stip", "astm-tau", "stau", "tau-block", "mau"]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Driver:
    driver = installed(monkeypatch)
    monkeypatch.setenv("FRAMECAST_CACHE", str(tmp_path / "cache"))
    here = Library("tensorrt", "10.3", TensorRT(driver))
    monkeypatch.setattr(tensorrt_engine, "library", lambda: here)
    monkeypatch.setattr(tensorrt_engine, "gpu", lambda: GPU)
    return driver


def artifact(name: str, folder: Path) -> Path:
    path = folder / f"{name}.onnx"
    save(exported(name), path)
    return path


def built(
    path: Path, data: bytes | None = None, camera: tuple[int, int] | None = None, rung: str = "plain", batch: int = 1
) -> None:
    """Store a fake engine in the cache, as ``framecast build`` stores a real one."""
    proto = onnx.load(str(path))
    data = fixed(device_graph(proto, camera), batch).SerializeToString() if data is None else data
    key = cache.Key(sha256(path), "tensorrt", "10.3", GPU.name, GPU.capability, "fp16", batch, camera, rung)
    manifest = next(entry.value for entry in proto.metadata_props)
    digest = hashlib.sha256(data).hexdigest()
    record = cache.Record(key, path.stem, str(path), digest, len(data), 1.0, "2026-01-01", manifest=manifest)
    cache.put(record, data)


@pytest.fixture(params=NAMES)
def path(request: pytest.FixtureRequest, tmp_path: Path, driver: Driver) -> Path:
    path = artifact(request.param, tmp_path)
    built(path)
    return path


@pytest.fixture
def engine(path: Path) -> Iterator[TensorRTEngine]:
    with TensorRTEngine(path) as engine:
        yield engine


@pytest.mark.parametrize("captures", [True, False])
def test_it_predicts_the_same_as_onnxruntime(path: Path, driver: Driver, captures: bool) -> None:
    driver.gpu.captures = captures
    rng = np.random.default_rng()
    with open_engine(path) as plain, open_engine(path, "tensorrt") as engine:
        one, other = Predictor(plain, watch=False), Predictor(engine, watch=False)
        width, height = plain.manifest.size
        for length in (7, 1, 3):  # streams of several lengths, each after a reset
            for image in rng.integers(0, 256, (length, height, width, 3), dtype=np.uint8):
                one.step(image)
                other.step(image)
                for expected, got in zip(one.rollout(4), other.rollout(4), strict=True):
                    assert np.abs(expected.image.astype(int) - got.image).max() <= 1
            one.reset()
            other.reset()
        assert one.resets == other.resets == 0
    assert bool(driver.gpu.launches) == captures
    assert driver.gpu.context.depth == 0


def test_an_engine_still_steps_if_a_capture_is_refused(
    driver: Driver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """``execute_async_v3`` may return False while a graph is captured; outside a capture it works."""
    path = artifact("mau", tmp_path)
    built(path)
    with open_engine(path) as plain, TensorRTEngine(path) as engine:
        engine._context.refuses_capture = True
        one, other = Predictor(plain, watch=False), Predictor(engine, watch=False)
        for image in np.random.default_rng().integers(0, 256, (6, 16, 16, 3), dtype=np.uint8):
            expected, got = stepped(one, image), stepped(other, image)
            assert np.abs(expected.image.astype(int) - got.image).max() <= 1
    assert driver.gpu.launches == 0
    assert driver.gpu.alive["graph"] == 0  # no captured graph is left
    assert "refused while capturing" in caplog.text


def test_memory_that_tensorrt_refuses_is_named(driver: Driver, tmp_path: Path) -> None:
    path = artifact("mau", tmp_path)
    built(path)
    with TensorRTEngine(path) as engine:
        driver.aside = 64
        with pytest.raises(EngineError, match=r"TensorRT refuses the memory of '.+' at 0x"):
            Predictor(engine).step(np.zeros((16, 16, 3), np.uint8))


@pytest.mark.parametrize("name", NAMES)
def test_an_engine_with_a_batch_of_two_is_found_and_steps_both_rows(driver: Driver, tmp_path: Path, name: str) -> None:
    path = artifact(name, tmp_path)
    built(path, batch=2)
    with pytest.raises(EngineError, match="batch"):
        open_engine(path, "tensorrt")
    rng = np.random.default_rng()
    with open_engine(path) as plain, open_engine(path, "tensorrt", batch=2) as engine:
        with pytest.raises(EngineError, match="built for a batch of 2, not of 1"):
            Predictor(engine, watch=False)
        width, height = plain.manifest.size
        together, alone = Stepper(engine, 2), [Stepper(plain), Stepper(plain)]
        for turn in range(9):
            if turn == 5:
                together.reset([1])
                alone[1].reset()
            images = list(rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8))
            together.advance(images)
            ahead = together.look_ahead(3)
            for row, stepper in enumerate(alone):
                stepper.advance([images[row]])
                (expected,), got = stepper.look_ahead(3), ahead[row]
                assert expected is not None
                assert got is not None
                assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(expected, got, strict=True))


@pytest.mark.parametrize("first", list(itertools.permutations(range(3))))
def test_no_buffer_is_read_or_overwritten_too_early(driver: Driver, tmp_path: Path, first: tuple[int, ...]) -> None:
    """Only some predictions are requested, and the GPU's streams run in every order."""
    path = artifact("mau", tmp_path)
    built(path)
    with open_engine(path) as plain, open_engine(path, "tensorrt") as engine:
        driver.gpu.first = first
        steppers = [Stepper(one) for one in (plain, engine)]
        for turn in range(40):
            image = np.random.default_rng().integers(0, 256, (16, 16, 3), dtype=np.uint8)
            for stepper in steppers:
                stepper.advance([image])
            if turn % 3 == 2:
                expected, got = (stepper.render()[0] for stepper in steppers)
                assert expected is not None
                assert got is not None
                assert len(expected) == len(got) == 1
                assert np.abs(expected[0].astype(int) - got[0]).max() <= 1


def test_floats_in_and_out(path: Path, engine: TensorRTEngine) -> None:
    with open_engine(path) as plain:
        pairs = [(one, (one.new_state(), one.new_state())) for one in (plain, engine)]
        for _ in range(5):
            frame = np.random.default_rng().random((1, *plain.manifest.frame), np.float32)
            pairs[1][1][1].prediction.fill(np.nan)
            expected, got = (one.step(frame, *states) for one, states in pairs)
            pairs = [(one, states[::-1]) for one, states in pairs]
            assert np.array_equal(expected, got)


def test_a_steady_stream_allocates_nothing_and_waits_once_a_frame(engine: TensorRTEngine, driver: Driver) -> None:
    predictor = Predictor(engine, watch=False)
    width, height = engine.manifest.size
    image = np.zeros((height, width, 3), np.uint8)
    for _ in range(40):  # warm up every phase of the ring
        predictor.step(image)
        predictor.rollout(1)
    gpu = driver.gpu
    before = driver.allocations, len(gpu.graphs), gpu.synchronisations, gpu.launches
    for _ in range(10):
        predictor.step(image)
        predictor.rollout(1)
    after = driver.allocations, len(gpu.graphs), gpu.synchronisations, gpu.launches
    assert after[:2] == before[:2]
    assert after[3] - before[3] == 10
    assert after[2] - before[2] == 10


@pytest.mark.parametrize("rung", ["plain", "aot", "v3"])
def test_plugins_that_run_in_python_are_registered_before_the_engine_is_read(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rung: str
) -> None:
    path = artifact("mau", tmp_path)
    built(path, rung=rung)
    called: list[str] = []
    read = TensorRT.deserialize_cuda_engine
    monkeypatch.setattr(plugin, "register", lambda trt: called.append("registered"))
    monkeypatch.setattr(TensorRT, "deserialize_cuda_engine", watched(read, lambda *_: called.append("read")))
    TensorRTEngine(path).close()
    assert called == (["registered", "read"] if rung == "v3" else ["read"])


@pytest.mark.parametrize("camera", [(64, 40), (97, 71)])
def test_an_engine_built_for_a_camera_resizes_pictures(driver: Driver, tmp_path: Path, camera: tuple[int, int]) -> None:
    path = artifact("mau", tmp_path)
    built(path, camera=camera)
    with TensorRTEngine(path) as engine, open_engine(path) as plain:
        predictor, states = Predictor(engine, watch=False), (plain.new_state(), plain.new_state())
        for image in np.random.default_rng().integers(0, 256, (4, camera[1], camera[0], 3), dtype=np.uint8):
            got = stepped(predictor, image)
            assert np.abs(predictor.input.astype(int) - to_model_size(image, plain.manifest)).max() <= 1
            frame = blank_frame(plain.manifest)
            to_frame(predictor.input, plain.manifest, frame[0])
            expected = np.clip(np.rint(255 * plain.step(frame, *states)[0, 0, 0]), 0, 255)
            states = states[::-1]
            assert np.abs(got.image[..., 0] - expected).max() <= 1
        predictor.reset()
        with pytest.raises(FrameError, match=r"built for .*, not 20x10: build one with --camera 20x10, or without"):
            predictor.step(np.zeros((10, 20, 3), np.uint8))


def test_errors_name_the_cause(driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = artifact("mau", tmp_path)
    with pytest.raises(EngineError, match=r"no engine of mau has been built: framecast build mau"):
        TensorRTEngine(path)
    built(path, data=b"not an engine")
    with pytest.raises(EngineError, match=r"could not load the engine.*framecast build mau"):
        TensorRTEngine(path)
    built(path)
    with TensorRTEngine(path) as engine:
        state, spare = engine.new_state(), engine.new_state()
        frame = np.zeros((1, *engine.manifest.frame), np.float32)
        with pytest.raises(EngineError, match="same state"):
            engine.step(frame, state, state)
        engine._context.fails = True
        with pytest.raises(EngineError, match="could not run"):
            engine.step(frame, state, spare)

        def full(size: int) -> int:
            raise driver.MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(driver, "mem_alloc", full)
            with pytest.raises(EngineError, match=r"memory is full \(.* MB more needed"):
                engine.new_state()
    with pytest.raises(EngineError, match="load it again"):
        engine.step(frame, state, spare)
    cuda._only.cache_clear()
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(EngineError, match=r"needs pycuda .*pip install 'framecast\[cuda\]'"):
        TensorRTEngine(path)


def test_a_missing_driver_is_reported(tmp_path: Path) -> None:
    try:
        import ctypes

        ctypes.CDLL("libcuda.so.1")
    except OSError:
        with pytest.raises(EngineError, match="no NVIDIA driver"):
            open_engine(artifact("mau", tmp_path), "tensorrt")
    else:
        pytest.skip("this machine has a driver")


@pytest.mark.parametrize("camera", [None, (64, 40)])
def test_cameras_share_steps_where_an_engine_was_built_for_so_many(
    driver: Driver, tmp_path: Path, camera: tuple[int, int] | None
) -> None:
    """The rows of a step are copied on the GPU, in whatever order its streams run, and each camera is as alone."""
    path = artifact("astm-tau", tmp_path)
    built(path, camera=camera)
    with TensorRTEngine(path) as engine:
        assert not engine.runs(2)
        batcher = Batcher(engine)
        batcher.measure(3)
        assert [*batcher.cost] == [1]
        assert batcher.single.startswith("the engine was built for one camera: ")
    built(path, camera=camera, batch=2)
    with TensorRTEngine(path) as engine, TensorRTEngine(path, batch=2) as pair:
        assert [engine.runs(size) for size in (1, 2, 4)] == [True, True, False]
        batcher = Batcher(engine, wait=60.0)
        batcher.cost = {1: 1.0, 2: 0.5}
        seats = [batcher.seat() for _ in range(2)]
        for one in (engine, *seats):
            one.since = lambda state: 60.0  # type: ignore[method-assign]
        width, height = camera or engine.manifest.size
        frames = np.random.default_rng().integers(0, 256, (2, 11, height, width, 3), dtype=np.uint8)
        together = [Stepper(seat) for seat in seats]
        alone = Stepper(pair, 2)
        for turn in range(11):
            if turn == 5:
                alone.reset([1])
                together[1].reset()
            threads = [
                threading.Thread(target=stepper.advance, args=([frames[row, turn]],))
                for row, stepper in enumerate(together)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            alone.advance(list(frames[:, turn]))
            if turn % 3 == 1:  # predictions that nobody asks for
                continue
            for row, expected in enumerate(alone.render()):
                (got,) = together[row].render()
                assert expected is not None
                assert got is not None
                assert np.array_equal(got[0], expected[0]), (turn, row)
                assert np.array_equal(together[row].seen()[0], alone.seen()[row])
        assert batcher.batches == {2: 11}
    assert driver.gpu.context.depth == 0
