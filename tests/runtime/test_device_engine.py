"""Engines that run the live graph in device memory, tested with ONNX Runtime's CPU as the device.

This checks that the right buffers are bound in every phase. The test marked ``gpu`` checks the same on a real GPU.
"""

from __future__ import annotations

import ctypes
import itertools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("onnx")

from framecast.errors import ArtifactError, EngineError
from framecast.graph.artifact import save
from framecast.runtime.engines import ENGINES, onnxruntime_cuda, open_engine
from framecast.runtime.engines.device import DeviceEngine
from framecast.runtime.engines.engine import Engine
from framecast.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine
from framecast.runtime.predictor import Predictor
from framecast.runtime.shipped import find
from framecast.runtime.stepper import Stepper

from ..clips import moving_pictures  # noqa: TID252
from ..exported import exported  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

GPU = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.fixture(params=["stip", "stip-edge", "astm-tau", "stau", "tau-block", "mau"])
def artifact(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    save(exported(request.param), path)
    return path


@pytest.fixture
def engines(artifact: Path) -> Iterator[tuple[Engine, DeviceEngine]]:
    with open_engine(artifact) as plain, OnnxRuntimeCudaEngine(artifact, device="cpu") as live:
        yield plain, live


def compare(plain: Engine, live: Engine, allowed: int) -> None:
    """Compare live predictions and rollouts, over resets of streams of several lengths."""
    one, other = Predictor(plain, watch=False), Predictor(live, watch=False)
    for length in (9, 1, 4):
        for image in moving_pictures(plain.manifest.size, length):
            one.step(image)
            other.step(image)
            assert np.array_equal(one.input, other.input)
            for expected, got in zip(one.rollout(4), other.rollout(4), strict=True):
                assert np.abs(expected.image.astype(int) - got.image).max() <= allowed
        one.reset()
        other.reset()
    assert one.resets == other.resets == 0


def test_it_predicts_the_same_as_the_plain_engine(engines: tuple[Engine, DeviceEngine]) -> None:
    compare(*engines, allowed=1)


def test_floats_in_and_out(engines: tuple[Engine, DeviceEngine]) -> None:
    states = [(engine.new_state(2), engine.new_state(2)) for engine in engines]
    for _ in range(7):
        frame = np.random.default_rng().random((2, *engines[0].manifest.frame), np.float32)
        for pair in states:
            pair[1].prediction.fill(np.nan)
        plain, live = (engine.step(frame, *pair) for engine, pair in zip(engines, states, strict=True))
        states = [pair[::-1] for pair in states]
        assert np.array_equal(plain, live)


def test_the_cached_bindings_do_not_grow_with_a_stream(artifact: Path) -> None:
    with OnnxRuntimeCudaEngine(artifact, device="cpu") as engine:
        predictor = Predictor(engine, watch=False)
        width, height = engine.manifest.size
        counts = []
        for _ in range(3):
            for _ in range(12):
                predictor.step(np.zeros((height, width, 3), np.uint8))
                predictor.rollout(3)
            counts.append(sum(len(p) for others in engine._phases._kept.values() for p in others.values()))
    assert counts[0] == counts[1] == counts[2]


def test_a_state_that_is_not_finite_is_reset() -> None:
    with OnnxRuntimeCudaEngine(find("stip-edge"), device="cpu") as engine:
        predictor = Predictor(engine, watch=False)
        image = np.full((192, 256, 3), 90, np.uint8)
        predictor.step(image)
        predictor._stepper.state.tensors["t1"].fill(np.nan)
        predictor.step(image)
        predictor.rollout(1)
        assert predictor.resets == 1


@pytest.mark.skipif(GPU, reason="this onnxruntime has CUDA")
def test_without_cuda_the_error_says_how_to_get_it() -> None:
    with pytest.raises(EngineError, match=r"built without CUDA.*pip install 'onnxruntime-gpu\[cuda,cudnn\]'"):
        open_engine(find("stip-edge"), "onnxruntime-cuda")


@pytest.mark.parametrize(("asked", "flag"), [("", "0"), ("fp32", "0"), ("tf32", "1")])
def test_tf32_is_used_only_on_request(asked: str, flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's default on CUDA is TF32, which is too inexact for parity and for flows."""
    given: list[object] = []

    def opened(graph: bytes, options: object, *, providers: list[object], enable_fallback: int) -> object:
        given.extend((enable_fallback, *providers))
        raise RuntimeError("no GPU")

    with_cuda(monkeypatch)
    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: given.append("preloaded"), raising=False)
    with pytest.raises(EngineError, match=r"cannot use this GPU \(no GPU\): see"):
        ENGINES["onnxruntime-cuda"].open(find("stip-edge"), 0, asked, 1)
    assert given == ["preloaded", 0, ("CUDAExecutionProvider", {"use_tf32": flag, "user_compute_stream": "7"})]


def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate an ONNX Runtime that was built with CUDA, and a driver."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime_cuda, "_stream", lambda: 7)


def test_a_missing_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime itself only logs a missing library and continues without CUDA."""
    gcc = shutil.which("gcc") or shutil.which("cc")
    if gcc is None:
        pytest.skip("no C compiler to build fake libraries: apt install gcc")
    folder = tmp_path / "capi"
    folder.mkdir()
    source = tmp_path / "nothing.c"
    source.write_text("")

    def library(name: str, *needs: Path) -> Path:
        path = folder / name
        options = ["-Wl,--no-as-needed", f"-Wl,-soname,{name}", "-Wl,-rpath,$ORIGIN"]
        command = [gcc, "-shared", *options, "-o", *map(str, (path, source, *needs))]
        subprocess.run(command, check=True)
        return path

    cudnn = library("libcudnn_of_test.so.9")
    library("libonnxruntime_providers_shared.so")
    library("libonnxruntime_providers_cuda.so", cudnn)
    cudnn.unlink()

    class Session:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    with_cuda(monkeypatch)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load it"), raising=False)  # noqa: T201
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    expected = r"cannot load CUDA \(libcudnn_of_test\.so\.9, cannot open .*\): .*'onnxruntime-gpu\[cuda,cudnn\]' onnx$"
    with pytest.raises(EngineError, match=expected):
        OnnxRuntimeCudaEngine(find("stip-edge"))
    library(cudnn.name)  # every library is there, so the cause is the GPU or its driver
    with pytest.raises(EngineError, match="finds no usable GPU: check the driver"):
        OnnxRuntimeCudaEngine(find("stip-edge"))
    assert capfd.readouterr() == ("", "")


def test_a_missing_driver_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    onnxruntime_cuda._stream.cache_clear()
    onnxruntime_cuda._driver.cache_clear()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime_cuda, "libcuda_", no_driver)
    with pytest.raises(EngineError, match=r"no NVIDIA driver here.*: install the driver"):
        OnnxRuntimeCudaEngine(find("stip-edge"))


def test_a_frame_is_one_upload_and_one_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transfer waits for the device. One download a step brings the picture and whether it is finite."""
    waits: list[str] = []
    for kind in ("upload", "download"):
        plain = getattr(onnxruntime_cuda._OrtBuffer, kind)

        def counted(self: object, *arguments: object, plain: Any = plain, kind: str = kind) -> object:
            waits.append(kind)
            return plain(self, *arguments)

        monkeypatch.setattr(onnxruntime_cuda._OrtBuffer, kind, counted)
    with OnnxRuntimeCudaEngine(find("stip-edge"), device="cpu") as engine:
        stepper = Stepper(engine)
        images = moving_pictures(engine.manifest.size, 12)
        shown = []
        for index, image in enumerate(images):
            waits.clear()
            stepper.advance([image])
            (row,) = stepper.render()
            assert row is not None
            shown.append(row[0])
            if index > 4:  # from here on, all buffers are bound and the history is full
                assert waits == ["upload", "download"]
        stepper.render()
        assert waits == ["upload", "download"]  # no download without a new step
    assert all(np.any(a != b) for a, b in itertools.pairwise(shown))


def test_a_file_that_is_no_artifact_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not onnx")
    with pytest.raises(ArtifactError, match="is not an ONNX file: make one with 'framecast export'"):
        OnnxRuntimeCudaEngine(tmp_path / "model.onnx", device="cpu")


def test_a_closed_engine_raises() -> None:
    engine = OnnxRuntimeCudaEngine(find("stip-edge"), device="cpu")
    state, spare = engine.new_state(), engine.new_state()
    frame = np.zeros((1, *engine.manifest.frame), np.float32)
    with pytest.raises(EngineError, match="same state"):
        engine.step(frame, state, state)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="load it again"):
        engine.step(frame, state, spare)


