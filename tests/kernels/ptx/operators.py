"""Runs the PTX of our operators' kernels as a GPU launch would, and compares the results with float64.

The names and types of the parameters, the grid and the number of threads come from the compiled kernel.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framecast.kernels.cross import Compiled, compile_for
from framecast.kernels.eifag import reference as eifag
from framecast.kernels.stau_attention import kernel as stau_kernel
from framecast.kernels.stau_attention import reference as stau
from framecast.kernels.stgru_gates import kernel as stgru_kernel
from framecast.kernels.stgru_gates import reference as stgru

from .. import cases  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .machine import launch  # noqa: TID252
from .memory import Memory  # noqa: TID252

# Relative to max(1, |expected|): arithmetic is float32, and a half is rounded once, when it is stored.
TOLERANCES = {"fp32": 3e-6, "fp16": 6e-4, "bf16": 4.5e-3}
KERNELS = {
    "stgru": ("stgru_statistics", "stgru_norm_gates"),
    "gates": ("stgru_gates",),
    "eifag": ("eifag",),
    "stau": ("stau_scores", "stau_fuse"),
}
OUTPUTS = ("new_t", "new_s", "new", "fused", "partials")
SLOTS = 5
COUNTS = (2.0, 0.0, 5.0, 1.0, 3.0)  # steps of each sample since its reset
Shape = tuple[int, int, int]
Alter = Callable[[str, Compiled], Compiled]  # changes a kernel, given its name, before it is launched


@dataclass(frozen=True)
class Case:
    """One operator for one GPU.

    Attributes:
        operator: a key of ``KERNELS``.
        arch: compute capability.
        dtype: type of the activations.
        shape: (C, H, W) of a state.
        batch: number of samples.
        options: further arguments of ``compile_for``.
    """

    operator: str
    arch: int
    dtype: str
    shape: Shape
    batch: int = 1
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        shape = "x".join(map(str, (self.batch, *self.shape)))
        return " ".join([f"{self.operator}-{self.arch}-{self.dtype}-{shape}", *self.options])


@cache
def compiled(case: Case, kernel: str) -> Compiled:
    """One of the case's kernels."""
    options = {"forget_bias": 0.75, "slots": SLOTS, **case.options}
    return compile_for(kernel, case.arch, case.dtype, case.shape, batch=case.batch, **options)


@cache
def given(operator: str, shape: Shape, batch: int, dtype: str) -> dict[str, Any]:
    """Arguments of the reference by name, in the network's types."""
    torch.manual_seed(0)
    whole, type_ = (batch, *shape), cases.DTYPES[dtype]
    if operator == "eifag":
        arguments = cases.eifag(whole, SLOTS, COUNTS[:batch], type_, forget_bias=0.75)
        return _named(eifag.eifag, arguments)
    if operator == "stau":
        return _named(stau.stau_attention, cases.stau_attention(whole, SLOTS, type_))
    named = _named(stgru.stgru_gates, cases.stgru_gates(whole, type_, offset=3.0, forget_bias=0.75))
    named |= {f"added_{x}": torch.randn(4 * shape[0]) for x in "ts"}
    if operator == "gates":
        named |= {"norm_t": named["conv_t"] - 3, "norm_s": named["conv_s"] - 3}
    return named


def _named(reference: Callable[..., Any], arguments: list[Any]) -> dict[str, Any]:
    return dict(zip(inspect.signature(reference).parameters, arguments, strict=False))


def expected(case: Case) -> tuple[Tensor, ...]:
    """The reference's results in float64."""
    named = {name: cases.double(value) for name, value in given(*_key(case)).items()}
    if case.operator == "gates":  # the inputs are already normalised
        (z_t, r_t, t_t, s_t), (z_s, r_s, t_s, s_s) = (named[f"norm_{x}"].chunk(4, dim=1) for x in "ts")
        update, reset = (z_t + z_s + named["forget_bias"]).sigmoid(), (r_t + r_s).sigmoid()
        new = (t_t + reset * t_s).tanh(), (s_s + reset * s_t).tanh()
        return tuple((1 - update) * x + update * y for x, y in zip(new, (named["t"], named["s"]), strict=True))
    if case.operator == "stgru":
        if not case.options.get("added"):
            named = {name: value for name, value in named.items() if not name.startswith("added")}
        result: tuple[Tensor, ...] = stgru.stgru_gates(**named)
        return result
    return ((eifag.eifag if case.operator == "eifag" else stau.stau_attention)(**named),)


