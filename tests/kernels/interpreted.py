"""Runs our Triton kernels under Triton's interpreter on the CPU.

It is a separate process, because a process can switch Triton to its interpreter only before importing it.

Prints a line of JSON for each case: its name, the error against float64, and the tolerance. Outputs and workspaces
start as NaN, so that missing writes show. Tensors are small, because each program instance takes milliseconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from framecast.errors import OptionError
from framecast.kernels import launch
from framecast.kernels.eifag import kernel as eifag_kernel
from framecast.kernels.eifag import reference as eifag_reference
from framecast.kernels.layout import as_channels_last, is_channels_last
from framecast.kernels.stau_attention import kernel as stau_kernel
from framecast.kernels.stau_attention import reference as stau_reference
from framecast.kernels.stgru_gates import kernel as stgru_kernel
from framecast.kernels.stgru_gates import reference as stgru_reference

from .cases import (  # noqa: TID252 (runs as a module of the tests)
    DTYPES,
    TOLERANCES,
    Arguments,
    double,
    eifag,
    error,
    stau_attention,
    stgru_gates,
)

Case = tuple[str, float, float]  # name, error, tolerance
SHAPES = [(1, 4, 3, 5), (3, 7, 9, 1), (2, 3, 11, 13)]


@contextmanager
def few_programs() -> Iterator[None]:
    """Make each program take several tiles, as for large states."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"LEAST": 16, "MOST_REDUCED": 16, "PARTIALS": 3}.items():
            patch.setattr(launch, name, value)
        yield


def stgru_cases() -> Iterator[Case]:
    def case(name: str, arguments: Arguments, tolerance: float) -> Case:
        result = stgru_kernel.stgru_gates(*arguments)
        assert [x.dtype for x in result] == [x.dtype for x in arguments[6:8]]
        return f"stgru {name}", error(result, stgru_reference.stgru_gates(*double(arguments))), tolerance

    exact = TOLERANCES[torch.float32]
    for shape in SHAPES:
        for name, dtype in DTYPES.items():
            yield case(f"{shape} {name}", stgru_gates(shape, dtype), TOLERANCES[dtype])
    shape = SHAPES[1]
    yield case("fp16 affine", stgru_gates(shape, torch.float16, affine=torch.float16), TOLERANCES[torch.float16])
    yield case("no forget bias", stgru_gates(shape, forget_bias=0.0), exact)
    yield case("mean of 1e3", stgru_gates(shape, offset=1e3), exact)
    yield case("mean of -1e4", stgru_gates(shape, offset=-1e4), exact)
    yield case("fp16, mean of 1e3", stgru_gates(shape, torch.float16, offset=1e3), TOLERANCES[torch.float16])
    yield case("large", stgru_gates(shape, spread=1e6), exact)
    yield case("fp16, large", stgru_gates(shape, torch.float16, spread=1e4), TOLERANCES[torch.float16])
    odd = stgru_gates((1, 8, 8, 8), offset=1e3)
    odd[0][:, 0, 0, 0] = 0.0  # statistics are relative to this element, which is far from the mean
    yield case("far first element", odd, 1e-4)
    yield partial_statistics(odd[0], odd[3])
    apart = stgru_gates(SHAPES[2])
    apart[0] += torch.arange(float(apart[0][0].numel())).view(apart[0][0].shape)  # each program has another mean
    yield case("drift", apart, exact)
    mixed = stgru_gates(shape, torch.float16)
    mixed[6:8] = (x.float() for x in mixed[6:8])
    yield case("halves beside float32 states", mixed, exact)
    for added in (False, True):
        biases = [torch.randn(12), torch.randn(12)] if added else []
        biased = [*stgru_gates(SHAPES[2], offset=10.0), *biases]
        name = ", biases added" if added else ""
        yield case(f"contiguous{name}", biased, exact)
        last: Arguments = [as_channels_last(x) if isinstance(x, Tensor) else x for x in biased]
        assert all(is_channels_last(x) for x in stgru_kernel.stgru_gates(*last))
        yield case(f"channels last{name}", last, exact)
        yield case(f"only states channels last{name}", [*biased[:6], *last[6:]], exact)
    with few_programs():
        stgru_kernel.launches.cache_clear()
        yield case("many tiles, channels last, biases added", last, exact)
        for name, offset in (("many tiles", 0.0), ("many tiles, mean of 1e3", 1e3)):
            yield case(name, stgru_gates(SHAPES[2], offset=offset), exact)
    stgru_kernel.launches.cache_clear()

    # The gates alone. Their inputs are already normalised.
    for name, dtype in DTYPES.items():
        conv_t, _, _, conv_s, _, _, t, s, bias, _ = stgru_gates(SHAPES[1], dtype, spread=2.0)
        c, (a, b) = t.shape[1], double([conv_t, conv_s])
        update, reset = (a[:, :c] + b[:, :c] + bias).sigmoid(), (a[:, c : 2 * c] + b[:, c : 2 * c]).sigmoid()
        t_candidate = (a[:, 2 * c : 3 * c] + reset * b[:, 2 * c : 3 * c]).tanh()
        s_candidate = (b[:, 3 * c :] + reset * a[:, 3 * c :]).tanh()
        expected = tuple((1 - update) * x + update * y.double() for x, y in ((t_candidate, t), (s_candidate, s)))
        yield f"stgru gates {name}", error(stgru_kernel.gates(conv_t, conv_s, t, s, bias), expected), TOLERANCES[dtype]