class Driver:
    """As much of libcuda as a copy needs."""

    def __init__(self) -> None:
        self.pushed, self.code, self.streams = 0, 0, list[object]()

    def cuInit(self, _: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGet(self, _: object, __: int) -> int:  # noqa: N802
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, _: object) -> int:  # noqa: N802
        context._obj.value = 5
        return 0

    def cuCtxPushCurrent_v2(self, context: ctypes.c_void_p) -> int:  # noqa: N802
        self.pushed += context.value == 5
        return 0

    def cuCtxPopCurrent_v2(self, _: object) -> int:  # noqa: N802
        self.pushed -= 1
        return 0

    def cuStreamCreate(self, stream: Any, _: int) -> int:  # noqa: N802
        assert self.pushed == 1
        stream._obj.value = 7
        return 0

    def cuMemcpyDtoDAsync_v2(  # noqa: N802
        self, to: ctypes.c_uint64, of: ctypes.c_uint64, size: ctypes.c_size_t, stream: ctypes.c_void_p
    ) -> int:
        assert self.pushed == 1
        self.streams.append(stream.value)
        ctypes.memmove(to.value, of.value, size.value)
        return self.code


def test_a_row_is_copied_on_the_steps_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(onnxruntime_cuda, "libcuda_", lambda: driver)
    for cached in (onnxruntime_cuda._stream, onnxruntime_cuda._driver):
        cached.cache_clear()
    try:
        with OnnxRuntimeCudaEngine(find("stip-edge"), device="cpu") as engine:
            source, target = (engine.zeros((2, 3)) for _ in range(2))
            source.upload(np.arange(6, dtype=np.float32).reshape(2, 3))
            engine.device = "cuda"
            engine.copy_row(source, 1, target, 0)
            assert target.download().tolist() == [[3, 4, 5], [0, 0, 0]]
            assert (driver.pushed, driver.streams) == (0, [7])
            driver.code = 700
            with pytest.raises(EngineError, match=r"could not copy a state \(error 700\)"):
                engine.copy_row(source, 0, target, 0)
    finally:
        for cached in (onnxruntime_cuda._stream, onnxruntime_cuda._driver):
            cached.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no onnxruntime with CUDA")
def test_cuda_predicts_the_same_as_the_cpu(artifact: Path) -> None:
    with open_engine(artifact) as plain, OnnxRuntimeCudaEngine(artifact) as live:
        compare(plain, live, allowed=2)
