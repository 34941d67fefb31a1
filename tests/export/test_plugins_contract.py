"""Contract tests of our kernels as TensorRT plugins. They need neither a GPU nor a TensorRT with plugins.

``benchmarks/gpu_check.py`` runs the plugins on real GPUs with TensorRT. Here:

- NumPy computes the chain of launches that a graph of plugins describes (``plugins_numpy.py``). The result must match
  the network's. Triton's interpreter runs the kernels themselves in ``tests/kernels``;
- NVIDIA's own Python code registers, describes, tunes and launches the plugins (``plugins_driven.py``): it is
  ``tensorrt.plugin`` with the bindings of five versions of TensorRT, from wheels without the libraries, and with stubs;
- a fake driver (``plugins_fake.c``) logs the arguments that the launcher of ``IPluginV3`` passes.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from framecast.errors import EngineError, ExportError
from framecast.export.plugins import rewrite
from framecast.export.plugins.candidates import packed
from framecast.export.plugins.operators import Tensor, compiled, parameters, parsed
from framecast.graph.mixed_precision import to_half
from framecast.graph.tensorrt_workarounds import fixed
from framecast.kernels.cross import Compiled
from framecast.runtime.engines.tensorrt import plugin
from framecast.runtime.engines.tensorrt.plugin import NAME, Launch, Plugin

triton = pytest.importorskip("triton", reason="Triton is for Linux: pip install 'framecast[triton]'")
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("Triton interprets in this process, and cannot compile", allow_module_level=True)

from framecast.export.plugins.aot import without_scratch  # noqa: E402 (needs Triton)

from ..exported import exported  # noqa: E402, TID252 (pytest's importlib mode puts no folder of tests on the path)
from .plugins_numpy import by_kernels, by_launches, constants, evaluator  # noqa: E402, TID252

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# JetPack 6; the first version with kernels inside engines; JetPack 7.0; JetPack 7.2; and 11, always strongly typed.
VERSIONS = ("10.3", "10.9", "10.13", "10.16", "11.4")
ARCH, PTX, BATCH = 87, 85, 2
NETWORKS = ("stip", "astm", "stau")
PRECISIONS = ("fp32", "fp16")


@pytest.fixture(autouse=True, scope="module")
def empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


@cache
def network(name: str, precision: str) -> ModelProto:
    """A small network for two cameras. Every gate gets its own constants, because the exporter merges equal ones."""
    proto = fixed(exported(name), BATCH)
    random = np.random.default_rng(1)
    extra = []
    for index, node in enumerate(proto.graph.node):
        for slot, input_ in enumerate(node.input if node.op_type == "stgru_gates" else ()):
            constant = next((i for i in proto.graph.initializer if i.name == input_), None)
            if constant is not None:
                values = numpy_helper.to_array(constant) + random.normal(0, 0.3, constant.dims).astype(np.float32)
                node.input[slot] = f"{input_}.{index}.{slot}"
                extra.append(numpy_helper.from_array(values, node.input[slot]))
    proto.graph.initializer.extend(extra)
    return to_half(proto) if precision == "fp16" else proto


def rollout(session: ReferenceEvaluator, proto: ModelProto, steps: int) -> list[np.ndarray]:
    """A network's predictions over some steps; each step reads the state that the last one wrote."""
    random = np.random.default_rng(0)
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in proto.graph.input}
    state = {name: np.zeros(shape, np.float32) for name, shape in shapes.items() if name != "frame"}
    gave = []
    for _ in range(steps):
        frame = random.random(shapes["frame"]).astype(np.float32)
        values = session.run(None, {"frame": frame, **state})
        outputs = dict(zip([o.name for o in proto.graph.output], values, strict=True))
        gave.append(outputs["prediction"])
        for name, value in outputs.items():
            kept = f"state.{name.removeprefix('next.')}"
            if kept in state:
                state[kept] = value
            elif f"{kept}.0" in state:  # a history, the newest first
                slots = sorted(slot for slot in state if re.fullmatch(rf"{re.escape(kept)}\.\d+", slot))
                state |= dict(zip(slots, [value, *(state[slot] for slot in slots[:-1])], strict=True))
    return gave


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_of_plugins_matches_the_network(name: str, precision: str) -> None:
    proto = network(name, precision)
    before = proto.SerializeToString()
    expected = rollout(ReferenceEvaluator(proto), proto, 3)
    aot, placed = rewrite.with_aot(proto)
    whole, sites = rewrite.with_v3(proto, NAME)
    plugins = [packed(place, ARCH, PTX) for place in sites]
    tolerance = 2e-5 if precision == "fp32" else 2e-3  # float16 rounds the inputs
    for graph, run in ((aot, by_kernels(placed)), (whole, by_launches(sites, plugins))):
        onnx.checker.check_model(graph, full_check=True)
        for actual, wanted in zip(rollout(evaluator(graph, run), proto, 3), expected, strict=True):
            assert np.abs(actual - wanted).max() < tolerance
    assert proto.SerializeToString() == before


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_rest_of_the_graph_does_not_change(name: str, precision: str) -> None:
    proto = network(name, precision)
    functions = {function.name for function in proto.functions}
    ours = [node for node in proto.graph.node if parsed(node.op_type)]
    others = [n for n in proto.graph.node if not parsed(n.op_type)]
    for graph, placed in (rewrite.with_aot(proto), rewrite.with_v3(proto, NAME)):
        nodes = [node for node in graph.graph.node if node.name.startswith(rewrite.PREFIX)]
        assert [node.name for node in nodes] == [place.node for place in placed]
        assert len(nodes) >= len(ours) > 0
        kept = [node for node in graph.graph.node if not node.name.startswith(rewrite.PREFIX)]
        gone = [node for node in others if node not in kept]
        assert kept == [node for node in others if node in kept]
        assert {node.op_type for node in gone} <= {"Cast"}
        assert (len(gone) > 0) == (
            precision == "fp16" and name == "stip"
        )  # stip's kernel reads the float16 convolutions directly
        # No function has a plugin's name, so the parser cannot confuse them. None of our functions is left.
        assert functions.isdisjoint({node.op_type for node in nodes})
        assert {f.name for f in graph.functions} == {f for f in functions if not parsed(f)}
        for field in ("input", "output", "initializer"):
            assert getattr(graph.graph, field) == getattr(proto.graph, field)
        assert graph.metadata_props == proto.metadata_props
        for node in nodes:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            assert (attributes["plugin_namespace"], attributes["plugin_version"]) == (b"framecast", b"1")


