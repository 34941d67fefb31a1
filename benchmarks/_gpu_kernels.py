"""The kernels' part of ``gpu_check.py``: their errors, and their speed compared with a copy of the same size."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from _gpu_run import Found, Row

from framecast.kernels.eifag import reference as eifag
from framecast.kernels.stau_attention import reference as stau_attention
from framecast.kernels.stgru_gates import reference as stgru_gates

# (batch, C, H, W) of a state: the networks' own sizes, an odd size, and one larger than the cache.
SIZES = {
    "stip-ucf": (1, 64, 16, 16),
    "stip-4k": (1, 64, 17, 30),
    "astm-mnist": (1, 128, 16, 16),
    "stau-town": (1, 64, 17, 30),
    "odd": (3, 7, 9, 11),
    "large": (1, 64, 270, 480),
}
TIMED = ("stip-4k", "stip-ucf", "large")
OPERATORS = ("stgru_gates", "eifag", "stau_attention")
# Variants of the gates: they add the convolutions' biases, read channels-last tensors (with biases), or start their
# second pass before the first one ends (with biases). In fp16 the states then stay in float32, as in an engine.
FORMS = ("biases", "channels last", "overlap")
SLOTS = 5
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Largest error, relative to max(1, |expected|): it allows one rounding of the result.
ALLOWED = {"fp32": 1e-5, "fp16": 6e-4, "bf16": 4.5e-3}
# Elements per program and warps of a pointwise pass. With more than 8 elements per thread the gates spill registers.
PLANS = [(block, warps) for block in (128, 256, 512, 1024) for warps in (1, 2, 4, 8) if 32 <= block // warps <= 256]
REDUCTIONS = [(block, warps) for block in (1024, 4096) for warps in (4, 8)]
REPEATS = 20  # minimum launches in one graph
CACHES, MOST_SETS = 3, 64  # buffer sets alternate: enough to fill the cache 3 times, up to 64
RAN = "ran (no figures on a CPU)"
CHECKED = f"{'error':>8} {'allowed':>8}"
TIMED_COLUMNS = f"{CHECKED}  {'us':>8} {'GB/s':>6} {'copy':>6} {'share':>6} {'working set MB':>14} {'launches':>8}"


@dataclass(frozen=True)
class Case:
    """One operator with inputs: the kernel, its reference, and the number of bytes that it must move."""

    run: Callable[..., Any]
    reference: Callable[..., Any]
    arguments: list[Any]
    traffic: int


def correctness(device: str) -> list[Row]:
    """Return a row for each operator, size and type: its error against its reference in float64."""
    found = []
    for kind, size, name in itertools.product(DTYPES, SIZES, OPERATORS):
        if device == "cpu" and (math.prod(SIZES[size]) > 1 << 16 or kind != "fp32"):
            continue  # the reference runs on the CPU, and rounds every operation to half precision
        found.append(Row(f"{name} {size} {kind}", partial(_checked, name, SIZES[size], kind, device)))
    forms = [
        Row(f"stgru_gates {size} {kind}, {form}", partial(_checked, "stgru_gates", SIZES[size], kind, device, form))
        for kind, form, size in itertools.product(("fp32", "fp16"), FORMS, ("stip-4k", "stip-ucf", "odd"))
        if device == "cuda" or (kind == "fp32" and size == "odd")
    ]
    float32 = len(found) if device == "cpu" else len(found) // len(DTYPES)
    return [*found[:float32], *forms, *found[float32:]]


def _checked(name: str, shape: tuple[int, ...], kind: str, device: str, form: str = "") -> Found:
    case = make(name, shape, DTYPES[kind], device, form)
    error = error_of(case)
    wrong = not error <= ALLOWED[kind]
    figures = {"kernel": name, "shape": shape, "type": kind, "error": error, "allowed": ALLOWED[kind]}
    return Found(f"{error:8.1e} {ALLOWED[kind]:8.1e}", wrong, figures)


def error_of(case: Case) -> float:
    """Return a kernel's error. Its output memory is filled with NaN first."""
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills uninitialized memory with NaN
    try:
        found = case.run(*case.arguments)
    finally:
        torch.use_deterministic_algorithms(False)
    return _error(found, case.reference(*_double(case.arguments)))