def _key(case: Case) -> tuple[str, Shape, int, str]:
    return case.operator, case.shape, case.batch, case.dtype


def run(
    case: Case, alter: Alter = lambda name, built: built, stripped: bool = False
) -> tuple[tuple[Tensor, ...], Counter[str]]:
    """The results, and how often each opcode was executed.

    Args:
        case: the case to run.
        alter: breaks a kernel on purpose.
        stripped: remove the two parameters for scratch memory, as in a TensorRT engine.
    """
    from framecast.export.plugins.aot import without_scratch

    memory, counts = Memory(), Counter[str]()
    states = (case.batch, *case.shape)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(OUTPUTS, states)
    shapes["partials"] = (
        stau_kernel.workspace(case.batch, case.shape, SLOTS)
        if case.operator == "stau"
        else stgru_kernel.workspace(case.batch, case.shape)
    )
    named = pointers(case)
    placed: dict[str, int] = {}
    types: dict[str, str] = {}
    for kernel in KERNELS[case.operator]:
        built = alter(kernel, compiled(case, kernel))
        for name, pointer in built.parameters:
            if name not in placed:
                if name in shapes:
                    placed[name] = memory.space(name, math.prod(shapes[name]) * cases.DTYPES[pointer[1:]].itemsize)
                else:
                    placed[name] = memory.add(name, raw(named[name], pointer[1:], bool(case.options.get("last"))))
            assert types.setdefault(name, pointer[1:]) == pointer[1:]
        arguments = [placed[name] for name, _ in built.parameters]
        ptx = without_scratch(built) if stripped else built.ptx
        arguments += [] if stripped else [0, 0]
        counts += launch(memory, ptx, built.name, built.grid, 32 * built.num_warps, built.shared, arguments)
    results = [name for name in OUTPUTS[:-1] if name in placed]
    last = bool(case.options.get("last"))
    return tuple(tensor(memory, placed[name], states, types[name], last) for name in results), counts


def pointers(case: Case) -> dict[str, Tensor]:
    """Tensors by the name of their pointer, with an index for those of a list. Unwritten cells are NaN."""
    flat: dict[str, Tensor] = {}
    named = given(*_key(case))
    for name, value in named.items():
        several = value if isinstance(value, (list, tuple)) else []
        flat |= {f"{name}[{i}]": one for i, one in enumerate(several)}
        if isinstance(value, Tensor):
            flat[name] = value
    for i in range(SLOTS if case.operator == "eifag" else 0):
        flat[f"cells[{i}]"] = flat[f"cells[{i}]"].masked_fill(named["count"] < i, torch.nan)
    return flat


def raw(value: Tensor, dtype: str, last: bool = False) -> np.ndarray[Any, Any]:
    """A tensor's content in memory."""
    value = value.to(cases.DTYPES[dtype])
    value = value.movedim(-3, -1) if last and value.dim() > 2 else value
    value = value.contiguous()
    return np.asarray((value.view(torch.int16) if value.itemsize == 2 else value).numpy())


def tensor(memory: Memory, address: int, shape: tuple[int, ...], dtype: str, last: bool = False) -> Tensor:
    """The tensor at an address in memory."""
    type_ = cases.DTYPES[dtype]
    words = torch.from_numpy(memory.read(address, np.int16 if type_.itemsize == 2 else np.int32, math.prod(shape)))
    if not last:
        return words.view(type_).reshape(shape)
    return words.view(type_).reshape(shape[0], *shape[2:], shape[1]).movedim(-1, -3)


def off(case: Case, results: tuple[Tensor, ...]) -> float:
    """The error of the results against float64, as a multiple of the tolerance."""
    names = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    allowed = max(TOLERANCES[name] for name, type_ in names.items() if any(x.dtype == type_ for x in results))
    return cases.error(results, expected(case)) / allowed
