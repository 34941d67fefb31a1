"""Our operators in torch: each is one operator, is differentiable, and can be switched to plain torch."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from framecast.errors import OptionError
from framecast.kernels import switch
from framecast.kernels.eifag import reference as eifag_reference
from framecast.kernels.eifag.operator import eifag
from framecast.kernels.stau_attention import reference as stau_reference
from framecast.kernels.stau_attention.operator import stau_attention
from framecast.kernels.stgru_gates import reference as stgru_reference
from framecast.kernels.stgru_gates.operator import stgru_gates

from . import cases  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

SHAPE = (2, 3, 4, 5)
ARGUMENTS = {
    "stgru_gates": lambda: cases.stgru_gates(SHAPE),
    "eifag": lambda: cases.eifag(SHAPE, 3, [1.0, 3.0]),
    "stau_attention": lambda: cases.stau_attention(SHAPE, 3),
}
REFERENCES: dict[str, Callable[..., Any]] = {
    "stgru_gates": stgru_reference.stgru_gates,
    "eifag": eifag_reference.eifag,
    "stau_attention": stau_reference.stau_attention,
}
PUBLIC: dict[str, Callable[..., Any]] = {
    "stgru_gates": lambda *a: stgru_gates(
        *a[:8], forget_bias=a[8], eps=a[9], **dict(zip(("added_t", "added_s"), a[10:], strict=False))
    ),
    "eifag": lambda *a: eifag(*a[:5], forget_bias=a[5]),
    "stau_attention": lambda *a: stau_attention(*a[:5], scale=a[5]),
}
every_operator = pytest.mark.parametrize("name", ARGUMENTS)


def operator(name: str) -> Any:
    return getattr(torch.ops.framecast, name)


def leaves(arguments: list[Any], *, every: int = 1) -> list[Any]:
    """New leaf tensors; only each ``every``-th one requires a gradient."""
    number = iter(range(100))
    new: list[Any] = tree_map(
        lambda x: x.detach().requires_grad_(next(number) % every == 0) if isinstance(x, Tensor) else x, arguments
    )
    return new


def gradients(function: Any, arguments: list[Any], seeds: list[Tensor]) -> list[Tensor | None]:
    results = tree_leaves(function(*arguments))
    torch.autograd.backward(results, [seed.to(x.dtype) for seed, x in zip(seeds, results, strict=True)])
    return [x.grad for x in tree_leaves(arguments) if isinstance(x, Tensor)]


def seeds_for(name: str) -> list[Tensor]:
    return [torch.randn(SHAPE, dtype=torch.float64) for _ in range(2 if name == "stgru_gates" else 1)]


@pytest.fixture
def kernels_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the public functions treat the CPU as a device with kernels; its operators still run the reference."""
    monkeypatch.setattr(switch, "DEVICES", frozenset({"cpu"}))
    monkeypatch.setattr(switch, "INSTALLED", True)
    torch.compiler.reset()


@every_operator
def test_operator_with_a_backward_is_well_formed(name: str) -> None:
    torch.library.opcheck(operator(name).default, tuple(leaves(ARGUMENTS[name]())))


@every_operator
@pytest.mark.parametrize("every", [1, 2])
def test_backward_matches_the_reference(name: str, every: int) -> None:
    arguments, seeds = cases.double(ARGUMENTS[name]()), seeds_for(name)
    actual = gradients(operator(name), leaves(arguments, every=every), seeds)
    expected = gradients(REFERENCES[name], leaves(arguments, every=every), seeds)
    assert [x is None for x in actual] == [x is None for x in expected]
    assert sum(x is not None for x in actual) >= 3
    for x, y in zip(actual, expected, strict=True):
        assert x is None or (y is not None and (x - y).abs().max() < 1e-12)


