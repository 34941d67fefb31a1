"""Our kernels as TensorRT plugins: their PTX runs on the CPU (``tests/kernels/ptx``), launched as in an engine.

For ahead-of-time plugins the test uses the PTX, grid and argument order that go into an engine. For an ``IPluginV3`` a
fake driver receives the launcher's calls. It maps the machine code that it gets back to the PTX.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from unittest import mock

import pytest
from torch import Tensor

triton = pytest.importorskip("triton", reason="Triton is for Linux: pip install 'framecast[triton]'")
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("Triton interprets in this process, and cannot compile", allow_module_level=True)

from framecast.export.plugins import aot, operators  # noqa: E402 (needs Triton)
from framecast.export.plugins.candidates import packed  # noqa: E402
from framecast.export.plugins.rewrite import Placed  # noqa: E402
from framecast.kernels import cross  # noqa: E402
from framecast.runtime.engines.tensorrt import plugin as v3  # noqa: E402

from ..kernels import cases  # noqa: E402, TID252 (pytest's importlib mode puts no folder of tests on the path)
from ..kernels.ptx.driver import Aot, Driver  # noqa: E402, TID252
from ..kernels.ptx.memory import Memory  # noqa: E402, TID252
from ..kernels.ptx.operators import TOLERANCES, Case, expected, given, pointers, raw, tensor  # noqa: E402, TID252
from ..kernels.ptx.parse import Fault  # noqa: E402, TID252

ARCH, PTX = 87, 85
ALIGNED = 256  # bytes: alignment of TensorRT's tensors and workspace
SMALL = (7, 9, 11), 5  # shape, batch; 5 samples of different ages, so that swapping two EIFAG cells changes a result
OPERATORS = {"stgru": "stgru_gates", "eifag": "eifag", "stau": "stau_attention"}


@pytest.fixture(autouse=True, scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        patch.setattr(cross, "_resources", lambda ptx, arch: (0, 0))  # saves another run of ptxas
        operators.compiled.cache_clear()
        yield
        operators.compiled.cache_clear()


class Node:
    """A node of one of our operators, with values for its inputs.

    Args:
        case: the operator, its sizes and constants.
        halves: whether the inputs that may be float16 are.
    """

    def __init__(self, case: Case, halves: bool) -> None:
        named = given(case.operator, case.shape, case.batch, case.dtype)
        flat = {name: value for name, value in pointers(case).items() if not name.startswith("added")}
        constants = {name: value for name, value in named.items() if isinstance(value, float)}
        attributes = {"epsilon" if name == "eps" else name: value for name, value in constants.items()}
        slots = sum(name.startswith(("cells", "keys")) for name in flat)
        names, outputs = tuple(flat), ("new_t", "new_s") if case.operator == "stgru" else ("new",)
        site = operators.Site(OPERATORS[case.operator], slots, names, outputs, (), attributes)
        narrow = operators.narrow(site) if halves else []
        # In the graph, scales and biases are float32 constants.
        types = ["fp16" if i in narrow and flat[name].dim() == 4 else "fp32" for i, name in enumerate(names)]
        shapes = [tuple(value.shape) for value in flat.values()]
        tensors = tuple(operators.Tensor(*described) for described in zip(shapes, types, strict=True))
        self.case, self.outputs, self.types = case, outputs, dict(zip(names, types, strict=True))
        self.calls = tuple(operators.calls(replace(site, tensors=tensors)))
        self.place = Placed(f"plugin.{case.operator}", names, outputs, self.calls)
        self.memory = Memory()
        self.inputs = [
            self.memory.add(name, raw(value, self.types[name]), aligned=ALIGNED) for name, value in flat.items()
        ]

    def space(self, name: str, tensor: operators.Tensor) -> int:
        return self.memory.space(name, tensor.size, aligned=ALIGNED)

    def off(self, outputs: list[int]) -> float:
        """The outputs' error against float64 as a multiple of the tolerance; float16 inputs are exact."""
        shape = (self.case.batch, *self.case.shape)
        results: list[Tensor] = [tensor(self.memory, address, shape, "fp32") for address in outputs]
        return cases.error(tuple(results), expected(self.case)) / TOLERANCES["fp32"]


def node(operator: str, halves: bool, shape: tuple[int, int, int], batch: int) -> Node:
    return Node(Case(operator, ARCH, "fp16" if halves else "fp32", shape, batch), halves)


CASES = [
    ("stgru", True, (64, 17, 30), 1),
    ("stgru", False, (64, 16, 16), 3),
    ("eifag", True, (64, 16, 16), 3),
    ("stau", True, (64, 17, 30), 1),
]


