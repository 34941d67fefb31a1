"""Which rung of the plugin ladder is built: by the installed software, the option, and the measurement."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from framecast.errors import EngineError, OptionError
from framecast.export import tensorrt
from framecast.export.plugins import ladder, measure
from framecast.export.plugins.candidates import Built, best, cached, check
from framecast.export.plugins.ladder import LEAST_PTX, PLAIN, Choice, choose, driver_ptx, target
from framecast.export.plugins.measure import Measured
from framecast.export.tensorrt import BuildRequest, build, summary
from framecast.graph.device import device_graph
from framecast.graph.tensorrt_workarounds import fixed
from framecast.runtime.engines.tensorrt import cache, plugin
from framecast.runtime.engines.tensorrt.library import Gpu, Library
from framecast.runtime.shipped import shipped

from ..exported import exported  # noqa: TID252
from ..runtime.fake_gpu import installed  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from ..runtime.fake_tensorrt import TensorRT  # noqa: TID252

Run = Callable[..., tuple[int, str, str]]
ORIN = Gpu("Orin", "8.7", "12.6")


def full(version: str) -> Library:
    """A fake TensorRT with the plugin classes of its version."""
    trt: Any = ModuleType("tensorrt")
    trt.IPluginV3OneRuntime = object
    if tuple(map(int, version.split(".")[:2])) >= (10, 9):
        trt.QuickPluginCreationRequest = object
    return Library("tensorrt", version, trt)


@pytest.fixture(autouse=True)
def triton_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found("json" if name == "triton" else name))


@pytest.mark.parametrize(
    ("version", "rungs"),
    [
        ("10.0.1", (PLAIN, "v3")),
        ("10.3.0", (PLAIN, "v3")),
        ("10.8.0.43", (PLAIN, "v3")),
        ("10.9.0.34", (PLAIN, "aot")),
        ("10.16.1", (PLAIN, "aot")),
        ("11.4.0.106", (PLAIN, "aot")),
    ],
)
def test_auto_measures_the_best_rung_that_a_version_has(version: str, rungs: tuple[str, ...]) -> None:
    assert choose("auto", full(version), ORIN, True) == Choice(rungs, "measured")


def test_the_requested_rung_is_chosen() -> None:
    assert choose("none", full("10.13"), ORIN, True).rungs == (PLAIN,)
    assert choose("aot", full("10.13"), ORIN, True).rungs == ("aot",)
    assert choose("v3", full("10.13"), ORIN, True).rungs == ("v3",)
    with pytest.raises(OptionError, match="takes auto, aot, v3, none"):
        choose("yes", full("10.13"), ORIN, True)


def test_an_unavailable_rung_is_an_error_with_a_fix_and_auto_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    rtx = Library("tensorrt_rtx", "1.7", None)
    disguised = Library("tensorrt", "10.13", ModuleType("tensorrt_rtx"))
    bare = Library("tensorrt", "10.13", ModuleType("tensorrt"))
    cases: list[tuple[str, Library, Gpu | None, bool, str]] = [
        ("aot", rtx, ORIN, True, "TensorRT for RTX has no plugins"),
        ("v3", rtx, None, True, "TensorRT for RTX has no plugins"),
        ("v3", disguised, ORIN, True, "TensorRT for RTX has no plugins"),
        ("aot", full("10.3.0"), ORIN, True, "needs TensorRT 10.9 or newer, but 10.3.0 is installed: update it"),
        ("aot", bare, ORIN, True, "does not include it: install NVIDIA's own Python package"),
        ("aot", full("10.13"), ORIN, False, "the network has no operator with a kernel"),
        ("v3", full("10.3"), None, True, "no GPU to compile kernels for: build on the device"),
        ("aot", full("10.13"), Gpu("old", "7.0", "12.6"), True, "does not compile for compute capability 7.0"),
        ("aot", full("10.13"), Gpu("Thor", "11.0", "12.6"), True, r"the driver \(CUDA 12.6\) is too old .*: update it"),
    ]
    for rung, library, gpu, has_operators, reason in cases:
        with pytest.raises(
            OptionError, match=f"cannot use --plugins {rung} here: .*{reason}.*--plugins auto or none"
        ) as error:
            choose(rung, library, gpu, has_operators)
        assert "\n" not in str(error.value)
        if "10.9" not in reason:
            found = choose("auto", library, gpu, has_operators)
            assert found.rungs == (PLAIN,)
            assert found.why in str(error.value)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"which compiles kernels, is missing: pip install 'framecast\[triton\]'"):
        choose("v3", full("10.3"), ORIN, True)


def test_kernels_are_compiled_for_the_gpu_and_its_driver() -> None:
    assert target(ORIN) == (87, 85)
    assert target(Gpu("H200", "9.0", "13.3")) == (90, ladder.NEWEST_PTX)
    assert target(Gpu("Thor", "11.0", "13.0")) == (110, 90)
    assert [driver_ptx(v) for v in ("10.2", "11.4", "12.5", "12.9", "13.1")] == [0, 74, 85, 88, 91]
    compiler = pytest.importorskip("triton.backends.nvidia.compiler", reason="Triton is for Linux")
    tools = pytest.importorskip("triton").knobs.nvidia
    for version in ("11.8", "12.0", "12.4", "12.5", "12.6", "12.8", "13.0", "13.2"):
        assert driver_ptx(version) == compiler.ptx_get_version(version)
    assert compiler.ptx_get_version(tools.ptxas.version) >= ladder.NEWEST_PTX
    assert compiler.ptx_get_version(tools.ptxas_blackwell.version) >= ladder.NEWEST_PTX_BLACKWELL


def test_kernels_compile_for_every_gpu_that_the_ladder_allows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the oldest and newest PTX that the ladder allows: an older one would crash the process."""
    pytest.importorskip("triton", reason="Triton is for Linux")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from framecast.kernels.cross import compile_for

    for capability, ptx in LEAST_PTX.items():
        arch = int(capability.replace(".", ""))
        newest = target(Gpu("", capability, "13.9"))[1]
        for version in (ptx, newest):
            built = compile_for("eifag", arch, "fp32", (4, 3, 5), slots=1, ptx_version=version)
            assert f".version {version // 10}.{version % 10}" in built.ptx