def bandwidth(device: str) -> list[Row]:
    """Return rows for the gates and EIFAG at three sizes, then rows for other block sizes and warp counts."""
    found = []
    for kind, size, name in itertools.product(("fp32", "fp16"), TIMED, ("stgru_gates", "eifag")):
        if device == "cpu" and (size == "large" or kind != "fp32"):
            continue
        found.append(Row(f"{name} {size} {kind}", partial(_timed, name, size, kind, device)))
    for kind, size, form in itertools.product(("fp32", "fp16"), ("stip-4k", "stip-ucf"), FORMS):
        if device == "cuda" or (size == "stip-ucf" and kind == "fp32"):
            run = partial(_timed, "stgru_gates", size, kind, device, form)
            found.append(Row(f"stgru_gates {size} {kind}, {form}", run))
    plans: list[tuple[str, int, int]] = [("pointwise", *plan) for plan in PLANS]
    reductions: list[tuple[str, int, int]] = [("reduction", *plan) for plan in REDUCTIONS]
    for size, name in itertools.product(TIMED, ("stgru_gates", "eifag")):
        if device == "cpu" and size != "stip-ucf":
            continue
        several = [*plans, *(reductions if name == "stgru_gates" else [])]
        for which, block, warps in several if device == "cuda" else several[-1:]:
            run = partial(_timed, name, size, "fp32", device, "", (which, block, warps))
            found.append(Row(f"{name} {size} fp32, {which} {block} x {warps} warps", run))
    return found


def _timed(
    name: str, size: str, kind: str, device: str, form: str = "", plan: tuple[str, int, int] | None = None
) -> Found:
    with swept(name, *plan) if plan else ExitStack():
        first = make(name, SIZES[size], DTYPES[kind], device, form)
        error = error_of(first)
        figures: dict[str, Any] = {"error": error, "allowed": ALLOWED[kind], "shape": SIZES[size], "type": kind}
        text = f"{error:8.1e} {ALLOWED[kind]:8.1e}"
        if not error <= ALLOWED[kind]:
            return Found(text, wrong=True, figures=figures)
        if device == "cpu":
            return Found(f"{text}  {RAN}", figures=figures)
        count = sets(first.traffic)
        cases = [first, *(make(name, SIZES[size], DTYPES[kind], device, form) for _ in range(count - 1))]
        with torch.inference_mode():
            ours = microseconds([partial(case.run, *case.arguments) for case in cases])
            copied = microseconds(copies(first.traffic, count))
    rate, copy = (first.traffic / time / 1e3 for time in (ours, copied))  # bytes over microseconds, in GB/s
    working, launches = count * first.traffic / 1e6, max(REPEATS, count)
    figures |= {"microseconds": ours, "gb_per_s": rate, "copy_gb_per_s": copy, "share": rate / copy}
    figures |= {"working_set_mb": working, "launches": launches}
    text += f"  {ours:8.2f} {rate:6.0f} {copy:6.0f} {rate / copy:6.0%} {working:14.0f} {launches:8d}"
    return Found(text, figures=figures)