def run_aot(node: Node, change: Callable[[list[int]], list[int]] = list) -> float:
    """Run one plugin per kernel; like TensorRT, keep partial results in tensors between them."""
    fake = Aot()
    with fake.installed(), mock.patch.dict(aot._targets, clear=True):
        aot.register(fake.trt, [call.kernel for call in node.calls], ARCH, PTX)
        places = dict(zip(node.place.inputs, node.inputs, strict=True))
        for call in node.calls:
            for name, described in zip(call.outputs, call.kernel.outputs, strict=True):
                places[name] = node.space(name, described)
            arguments = [places[name] for name in (*call.inputs, *call.outputs)]
            fake.run(node.memory, f"{v3.NAMESPACE}::{call.kernel.name}", change(arguments))
    return node.off([places[name] for name in node.outputs])


def run_v3(node: Node, plugin: v3.Plugin) -> tuple[float, list[str]]:
    """Run one plugin per operator, serialized and read back as in an engine."""
    built = [operators.compiled(call.kernel, ARCH, PTX) for call in node.calls]
    driver = Driver(node.memory, {one.cubin: one.ptx for one in built})
    shape = operators.Tensor((node.case.batch, *node.case.shape))
    outputs = [node.space(name, shape) for name in node.outputs]
    workspace = node.memory.space("workspace", plugin.workspace, aligned=ALIGNED) if plugin.workspace else 0
    read = v3.Plugin.from_words([int(word) for word in plugin.to_words()])
    v3.function.cache_clear()
    with mock.patch.object(v3, "libcuda_", return_value=driver):
        v3.enqueue(read, node.inputs, outputs, workspace, 0)
    v3.function.cache_clear()
    return node.off(outputs), driver.launched


@pytest.mark.parametrize(("operator", "halves", "shape", "batch"), CASES)
def test_plugins_compute_the_operator(operator: str, halves: bool, shape: tuple[int, int, int], batch: int) -> None:
    assert run_aot(node(operator, halves, shape, batch)) <= 1
    whole = node(operator, halves, shape, batch)
    off, launched = run_v3(whole, packed(whole.place, ARCH, PTX))
    assert off <= 1
    assert len(launched) == len(whole.calls)


def found(run: Callable[[], float]) -> bool:
    """Whether the run detects a mistake, by a fault or by wrong numbers."""
    try:
        return not run() <= 1
    except Fault:
        return True


def wrong(operator: str, plugin: v3.Plugin) -> bool:
    return found(lambda: run_v3(node(operator, False, *SMALL), plugin)[0])


@pytest.mark.parametrize("operator", OPERATORS)
def test_swapped_arguments_are_detected(operator: str) -> None:
    """Swap any two adjacent arguments of the last launch, in both kinds of plugins."""
    first = node(operator, False, *SMALL)
    plugin = packed(first.place, ARCH, PTX)
    *before, last = plugin.launches
    assert run_v3(first, plugin)[0] <= 1
    for i in range(len(last.arguments) - 1):
        arguments = list(last.arguments)
        arguments[i : i + 2] = arguments[i + 1], arguments[i]
        broken = replace(plugin, launches=(*before, replace(last, arguments=tuple(arguments))))
        assert wrong(operator, broken), arguments

        def swapped(given: list[int], i: int = i) -> list[int]:
            if len(given) == len(last.arguments):
                given[i : i + 2] = given[i + 1], given[i]
            return given

        assert found(partial(run_aot, node(operator, False, *SMALL), swapped)), arguments


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_wrong_launch_is_detected(operator: str) -> None:
    """A grid that is off by one, a misplaced or small workspace, too few threads."""
    whole = node(operator, False, *SMALL)
    plugin = packed(whole.place, ARCH, PTX)
    for i, launch in enumerate(plugin.launches):
        x, y = launch.grid
        assert min(x, y) > 1
        for grid in ((x - 1, y), (x, y - 1), (x, y + 1)):
            launches = list(plugin.launches)
            launches[i] = replace(launch, grid=grid)
            assert wrong(operator, replace(plugin, launches=tuple(launches))), (launch.name, grid)
    fewer = replace(plugin, launches=tuple(replace(launch, threads=launch.threads // 2) for launch in plugin.launches))
    assert wrong(operator, fewer)
    if plugin.workspace:
        part = plugin.launches[0].arguments
        assert part[-1][0] == "workspace"
        moved = replace(plugin.launches[0], arguments=(*part[:-1], ("workspace", 16)))
        assert wrong(operator, replace(plugin, launches=(moved, *plugin.launches[1:])))
        used = whole.calls[0].kernel.outputs[0].size
        assert wrong(operator, replace(plugin, workspace=used - 4))