def partial_statistics(conv_t: torch.Tensor, conv_s: torch.Tensor) -> Case:
    """Sums of squared deviations. Computed as a difference of sums of squares, they would lose all digits here."""
    shape = (8, 8, 8)
    statistics = stgru_kernel.launches(1, shape, 1.0, 1e-5)[0]
    partials = torch.empty(stgru_kernel.workspace(1, shape))
    statistics(conv_t, conv_s, partials)
    block = statistics.constants["block"]
    off = 0.0
    for conv, m2 in ((conv_t, partials[0, 1]), (conv_s, partials[0, 3])):
        tiles = conv.double().view(-1, block)
        expected = tiles.var(dim=1, correction=0) * block
        off = float(np.max([off, float(((m2 - expected) / expected).abs().max())]))  # max drops NaN
    return "stgru partial statistics", off, 1e-5


def eifag_cases() -> Iterator[Case]:
    def case(name: str, arguments: Arguments, tolerance: float) -> Case:
        expected = eifag_reference.eifag(*double(arguments))
        cells, count = arguments[:2]
        for i, cell in enumerate(cells):
            cell.masked_fill_(count < i, torch.nan)  # unwritten slots must not be read
        return f"eifag {name}", error(eifag_kernel.eifag(*arguments), expected), tolerance

    exact = TOLERANCES[torch.float32]
    for shape in SHAPES:
        for name, dtype in DTYPES.items():
            yield case(f"{shape} {name}", eifag(shape, 5, [2.0, 5.0, 0.0][: shape[0]], dtype), TOLERANCES[dtype])
    for slots in (1, 2, 8):
        for count in (0, 1, slots - 1, slots):
            counts = [float(count), 1.0, float(slots)]
            yield case(f"{slots} slots, {count} written", eifag((3, 2, 3, 5), slots, counts), exact)
    yield case("no forget bias", eifag(SHAPES[1], 3, [1.0, 2.0, 3.0], forget_bias=0.0), exact)
    yield growing_history()
    # Scores are several thousand. float32 resolves them only to 1e-4, and so the weights are only that exact.
    yield case("large", eifag(SHAPES[1], 5, [5.0] * 3, spread=1e3), 1e-3)
    yield case("fp16, large", eifag(SHAPES[1], 5, [5.0] * 3, torch.float16, spread=1e4), 1e-2)
    strided = eifag(SHAPES[2], 3, [1.0, 3.0])
    gates = torch.randn(2, 9, 11, 13).chunk(3, dim=1)  # as in the network
    yield case("chunks", [*strided[:2], *gates, 1.0], exact)


