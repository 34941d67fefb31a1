"""The kernels' part of ``gpu_check.py``: their errors, and their speed compared with a copy of as many bytes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from framecast.kernels.eifag import reference as eifag
from framecast.kernels.stau_attention import reference as stau_attention
from framecast.kernels.stgru_gates import reference as stgru_gates

# (batch, C, H, W) of a state: the networks' own sizes, an odd size, and one that does not fit into the cache.
SIZES = {
    "stip-ucf": (1, 64, 16, 16),
    "stip-4k": (1, 64, 17, 30),
    "astm-mnist": (1, 128, 16, 16),
    "stau-town": (1, 64, 17, 30),
    "odd": (3, 7, 9, 11),
    "large": (1, 64, 270, 480),
}
SLOTS = 5
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Largest error, relative to max(1, |expected|): one rounding of the result.
ALLOWED = {"fp32": 1e-5, "fp16": 6e-4, "bf16": 4.5e-3}
FLUSH = 256 << 20  # bytes to write before each timed launch: more than a GPU's cache


@dataclass(frozen=True)
class Case:
    """One operator with inputs: the kernel, its reference, and the number of bytes that it must move."""

    run: Callable[..., Any]
    reference: Callable[..., Any]
    arguments: list[Any]
    traffic: int


def check(device: str, row: Callable[..., None], late: Callable[[], bool]) -> None:
    """Print a row for each operator, size and type."""
    columns = f"{'kernel':15s} {'size':11s} {'type':5s} {'error':>8} {'allowed':>8}"
    row(f"{columns}  {'us':>8} {'GB/s':>6} {'copy':>6} {'share':>6} {'eager us':>9} {'compiled us':>12}")
    for name in ("stgru_gates", "eifag", "stau_attention"):
        for size, shape in SIZES.items():
            if device == "cpu" and math.prod(shape) > 1 << 16:
                continue
            for kind, dtype in DTYPES.items():
                if device == "cpu" and kind != "fp32":
                    continue  # the reference itself runs there, and it rounds every step to half precision
                if late():
                    return
                _one(name, size, shape, kind, dtype, device, row)


def _one(
    name: str, size: str, shape: tuple[int, ...], kind: str, dtype: torch.dtype, device: str, row: Callable[..., None]
) -> None:
    case = make(name, shape, dtype, device)
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills uninitialized memory with NaN
    found = case.run(*case.arguments)
    torch.use_deterministic_algorithms(False)
    error = _error(found, case.reference(*_double(case.arguments)))
    wrong = not error <= ALLOWED[kind]
    text = f"{name:15s} {size:11s} {kind:5s} {error:8.1e} {ALLOWED[kind]:8.1e}"
    figures = {"kernel": name, "size": size, "shape": shape, "type": kind, "error": error}
    if device == "cpu" or wrong:
        row(text, wrong, **figures)
        return
    from torch import _dynamo

    _dynamo.reset()
    with torch.inference_mode():
        ours = microseconds(lambda: case.run(*case.arguments))
        eager = microseconds(lambda: case.reference(*case.arguments))
        compiled_ = torch.compile(case.reference)
        compiled = microseconds(lambda: compiled_(*case.arguments))
        half = torch.empty(max(1, case.traffic // 2), dtype=torch.uint8, device=device)
        target = torch.empty_like(half)
        copied = microseconds(lambda: target.copy_(half))
    rate, copy = (case.traffic / time / 1e3 for time in (ours, copied))  # bytes over microseconds, in GB/s
    row(
        f"{text}  {ours:8.2f} {rate:6.0f} {copy:6.0f} {rate / copy:6.0%} {eager:9.2f} {compiled:12.2f}",
        **figures, microseconds=ours, gb_per_s=rate, copy_gb_per_s=copy, eager=eager, compiled=compiled,
    )  # fmt: skip


def make(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Case:
    """Return an operator with new random inputs. On a CPU its reference runs."""
    from framecast.kernels.eifag import kernel as eifag_kernel
    from framecast.kernels.stau_attention import kernel as stau_kernel
    from framecast.kernels.stgru_gates import kernel as stgru_kernel

    def noise(*size: int, kind: torch.dtype = dtype) -> torch.Tensor:
        return torch.randn(size, device=device).to(kind)

    batch, channels, height, width = shape
    wide, itemsize, on_gpu = (batch, 4 * channels, height, width), dtype.itemsize, device == "cuda"
    if name == "stgru_gates":
        affine = [noise(*wide[1:], kind=torch.float32) for _ in range(4)]
        tensors = [noise(*wide), *affine[:2], noise(*wide), *affine[2:], noise(*shape), noise(*shape)]
        run: Callable[..., Any] = stgru_kernel.stgru_gates if on_gpu else stgru_gates.stgru_gates
        traffic = stgru_kernel.traffic(batch, shape[1:], itemsize)
        return Case(run, stgru_gates.stgru_gates, [*tensors, 1.0, 1e-5], traffic)
    slots = [noise(*shape) for _ in range(SLOTS)]
    if name == "eifag":
        count = torch.full((batch, 1, 1, 1), float(SLOTS), device=device)
        run = eifag_kernel.eifag if on_gpu else eifag.eifag
        arguments = [slots, count, *(noise(*shape) for _ in range(3)), 1.0]
        return Case(run, eifag.eifag, arguments, eifag_kernel.traffic(batch, shape[1:], SLOTS, itemsize))
    values = [noise(*shape) for _ in range(SLOTS)]
    run = stau_kernel.stau_attention if on_gpu else stau_attention.stau_attention
    arguments = [slots, values, *(noise(*shape) for _ in range(3)), 1 / math.sqrt(math.prod(shape[1:]))]
    traffic = stau_kernel.traffic(batch, shape[1:], SLOTS, itemsize)
    return Case(run, stau_attention.stau_attention, arguments, traffic)


def microseconds(run: Callable[[], Any], repeats: int = 50) -> float:
    """Return the median time of a CUDA graph of ``run``, with a cold cache and without the cost of launches."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        run()
    flush = torch.empty(FLUSH, dtype=torch.uint8, device="cuda")
    times: list[float] = []
    for _ in range(repeats):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        begun.record()
        graph.replay()
        ended.record()
        ended.synchronize()
        times.append(1e3 * begun.elapsed_time(ended))
    return statistics.median(times)


def _double(value: Any) -> Any:
    if isinstance(value, list):
        return [_double(item) for item in value]
    return value.double() if isinstance(value, torch.Tensor) else value


def _error(actual: Any, expected: Any) -> float:
    """Return the largest error, relative to max(1, |expected|); NaN if a result is not finite."""
    pairs = [(actual, expected)] if isinstance(actual, torch.Tensor) else list(zip(actual, expected, strict=True))
    errors = [((x.double() - y).abs() / y.abs().clamp(min=1)).max() for x, y in pairs]
    return float(torch.stack(errors).max())