@contextmanager
def swept(name: str, which: str, block: int, warps: int) -> Iterator[None]:
    """Run an operator's kernels with a block size and a number of warps other than our choice."""
    from framecast.kernels import launch

    module = _module(name)

    def plan(size: int, batch: int) -> launch.Plan:
        tiles = -(-size // (block * launch.PARTIALS)) if which == "reduction" else 1
        return launch.Plan(block, tiles, -(-size // (block * tiles)), warps)

    cached = [value for value in vars(module).values() if hasattr(value, "cache_clear")]
    with mock.patch.object(module, which, plan):
        for function in cached:
            function.cache_clear()
        try:
            yield
        finally:
            for function in cached:
                function.cache_clear()


def _module(name: str) -> ModuleType:
    from framecast.kernels.eifag import kernel as eifag_kernel
    from framecast.kernels.stgru_gates import kernel as stgru_kernel

    return {"stgru_gates": stgru_kernel, "eifag": eifag_kernel}[name]


def make(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: str, form: str = "") -> Case:
    """Return an operator with new random inputs. On a CPU it runs the reference."""
    if form:
        return _gates(shape, dtype, device, form)
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


def _gates(shape: tuple[int, ...], dtype: torch.dtype, device: str, form: str) -> Case:
    """Return the gates in one of ``FORMS``."""
    from framecast.kernels import switch
    from framecast.kernels.layout import as_channels_last
    from framecast.kernels.stgru_gates import kernel

    case = make("stgru_gates", shape, dtype, device)
    *tensors, forget_bias, eps = case.arguments
    tensors[6:] = [state.float() for state in tensors[6:]]
    if form == "channels last":
        tensors = [as_channels_last(tensor) for tensor in tensors]
    biases = [torch.randn(4 * shape[1], device=device) for _ in range(2)]
    if form != "overlap":
        run = case.run
    else:

        def run(*arguments: Any) -> Any:
            with switch.overlapped():
                return case.run(*arguments)

    # In addition to the plain form's traffic: the float32 states, read twice and written twice, and the biases.
    more = 4 * math.prod(shape) * (4 - dtype.itemsize) + 32 * shape[1]
    traffic = kernel.traffic(shape[0], shape[1:], dtype.itemsize) + more
    return Case(run, case.reference, [*tensors, forget_bias, eps, *biases], traffic)


def sets(traffic: int) -> int:
    """Return the number of buffer sets that together exceed this GPU's cache."""
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(2, min(MOST_SETS, math.ceil(CACHES * cache / traffic)))


def copies(traffic: int, count: int) -> list[Callable[[], Any]]:
    """Return ``count`` copies that each read and write ``traffic`` bytes in total, each with its own buffers."""
    half = max(1, traffic // 2)
    sources = [torch.randint(0, 256, (half,), dtype=torch.uint8, device="cuda") for _ in range(count)]
    targets = [torch.empty_like(source) for source in sources]
    return [partial(target.copy_, source) for target, source in zip(targets, sources, strict=True)]


def microseconds(runs: Sequence[Callable[[], Any]], replays: int = 15, repeats: int = REPEATS) -> float:
    """Return the median time of one run, from replays of a CUDA graph with all runs, at least ``repeats`` of them.

    A graph of one launch would mislead: its buffers stay in the cache, and the cost of the events hides the gaps.
    """
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()  # the inputs were made on another stream
    with torch.cuda.stream(stream):
        for run in runs[:3]:
            run()
    torch.cuda.synchronize()
    graph, count = torch.cuda.CUDAGraph(), max(repeats, len(runs))
    with torch.cuda.graph(graph, stream=stream):
        results = [
            runs[index % len(runs)]() for index in range(count)
        ]  # kept, so that each run writes to its own memory
    times: list[float] = []
    for index in range(2 + replays):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        graph.replay()
        ended.record()
        ended.synchronize()
        if index >= 2:
            times.append(1e3 * begun.elapsed_time(ended) / count)
    del results
    return statistics.median(times)


def compiled(device: str) -> list[Row]:
    """Return rows that time the references, eagerly and with ``torch.compile``."""
    return [
        Row(f"{name} {size} fp32 in plain torch", partial(_in_torch, name, size, device))
        for size, name in itertools.product(TIMED, ("stgru_gates", "eifag"))
        if device == "cuda" or size == "stip-ucf"
    ]


def _in_torch(name: str, size: str, device: str) -> Found:
    case = make(name, SIZES[size], torch.float32, device)
    if device == "cpu":
        case.reference(*case.arguments)
        return Found(RAN)
    from torch import _dynamo

    _dynamo.reset()
    cases = [case, *(make(name, SIZES[size], torch.float32, device) for _ in range(sets(case.traffic) - 1))]
    whole = torch.compile(case.reference)
    with torch.inference_mode():
        eager = microseconds([partial(c.reference, *c.arguments) for c in cases])
        fused = microseconds([partial(whole, *c.arguments) for c in cases])
    return Found(f"eager {eager:.2f} us, compiled {fused:.2f} us", figures={"eager": eager, "compiled": fused})


def ceilings() -> dict[str, float]:
    """Measure this GPU: GB/s of a large copy (reads plus writes), TFLOP/s of a large matrix product by precision."""
    found = {"copy": 2 * (1 << 30) / microseconds(copies(2 << 30, 2), 3) / 1e3}
    size = 8192
    for precision, dtype in (("fp32", torch.float32), ("tf32", torch.float32), ("fp16", torch.float16)):
        a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        run = partial(torch.mm, a, b, out=torch.empty_like(a))
        found[precision] = 2 * size**3 / microseconds([run], 3, 2) / 1e6
    torch.backends.cuda.matmul.allow_tf32 = False
    return found


def _double(value: Any) -> Any:
    if isinstance(value, list):
        return [_double(item) for item in value]
    return value.double() if isinstance(value, torch.Tensor) else value


def _error(actual: Any, expected: Any) -> float:
    """Return the largest error, relative to max(1, |expected|); NaN if a result is not finite."""
    pairs = [(actual, expected)] if isinstance(actual, torch.Tensor) else list(zip(actual, expected, strict=True))
    errors = [((x.double() - y).abs() / y.abs().clamp(min=1)).max() for x, y in pairs]
    return float(torch.stack(errors).max())