def test_a_plugin_is_never_registered_with_tensorrt_for_rtx() -> None:
    with pytest.raises(EngineError, match="TensorRT for RTX has no plugins"):
        plugin.register(ModuleType("tensorrt_rtx_bindings"))


def test_an_engine_must_have_the_requested_plugins() -> None:
    nodes = [f"plugin.{i}.stgru_norm_gates" for i in range(12)]
    check("aot", nodes, [f"{node}_myl0" for node in nodes], "stip")
    check("v3", nodes, nodes, "stip")
    check(PLAIN, [], ["InstanceNormalization"], "stip")
    with pytest.raises(EngineError, match=r"without plugin\.1\.stgru_norm_gates and 0 others, despite --plugins aot"):
        check("aot", nodes, [n for n in nodes if n != nodes[1]], "stip")  # plugin.11 does not count as plugin.1
    with pytest.raises(EngineError, match=r"without .* and 11 others, .*: build with --plugins none"):
        check("v3", nodes, [], "stip")
    with pytest.raises(EngineError, match=r"with plugin\.0\.stgru_norm_gates, despite --plugins plain"):
        check(PLAIN, [], nodes, "stip")


def test_an_ahead_of_time_plugin_is_recognised_by_its_name() -> None:
    layers = [{"Name": "plugin.0.eifag", "LayerType": "kgen", "Outputs": []}, {"Name": "conv", "LayerType": "Conv"}]
    assert summary(json.dumps({"Layers": layers}))["plugins"] == ["plugin.0.eifag"]


def measured(**milliseconds: float) -> Callable[[bytes], Measured]:
    return lambda engine: Measured(milliseconds[engine.decode()], np.ones(4, np.float32))


def one(rung: str, begin: float, end: float) -> Built:
    return Built(rung, rung.encode(), {"engine": {"plugins": []}})