@every_operator
def test_gradients_of_halves_are_summed_in_float32(name: str) -> None:
    arguments, seeds = ARGUMENTS[name](), seeds_for(name)
    halves = tree_map(lambda x: x.bfloat16() if isinstance(x, Tensor) else x, arguments)
    actual = gradients(operator(name), leaves(halves), [x.bfloat16() for x in seeds])
    expected = gradients(REFERENCES[name], leaves(cases.double(halves)), [x.bfloat16().double() for x in seeds])
    for x, y in zip(actual, expected, strict=True):
        if y is not None:
            assert x is not None
            assert x.dtype == torch.bfloat16
            assert ((x - y).abs() <= 2**-8 * y.abs() + 1e-5).all()  # rounded once


@every_operator
def test_types_may_differ(name: str) -> None:
    halves = tree_map(lambda x: x.half() if isinstance(x, Tensor) and x.shape == SHAPE else x, ARGUMENTS[name]())
    expected = REFERENCES[name](*cases.double(halves))
    for x, y in zip(tree_leaves(operator(name)(*halves)), tree_leaves(expected), strict=True):
        assert x.dtype == torch.float16
        assert (x - y).abs().max() < 1e-2


@every_operator
def test_autocast_runs_it_in_float32(name: str) -> None:
    arguments = ARGUMENTS[name]()
    halves = tree_map(lambda x: x.bfloat16() if isinstance(x, Tensor) else x, arguments)
    with torch.autocast("cpu", torch.bfloat16):
        results = tree_leaves(operator(name)(*halves))
    for x, y in zip(results, tree_leaves(REFERENCES[name](*cases.double(halves))), strict=True):
        assert x.dtype == torch.float32
        assert (x - y).abs().max() < 1e-4


@every_operator
def test_results_have_the_layout_that_a_compiler_expects(name: str) -> None:
    """Results are contiguous. Only the gates keep channels-last, because networks run the gates in that layout."""
    strided = tree_map(
        lambda x: x.to(memory_format=torch.channels_last) if isinstance(x, Tensor) and x.ndim == 4 else x,
        ARGUMENTS[name](),
    )
    torch.library.opcheck(operator(name).default, tuple(strided), test_utils=("test_faketensor",))
    layout = torch.channels_last if name == "stgru_gates" else torch.contiguous_format
    assert all(x.is_contiguous(memory_format=layout) for x in tree_leaves(operator(name)(*strided)))
    assert all(x.is_contiguous() for x in tree_leaves(operator(name)(*ARGUMENTS[name]())))


@pytest.mark.parametrize("last", [6, 7])
def test_results_have_the_layout_of_the_first_state(last: int) -> None:
    """The operator's layout must match the kernel's, because a compiler relies on it."""
    arguments = ARGUMENTS["stgru_gates"]()
    arguments[last] = arguments[last].to(memory_format=torch.channels_last)
    torch.library.opcheck(operator("stgru_gates").default, tuple(arguments), test_utils=("test_faketensor",))
    layout = torch.channels_last if last == 6 else torch.contiguous_format
    assert all(x.is_contiguous(memory_format=layout) for x in operator("stgru_gates")(*arguments))


def test_one_bias_without_the_other_is_refused() -> None:
    with pytest.raises(OptionError, match="give both added_t and added_s"):
        PUBLIC["stgru_gates"](*ARGUMENTS["stgru_gates"](), torch.randn(4 * SHAPE[1]))


def test_the_gates_can_add_the_biases_of_the_convolutions() -> None:
    arguments = [*ARGUMENTS["stgru_gates"](), torch.randn(4 * SHAPE[1]), torch.randn(4 * SHAPE[1])]
    torch.library.opcheck(operator("stgru_gates").default, tuple(leaves(arguments)))
    *plain, added_t, added_s = cases.double(arguments)
    added = [plain[0] + added_t[:, None, None], *plain[1:3], plain[3] + added_s[:, None, None], *plain[4:]]
    expected = REFERENCES["stgru_gates"](*added)
    seeds = seeds_for("stgru_gates")
    wanted = gradients(REFERENCES["stgru_gates"], leaves(added), seeds)
    got = gradients(operator("stgru_gates"), leaves(cases.double(arguments)), seeds)
    for x, y in zip(got, [*wanted, wanted[0], wanted[3]], strict=True):
        assert x is not None
        assert y is not None
        assert torch.allclose(x, y if x.shape == y.shape else y.sum((0, 2, 3)), rtol=0, atol=1e-10)
    for x, y in zip(PUBLIC["stgru_gates"](*plain, added_t, added_s), expected, strict=True):
        assert torch.allclose(x, y, rtol=0, atol=1e-12)


