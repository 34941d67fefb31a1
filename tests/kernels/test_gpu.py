"""Our Triton kernels on a GPU: every type, the sizes of every network, CUDA graphs and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from framecast.kernels import switch
from framecast.kernels.eifag import reference as eifag_reference
from framecast.kernels.eifag.operator import eifag
from framecast.kernels.stau_attention import reference as stau_reference
from framecast.kernels.stau_attention.operator import stau_attention
from framecast.kernels.stgru_gates import reference as stgru_reference
from framecast.kernels.stgru_gates.operator import stgru_gates

from . import cases  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

pytest.importorskip("triton", reason="Triton is for Linux: pip install 'framecast[triton]'")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

# Relative to max(1, |expected|). A GPU's exponentials and divisions are approximate; a half is rounded once: 2⁻¹¹, 2⁻⁸.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 6e-4, torch.bfloat16: 4.5e-3}
dtypes = pytest.mark.parametrize("dtype", cases.DTYPES.values(), ids=cases.DTYPES)
OPERATORS = ("stgru_gates", "eifag", "stau_attention")
every_operator = pytest.mark.parametrize("name", OPERATORS)
Call = Callable[..., Any]


def operator(name: str, shape: cases.Shape, dtype: torch.dtype) -> tuple[Call, Call, cases.Arguments]:
    """The public function, the reference, and new inputs for both."""
    if name == "stgru_gates":
        arguments = cases.stgru_gates(shape, dtype, device="cuda")
        return (lambda *a: stgru_gates(*a[:8], forget_bias=a[8], eps=a[9])), stgru_reference.stgru_gates, arguments
    if name == "eifag":
        arguments = cases.eifag(shape, 5, [float(i % 6) for i in range(2, shape[0] + 2)], dtype, device="cuda")
        return (lambda *a: eifag(*a[:5], forget_bias=a[5])), eifag_reference.eifag, arguments
    arguments = cases.stau_attention(shape, 5, dtype, device="cuda", spread=1.5)
    return (lambda *a: stau_attention(*a[:5], scale=a[5])), stau_reference.stau_attention, arguments


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fill new tensors with NaN, so that missing writes show."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def check(actual: Any, reference: Call, arguments: cases.Arguments, dtype: torch.dtype) -> None:
    expected = reference(*cases.double(arguments))
    assert [x.dtype for x in tree_leaves(actual)] == [dtype for _ in tree_leaves(expected)]
    assert cases.error(actual, expected) <= TOLERANCES[dtype]


@dtypes
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("stgru_gates", (1, 64, 16, 16)),  # stip-ucf, stip-h36m
        ("stgru_gates", (1, 64, 17, 30)),  # stip-4k
        ("stgru_gates", (1, 64, 12, 16)),  # stip-edge
        ("eifag", (1, 128, 16, 16)),  # astm-mnist, astm-kth
        ("stau_attention", (1, 64, 16, 16)),  # stau-mnist, mau-mnist
        ("stau_attention", (1, 64, 16, 20)),  # stau-kitti
        ("stau_attention", (1, 64, 17, 30)),  # stau-town
        *((name, (3, 7, 9, 1)) for name in OPERATORS),
        *((name, (16, 64, 16, 16)) for name in OPERATORS),
        *((name, (2, 64, 135, 240)) for name in OPERATORS),  # several tiles per program
    ],
)
def test_kernels_equal_float64(name: str, shape: cases.Shape, dtype: torch.dtype) -> None:
    function, reference, arguments = operator(name, shape, dtype)
    assert switch.on()
    result = function(*arguments)
    check(result, reference, arguments, dtype)
    again = getattr(torch.ops.framecast, name)(*arguments)
    assert all(torch.equal(x, y) for x, y in zip(tree_leaves(result), tree_leaves(again), strict=True))


def test_a_large_mean_costs_no_digits() -> None:
    arguments = cases.stgru_gates((2, 64, 17, 30), device="cuda", offset=1e3)
    check(torch.ops.framecast.stgru_gates(*arguments), stgru_reference.stgru_gates, arguments, torch.float32)


def test_gates_alone() -> None:
    from framecast.kernels.stgru_gates import kernel

    conv_t, weight, bias, conv_s, *_, t, s, forget_bias, eps = cases.stgru_gates((2, 64, 17, 30), device="cuda")
    norm_t, norm_s = (torch.nn.functional.layer_norm(x, weight.shape, eps=eps) for x in (conv_t, conv_s))
    one, zero = torch.ones_like(weight), torch.zeros_like(bias)
    arguments = [conv_t, one, zero, conv_s, one, zero, t, s, forget_bias, eps]
    check(kernel.gates(norm_t, norm_s, t, s, forget_bias), stgru_reference.stgru_gates, arguments, torch.float32)


@every_operator
@dtypes
def test_unaligned_views(name: str, dtype: torch.dtype) -> None:
    function, reference, arguments = operator(name, (2, 8, 5, 4), dtype)

    def shifted(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        room = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)
        return room[1:].view(x.shape).copy_(x)

    arguments = tree_map(shifted, arguments)
    check(function(*arguments), reference, arguments, dtype)


@every_operator
@dtypes
def test_cuda_graph(name: str, dtype: torch.dtype) -> None:
    shape = (1, 64, 17, 30)
    function, reference, arguments = operator(name, shape, dtype)
    function(*arguments)  # compiled before it is captured
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(*arguments)
    for _ in range(3):
        fresh = operator(name, shape, dtype)[2]
        for captured, new in zip(tree_leaves(arguments), tree_leaves(fresh), strict=True):
            if isinstance(captured, Tensor):
                captured.copy_(new)
        for x in tree_leaves(result):
            x.fill_(torch.nan)
        graph.replay()
        check(result, reference, arguments, dtype)


@every_operator
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch warns that this mode is a prototype
def test_calls_do_not_wait_for_the_gpu(name: str) -> None:
    function, _, arguments = operator(name, (1, 64, 16, 16), torch.float16)
    function(*arguments)
    torch.cuda.set_sync_debug_mode("error")
    try:
        function(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every_operator
def test_backward(name: str) -> None:
    function, reference, arguments = operator(name, (2, 16, 9, 7), torch.float32)

    def gradients(call: Call, inputs: Any) -> list[Tensor | None]:
        inputs = tree_map(lambda x: x.detach().requires_grad_() if isinstance(x, Tensor) else x, inputs)
        results = tree_leaves(call(*inputs))
        torch.autograd.backward([x.square().sum() for x in results])
        return [x.grad for x in tree_leaves(inputs) if isinstance(x, Tensor)]

    for x, y in zip(gradients(function, arguments), gradients(reference, cases.double(arguments)), strict=True):
        if x is None or y is None:
            assert x is None or not x.any()
        else:
            assert ((x - y).abs() / y.abs().clamp(min=1)).max() < 1e-4


@every_operator
def test_switched_off_it_is_plain_torch(name: str) -> None:
    function, reference, arguments = operator(name, (1, 64, 16, 16), torch.float32)
    with switch.plain():
        for call in (function, getattr(torch.ops.framecast, name)):
            results, expected = tree_leaves(call(*arguments)), tree_leaves(reference(*arguments))
            assert all(torch.equal(x, y) for x, y in zip(results, expected, strict=True))


@every_operator
def test_compiled(name: str) -> None:
    function, reference, arguments = operator(name, (1, 64, 16, 16), torch.float32)
    check(torch.compile(function, fullgraph=True, backend="aot_eager")(*arguments), reference, arguments, torch.float32)