def test_the_faster_engine_is_kept_with_both_timings() -> None:
    choice = Choice((PLAIN, "aot"), "measured")
    built, recorded = best(choice, one, measured(plain=2.0, aot=1.5))
    assert (built.rung, recorded["rung"], recorded["difference"]) == ("aot", "aot", 0)
    assert recorded["milliseconds"] == {"plain": 2.0, "aot": 1.5}
    assert recorded["why"] == "measured faster: plain 2.000 ms, aot 1.500 ms"
    assert best(choice, one, measured(plain=1.0, aot=1.5))[0].rung == PLAIN
    assert best(choice, one, measured(plain=1.0, aot=1.0))[0].rung == PLAIN
    built, recorded = best(Choice(("v3",), "asked"), one, measured())
    assert (built.rung, recorded["milliseconds"], recorded["why"]) == ("v3", {}, "asked")


def test_plugins_that_fail_or_predict_differently_are_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    choice = Choice((PLAIN, "aot"), "measured")

    def fails(rung: str, begin: float, end: float) -> Built:
        if rung != PLAIN:
            raise EngineError("no plugin")
        return one(rung, begin, end)

    built, recorded = best(choice, fails, measured(plain=1.0))
    assert (built.rung, recorded["why"]) == (PLAIN, "aot failed: no plugin")
    with pytest.raises(EngineError, match="no plugin"):
        best(Choice(("aot",), "asked"), fails, measured())
    for wrong in (np.zeros(4), np.full(4, np.nan)):
        timings = {b"plain": Measured(2.0, np.ones(4)), b"aot": Measured(1.0, wrong)}
        built, recorded = best(choice, one, timings.__getitem__)
        assert built.rung == PLAIN
        assert "the prediction is off by" in recorded["why"]
    assert len(caplog.records) == 3


class Loaded(TensorRT):
    """The fake TensorRT, with engines that list their tensors."""

    inputs: list[str]
    tensors: dict[str, Any]
    num_io_tensors: int

    class TensorIOMode:
        INPUT, OUTPUT = "in", "out"

    def deserialize_cuda_engine(self, data: bytes) -> Any:
        engine: Any = super().deserialize_cuda_engine(data)
        if engine is None:
            return None
        engine.inputs = [i.name for i in engine.session.get_inputs()]
        engine.tensors = {v.name: v for v in (*engine.session.get_inputs(), *engine.session.get_outputs())}
        engine.num_io_tensors = len(engine.tensors)
        return engine

    def get_tensor_name(self, index: int) -> str:
        name: str = list(self.tensors)[index]
        return name

    def get_tensor_shape(self, name: str) -> list[int]:
        return list(self.tensors[name].shape)

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.tensors[name].type)

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self.inputs else "out"

    def nptype(self, dtype: str) -> type:
        return {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_}[dtype]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    driver = installed(monkeypatch)
    monkeypatch.setattr(measure, "STEPS", 2)
    monkeypatch.setattr(measure, "WARM_UP", 1)
    return Library("tensorrt", "10.3", Loaded(driver))