def test_networks_without_our_operators_or_fixed_sizes() -> None:
    tau = fixed(exported("tau"), 1)
    assert not rewrite.has_operators(tau)
    assert rewrite.with_aot(tau)[1] == []
    assert rewrite.has_operators(network("astm", "fp32"))
    with pytest.raises(ExportError, match=r"has no fixed shape \[B, C, H, W\]"):
        rewrite.with_aot(exported("stip"))


def kernels() -> list[Any]:
    found = [k for n in NETWORKS for p in PRECISIONS for k in rewrite.kernels(rewrite.with_aot(network(n, p))[1])]
    return list({kernel.name: kernel for kernel in found}.values())


def test_the_ptx_takes_the_arguments_of_the_plugin() -> None:
    """The pointers are those of the node's inputs, then its outputs. The grid covers all elements."""
    for kernel in kernels():
        built = compiled(kernel, ARCH, PTX)
        ptx = without_scratch(built)
        ((name, taken),) = re.findall(r"\.visible \.entry (\w+)\((.*?)\)", ptx, re.DOTALL)
        assert name == built.name
        tensors = (*kernel.inputs, *kernel.outputs)
        assert re.findall(r"\.param \.(\w+)", taken) == ["u64"] * len(tensors)
        assert built.parameters == tuple(
            (name, f"*{tensor.dtype}") for name, tensor in zip(parameters(kernel), tensors, strict=True)
        )
        assert set(re.findall(r"_param_(\d+)\]", ptx)) == {str(i) for i in range(len(tensors))}  # all are read
        assert ".version 8.5" in ptx
        assert f".target sm_{ARCH}" in ptx
        assert re.findall(r"\.reqntid (\d+)", ptx) == [str(32 * built.num_warps)]
        sizes = constants(kernel)
        covered = sizes["block"] * sizes.get("tiles", 1)
        written = kernel.outputs[0] if "tiles" not in sizes else kernel.inputs[0]  # a reduction's grid: its input
        assert sizes["size"] == math.prod(written.shape[1:])
        assert (built.grid[0] - 1) * covered < sizes["size"] <= built.grid[0] * covered
        assert built.grid[1] == BATCH
        if kernel.kernel in ("stgru_statistics", "stau_scores"):
            assert built.grid[0] == kernel.outputs[0].shape[-1]


def test_the_machine_code_does_not_change(tmp_path: Path) -> None:
    """The parameters that we remove from the PTX are unused."""
    for kernel in {kernel.kernel: kernel for kernel in kernels()}.values():
        built = compiled(kernel, ARCH, PTX)
        assert machine_code(without_scratch(built), tmp_path) == machine_code(built.ptx, tmp_path)