class Seen(TorchDispatchMode):
    """Records the names of the operators that run, on any device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@every_operator
def test_on_cuda_it_is_one_operator_unless_switched_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "INSTALLED", True)

    def ran(*, dtype: torch.dtype = torch.float32, device: str = "cuda") -> list[str]:
        with FakeTensorMode(), Seen() as seen:  # CUDA tensors without a GPU
            arguments = tree_map(
                lambda x: torch.empty(x.shape, dtype=dtype, device=device) if isinstance(x, Tensor) else x,
                ARGUMENTS[name](),
            )
            seen.names.clear()
            PUBLIC[name](*arguments)
        names: list[str] = seen.names
        return names

    one = [f"framecast.{name}.default"]
    assert ran() == one
    assert ran(dtype=torch.float16) == one
    with switch.plain():
        assert one[0] not in ran()
        with switch.plain():
            pass
        assert one[0] not in ran()
        in_thread: list[str] = []
        thread = threading.Thread(target=lambda: in_thread.extend(ran()))
        thread.start()
        thread.join()
        assert in_thread
        assert one[0] not in in_thread
    assert ran() == one
    assert one[0] not in ran(device="cpu")
    assert one[0] not in ran(dtype=torch.float64)  # no kernel takes float64
    monkeypatch.setattr(switch, "INSTALLED", False)
    assert one[0] not in ran()


def test_the_switch_is_back_on_after_an_error() -> None:
    before = switch.on()
    with pytest.raises(ZeroDivisionError), switch.plain():
        _ = 1 / switch.on()
    assert switch.on() == before


@every_operator
@pytest.mark.usefixtures("kernels_on_the_cpu")
def test_a_compiler_sees_one_operator(name: str) -> None:
    graphs: list[list[str]] = []

    def backend(module: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append([str(node.target) for node in module.graph.nodes if node.op.startswith("call")])
        return module.forward

    compiled = torch.compile(PUBLIC[name], fullgraph=True, backend=backend)
    arguments = ARGUMENTS[name]()
    expected = tree_leaves(REFERENCES[name](*arguments))

    def check() -> None:
        for x, y in zip(tree_leaves(compiled(*arguments)), expected, strict=True):
            assert torch.allclose(x, y, atol=1e-6)

    check()
    assert sum("framecast" in target for target in graphs[-1]) == 1
    assert not any("sigmoid" in target for target in graphs[-1])
    with switch.plain():
        check()
    assert len(graphs) == 2  # traced again
    assert not any("framecast" in target for target in graphs[-1])
    check()
    assert len(graphs) == 2


@every_operator
@pytest.mark.usefixtures("kernels_on_the_cpu")
def test_gradients_of_the_compiled_operator(name: str) -> None:
    arguments, seeds = ARGUMENTS[name](), seeds_for(name)
    compiled = torch.compile(PUBLIC[name], fullgraph=True, backend="aot_eager")
    actual = gradients(compiled, leaves(arguments), seeds)
    for x, y in zip(actual, gradients(REFERENCES[name], leaves(arguments), seeds), strict=True):
        assert (x is None) == (y is None)
        assert x is None or (y is not None and torch.allclose(x, y, atol=1e-5))


@every_operator
def test_an_export_sees_one_operator_even_if_switched_off(name: str) -> None:
    class Network(nn.Module):
        def forward(self, *arguments: Any) -> Any:
            return PUBLIC[name](*arguments)

    with switch.plain():
        program = torch.export.export(Network(), tuple(ARGUMENTS[name]()))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets.count(f"framecast.{name}.default") == 1
    assert not any("sigmoid" in target for target in targets)


def test_triton_is_not_imported_before_a_kernel_runs() -> None:
    code = "import sys, framecast.models.stip, framecast.models.stau, framecast.models.astm\n"
    subprocess.run([sys.executable, "-c", code + "assert 'triton' not in sys.modules"], check=True)