def test_an_engine_is_timed_as_it_runs(gpu: Any) -> None:
    """On a fake GPU (``fake_gpu.py``): all buffers are bound, steps run as a CUDA graph, inputs are reproducible."""
    proto = fixed(device_graph(onnx.load(shipped()["stip-edge"])), 1).SerializeToString()
    first, second = measure.measure(gpu, proto), measure.measure(gpu, proto)
    assert first.milliseconds > 0
    assert first.prediction.shape[0] == 1
    assert np.isfinite(first.prediction).all()
    assert np.array_equal(first.prediction, second.prediction)
    assert gpu.trt.driver.gpu.launches == 2 * (1 + 2 * measure.ROUNDS)
    with pytest.raises(EngineError, match=r"could not load the engine that it built \(cannot read b'nothing'\)"):
        measure.measure(gpu, b"nothing")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRAMECAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_build_records_its_choice_and_reuses_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {"plain": 2.0, "aot": 1.0}
    nodes = {"plain": [], "aot": ["plugin.0.eifag"]}
    shares: list[float] = []

    def compile_network(request: Any, key: Any, graph: Any, progress: Any) -> Any:
        progress(0.0, "begin"), progress(1.0, "end")
        return str(graph).encode(), {"network": {"layers": 1, "float16": 0, "float32": 1}}

    monkeypatch.setattr(tensorrt, "with_plugins", lambda network, rung, library, gpu: (rung, nodes[rung]))
    monkeypatch.setattr(tensorrt, "compile_network", compile_network)
    monkeypatch.setattr(tensorrt, "inspect", lambda request, key, engine: {"plugins": nodes[engine.decode()]})
    monkeypatch.setattr(tensorrt, "measure", lambda library, engine: measured(**speeds)(engine))
    request = BuildRequest(shipped()["stip-edge"], "stip-edge", full("10.13"), ORIN)

    def progress(share: float, phase: str) -> bool:
        shares.append(share)
        return True

    engine, record = build(request, progress)
    assert (engine, record.key.rung) == (b"aot", "aot")
    assert shares == [0.0, 0.5, 0.5, 1.0]
    assert record.layers["plugins"]["asked"] == "auto"
    assert record.layers["plugins"]["milliseconds"] == speeds
    key = request.key()
    assert cached(key, "auto", request.library, ORIN) == cache.load(record.key) == (b"aot", record)
    assert cached(key, "none", request.library, ORIN) is None
    assert cached(key, "v3", request.library, ORIN) is None
    # A rung that is requested by name is built and cached as well; the latest one runs.
    plain = BuildRequest(shipped()["stip-edge"], "stip-edge", full("10.13"), ORIN, plugins="none")
    assert build(plain)[1].key.rung == PLAIN
    assert cache.find(request.artifact, "stip-edge", request.library, ORIN)[0] == b"plain"
    again = cached(key, "auto", request.library, ORIN)
    assert again is not None
    assert again[0] == b"aot"
    assert cache.find(request.artifact, "stip-edge", request.library, ORIN)[0] == b"aot"
    other = cached(key, "none", request.library, ORIN)
    assert other is not None
    assert other[0] == b"plain"


def test_auto_is_rebuilt_once_its_obstacle_is_gone(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "compile_network", lambda *_: (b"plain", {"network": {}}))
    monkeypatch.setattr(tensorrt, "inspect", lambda *_: {"plugins": []})
    request = BuildRequest(shipped()["stip-edge"], "stip-edge", full("10.13"), ORIN)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        _, record = build(request)
        assert "pip install 'framecast[triton]'" in record.layers["plugins"]["why"]
        assert cached(request.key(), "auto", request.library, ORIN) == (b"plain", record)
    assert cached(request.key(), "auto", request.library, ORIN) is None
    assert cached(request.key(), "none", request.library, ORIN) == (b"plain", record)
    onnx.save(exported("tau"), tmp_path / "tau.onnx")
    tau = BuildRequest(tmp_path / "tau.onnx", "tau", full("10.13"), ORIN)  # has no plugins, so nothing to measure
    _, record = build(tau)
    assert cached(tau.key(), "auto", tau.library, ORIN) == (b"plain", record)


def test_the_command_refuses_unavailable_plugins(run: Run, place: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT for RTX: pip install 'framecast[rtx]'")
    for option, message in [
        ("aot", "cannot use --plugins aot here: TensorRT for RTX has no plugins"),
        ("v3", "cannot use --plugins v3 here: TensorRT for RTX has no plugins"),
        ("yes", "--plugins takes auto, aot, v3 or none, not yes"),
    ]:
        code, out, err = run("build", "stip-edge", "--for", "8.9", "--plugins", option)
        lines = [line for line in err.splitlines() if "building it with" not in line]
        assert (code, out, len(lines)) == (1, "", 1)
        assert message in lines[0]
    code, out, _ = run("build", "stip-edge", "--for", "8.9")
    assert code == 0
    assert "no plugins (TensorRT for RTX has no plugins" in " ".join(out.replace("│", " ").split())
    for option in ("none", "auto"):
        assert "up to date" in run("build", "stip-edge", "--for", "8.9", "--plugins", option)[1]