def machine_code(ptx: str, folder: Path) -> list[str]:
    """The instructions, as disassembled."""
    source, binary = folder / "kernel.ptx", folder / "kernel.cubin"
    source.write_text(ptx)
    tools = triton.knobs.nvidia
    subprocess.run([tools.ptxas.path, f"--gpu-name=sm_{ARCH}", source, "-o", binary], check=True)
    command = [tools.cuobjdump.path, "-sass", binary]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"/\*\w{4}\*/ +(.*?);", text)
    assert len(found) > 30
    return found


def test_a_kernels_name_identifies_it() -> None:
    assert len({kernel.name for kernel in kernels()}) == len(set(kernels()))
    built = compiled(next(k for k in kernels() if k.kernel == "stgru_statistics"), ARCH, PTX)
    with pytest.raises(EngineError, match="takes 3 parameters, not 3 and 2 unused"):
        without_scratch(replace(built, ptx=without_scratch(built)))


@pytest.fixture(scope="module")
def gcc() -> str:
    found = shutil.which("gcc") or shutil.which("cc")
    if found is None:
        pytest.skip("no C compiler for the stub libraries: apt install gcc")
    return found


@pytest.fixture(scope="module")
def stubs(gcc: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stubs of the libraries that the bindings are linked to."""
    folder = tmp_path_factory.mktemp("stubs")
    names = [f"create{kind}_INTERNAL" for kind in ("InferBuilder", "InferRefitter", "InferRuntime")]
    names += [f"createNvOnnxParser{kind}_INTERNAL" for kind in ("", "Refitter")]
    names += ["getBuilderPluginRegistry", "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins"]
    source = folder / "stubs.c"
    source.write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in names))
    command = [gcc, "-shared", "-fPIC", "-o", str(folder / "stubs.so"), str(source)]
    subprocess.run(command, check=True)
    for library in ("nvinfer", "nvonnxparser", "nvinfer_plugin"):
        for major in (10, 11):
            (folder / f"lib{library}.so.{major}").symlink_to("stubs.so")
    return folder


def test_the_versions_match_the_makefile() -> None:
    pinned = re.search(r"^BINDINGS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert pinned
    assert [".".join(version.split(".")[:2]) for version in pinned[1].split()] == list(VERSIONS)


@pytest.mark.parametrize(
    "version",  # the two at the ends tell nearly all, in every run
    [VERSIONS[0], *(pytest.param(version, marks=pytest.mark.slow) for version in VERSIONS[1:-1]), VERSIONS[-1]],
)
def test_plugins_work_in_tensorrts_own_python_layer(version: str, stubs: Path, tmp_path: Path) -> None:
    bindings = ROOT / ".venv" / "tensorrt" / version
    if not bindings.exists():
        pytest.skip(f"no bindings of TensorRT {version} in .venv/tensorrt: make bindings (Linux, x86-64)")
    graphs = {
        name: network(name, precision) for name, precision in (("stip", "fp16"), ("astm", "fp32"), ("stau", "fp32"))
    }
    for name, proto in graphs.items():
        onnx.save(proto, tmp_path / f"{name}.onnx")
    places = map(str, (bindings, tmp_path, *sorted(tmp_path.glob("*.onnx"))))
    command = [sys.executable, "-m", "tests.export.plugins_driven", *places]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stubs)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    first, *lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert first["version"].startswith(f"{version}.")
    assert first["missing"] == []  # names of TensorRT that our code uses
    assert first["errors"] == ["INTERNAL_ERROR", "ERROR"]
    assert (first["went on"], first["shares"]) == ([True, True], [0.5, 0.5, 1.0])
    assert all(first["kinds"])
    assert first["rungs"] == (["v3"] if version == "10.3" else ["aot", "v3"])
    for name, proto in graphs.items():
        check_driven(proto, [line for line in lines if line["graph"] == name], first["rungs"])


def check_driven(proto: ModelProto, lines: list[dict[str, Any]], rungs: list[str]) -> None:
    """Check that each plugin's description for TensorRT matches the graph's kernels."""
    placed, sites = rewrite.with_aot(proto)[1] if "aot" in rungs else [], rewrite.with_v3(proto, NAME)[1]
    assert [line["node"] for line in lines] == [place.node for place in (*placed, *sites)]
    for line, place in zip(lines, placed, strict=False):
        (call,) = place.calls
        built = compiled(call.kernel, ARCH, PTX)
        tensors = [*call.kernel.inputs, *call.kernel.outputs]
        assert (tuple(line["inputs"]), tuple(line["outputs"])) == (call.inputs, call.outputs)
        assert [Tensor(tuple(s), t) for s, t in zip(line["shapes"], line["types"], strict=True)] == [
            *call.kernel.outputs
        ]
        assert line["formats"] == [[tensor.dtype, "LINEAR"] for tensor in tensors]
        assert (line["tactics"], line["extra"], line["kernel"]) == ([], 0, built.name)
        assert (line["grid"], line["block"]) == ([*built.grid, 1], [32 * built.num_warps, 1, 1])
        assert line["shared"] == built.shared
        assert Path(line["ptx"]).read_text() == without_scratch(built)
    for line, place in zip(lines[len(placed) :], sites, strict=True):
        plugin_ = packed(place, ARCH, PTX)
        assert line["named"] == [NAME, "1", "framecast", len(place.outputs)]
        assert line["types"] == list(plugin_.types[len(place.inputs) :])
        assert line["like"] == list(plugin_.like)
        assert line["takes"] == [True] * len(plugin_.types)
        assert not any(line["takes others"])
        assert line["workspace"] == plugin_.workspace
        assert line["fields"] == len(plugin_.to_words())


def test_the_launcher_passes_the_right_arguments_to_the_driver(
    gcc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "libfake.so"
    subprocess.run([gcc, "-shared", "-fPIC", "-o", driver, HERE / "plugins_fake.c"], check=True)
    fake = ctypes.CDLL(str(driver))
    monkeypatch.setattr(plugin, "libcuda_", lambda: fake)
    plugin.function.cache_clear()
    (place, *_) = rewrite.with_v3(network("stip", "fp16"), NAME)[1]
    whole = packed(place, ARCH, PTX)
    counts = (ctypes.c_int * 64).in_dll(fake, "counts")
    counts[:4] = [5, 13, 5, 13]
    # Addresses of more than 32 bits, like a GPU's.
    inputs, outputs = [0x7F0000000000 + 256 * i for i in range(8)], [0x7E0000000000 + 256 * i for i in range(2)]
    workspace, stream = 0x7D0000000000, 0x556677889900
    for _ in range(2):
        plugin.enqueue(whole, inputs, outputs, workspace, stream)
    log = (ctypes.c_uint64 * 74 * 64).in_dll(fake, "launches")
    statistics, gates = (compiled(call.kernel, ARCH, PTX) for call in place.calls)

    def header(handle: int, kernel: Compiled) -> list[int]:
        return [handle, *kernel.grid, 1, 32 * kernel.num_warps, 1, 1, kernel.shared, stream, 0]

    first = [*header(1, statistics), inputs[0], inputs[3], workspace, 0, 0]
    second = [*header(2, gates), *inputs, workspace, *outputs, 0, 0]
    assert [log[i][: len(w)] for i, w in enumerate([first, second, first, second])] == [first, second, first, second]
    assert ctypes.c_int.in_dll(fake, "launched").value == 4
    assert ctypes.c_int.in_dll(fake, "loaded").value == 2  # once each, however often they are launched
    names = (ctypes.c_char * 64 * 64).in_dll(fake, "names")
    assert [names[i].value for i in range(2)] == [b"statistics_kernel", b"norm_gates_kernel"]
    ctypes.c_int.in_dll(fake, "code").value = 700
    with pytest.raises(EngineError, match=r"cannot launch statistics_kernel \(error 700\)"):
        plugin.enqueue(whole, inputs, outputs, workspace, stream)
    broken = Plugin((Launch("kernel", b"PTX?", (1, 1), 32, 0, ()),), (), (), 0)
    with pytest.raises(EngineError, match=r"rejects the kernel kernel \(error 200\): build the engine again"):
        plugin.enqueue(broken, [], [], 0, 0)
    plugin.function.cache_clear()


def test_the_workspace_holds_the_partial_results() -> None:
    """The workspace is aligned like tensors. Plugins without partial results need none."""
    for name in NETWORKS:
        for place in rewrite.with_v3(network(name, "fp32"), NAME)[1]:
            whole = packed(place, ARCH, PTX)
            between = [t for call in place.calls[:-1] for t in call.kernel.outputs]
            assert whole.workspace >= sum(tensor.size for tensor in between)
            assert whole.workspace % 256 == 0
            assert (whole.workspace > 0) == (name != "astm")
            assert Plugin.from_words([int(word) for word in whole.to_words()]) == whole
    with pytest.raises(EngineError, match="a plugin in the engine is damaged: build it again"):
        Plugin.from_words([5, 1, 2])
    with pytest.raises(EngineError, match="a plugin in the engine is damaged"):
        Plugin.from_words([])