def growing_history() -> Case:
    """Several steps after a reset: each writes a slot of the ring, and the next one reads it."""
    tau, shape = 3, SHAPES[1]
    written = [torch.zeros(shape, dtype=torch.float64)]
    ring = [torch.zeros(shape), *(torch.full(shape, torch.nan) for _ in range(tau - 1))]
    off = 0.0
    for step in range(tau + 3):
        i, f, g = (2 * torch.randn(shape) for _ in range(3))
        count = torch.full((shape[0], 1, 1, 1), float(min(step, tau)))
        past = written[:tau]
        expected = eifag_reference.eifag(
            past, torch.full_like(count, tau).double(), i.double(), f.double(), g.double(), 1.0
        )
        new = eifag_kernel.eifag(ring, count, i, f, g, 1.0)
        off = float(np.max([off, error(new, expected)]))
        ring, written = [new, *ring[:-1]], [expected, *written]
    return "eifag growing history", off, 2 * TOLERANCES[torch.float32]


def stau_cases() -> Iterator[Case]:
    def case(name: str, arguments: Arguments, tolerance: float) -> Case:
        expected = stau_reference.stau_attention(*double(arguments))
        return f"stau {name}", error(stau_kernel.stau_attention(*arguments), expected), tolerance

    exact = TOLERANCES[torch.float32]
    for shape in SHAPES:
        for name, dtype in DTYPES.items():
            yield case(f"{shape} {name}", stau_attention(shape, 5, dtype, spread=1.5), TOLERANCES[dtype])
    for slots in (1, 2, 8):
        yield case(f"{slots} slots", stau_attention((3, 2, 3, 5), slots), exact)
    zeros = stau_attention(SHAPES[0], 4)
    for i in (1, 3):
        zeros[0][i].zero_(), zeros[1][i].zero_()
    yield case("zero slots", zeros, exact)
    yield case("unscaled", stau_attention(SHAPES[0], 5, scale=1.0), 1e-5)
    # Scores are millions, so one slot gets all the weight.
    yield case("large", stau_attention(SHAPES[1], 5, spread=1e3, scale=1.0), exact)
    strided = stau_attention(SHAPES[2], 2)
    strided = [x.to(memory_format=torch.channels_last) if getattr(x, "ndim", 0) == 4 else x for x in strided]
    yield case("channels last", strided, exact)
    with few_programs():
        stau_kernel.launches.cache_clear()
        yield case("many tiles", stau_attention(SHAPES[2], 3), exact)
    stau_kernel.launches.cache_clear()


def refusals() -> Iterator[Case]:
    """Arguments that no kernel accepts are rejected with a one-line error."""
    gates = stgru_gates(SHAPES[0])
    attention = stau_attention(SHAPES[0], 2)
    cells = eifag(SHAPES[0], 2, [1.0])
    nothing: tuple[list[Tensor], list[Tensor]] = ([x[:0] for x in attention[0]], [x[:0] for x in attention[1]])
    calls: dict[str, Callable[[], object]] = {
        "float64": lambda: stgru_kernel.stgru_gates(*double(gates)),
        "shape": lambda: stgru_kernel.stgru_gates(gates[0][:, 1:], *gates[1:]),
        "values": lambda: stau_kernel.stau_attention(attention[0], attention[1][:1], *attention[2:]),
        "empty": lambda: stau_kernel.stau_attention(*nothing, *attention[2:]),
        "count": lambda: eifag_kernel.eifag(cells[0], cells[1][0], *cells[2:]),
        "large": lambda: launch.launch_arguments(torch.empty(1, device="meta").expand(1, 2**10, 2**10, 2**10), []),
    }
    for name, call in calls.items():
        with pytest.raises(OptionError) as refused:
            call()
        yield f"refused {name}", float("\n" in str(refused.value)), 0.5


def main() -> None:
    assert os.environ["TRITON_INTERPRET"] == "1"
    torch.use_deterministic_algorithms(True)  # fills empty tensors with NaN
    assert torch.empty(3).isnan().all()
    with np.errstate(over="ignore"):  # as on a GPU, where an exponential that overflows is infinite
        for cases in (stgru_cases, eifag_cases, stau_cases, refusals):
            for name, off, tolerance in cases():
                print(json.dumps({"case": name, "error": off, "tolerance": tolerance}))  # noqa: T201 (the output)


if __name__ == "__main__":
    main()
