"""Counts the launches and memory traffic of a live step without a GPU: ``python benchmarks/gpu_arithmetic.py``.

The torch engine's step runs on meta tensors, which have a shape and a layout but no memory, as if on a GPU. For each
operator, the script counts launches, the bytes of inputs and outputs, and the multiplications of convolutions. From
these it estimates the time of a step on an H200, under the assumptions below. Nothing here was measured.

- Each kernel of a CUDA graph costs ``GAP``, even if it does nothing. A branch of the graph costs only its own work.
- Bytes move at memory bandwidth, although most of a small network's data stays in the cache.
- A convolution uses one multiprocessor per tile of ``TILE`` results, and takes at least ``LEAST``.
- Without a graph, Python launches at most one kernel per ``EAGER``. This estimates the published method, which
  recomputes its whole window for each frame ("window, eager").
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from _clipwise import clip_wise
from _machine import header, script
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from framecast.export.onnx import describe
from framecast.kernels import switch
from framecast.kernels.layout import is_channels_last
from framecast.kernels.stgru_gates.kernel import traffic
from framecast.models.branch import Branch
from framecast.models.configs import CONFIGS as ENTRIES
from framecast.models.configs import build
from framecast.models.step import StepModel
from framecast.models.stip import STIP
from framecast.runtime.engines.torch import layers_to_half
from framecast.runtime.engines.torch_pictures import Pictures, to_frame

CONFIGS = ("stip-ucf", "stip-4k", "stip-edge", "stau-mnist", "mau-mnist", "astm-mnist", "tau-mnist")
# An H200 SXM, from its data sheet: GB/s, multiprocessors, dense TFLOP/s by precision.
BANDWIDTH, PROCESSORS, RATES = 4800, 132, {"fp32": 67, "tf32": 495, "fp16": 990}
GAP, TILE, LEAST = 2.5, 64 * 32, 3.0  # microseconds, results, microseconds
EAGER = 5.0  # microseconds
SIZES = {"stip-ucf": (64, 16, 16), "stip-4k": (64, 17, 30), "large": (64, 270, 480)}  # of a state, (C, H, W)
WINDOW = "window, eager"
OURS = {"stgru_gates": 2, "eifag": 1, "stau_attention": 2}  # launches per operator of ours
# Views and other operators that launch no kernel.
FREE = {
    *("view", "permute", "slice", "select", "split", "split_with_sizes", "unsqueeze", "squeeze", "expand", "transpose"),
    *("t", "alias", "detach", "as_strided", "unbind", "unfold", "_unsafe_view"),
    *("empty", "new_empty", "empty_like", "lift_fresh"),
}


@dataclass
class Count:
    """Counts for the main stream and the branch. The keys of ``launches`` say whether a launch is in the branch."""

    launches: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    moved: int = 0  # bytes
    products: list[tuple[bool, int, int]] = field(default_factory=list)  # branch, multiplications, results


class Counter(TorchDispatchMode):
    """Counts every operator that runs within it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.count, self.aside = Count(), False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func).split(".")[1]
        if name == "convolution" and any(map(is_channels_last, args[:2])):
            result = result.to(memory_format=torch.channels_last)  # as on a GPU: one channels-last input suffices
        if name not in FREE:
            self._add(name, args, result)
        return result

    def _add(self, name: str, args: Any, result: Any) -> None:
        tensors = [x for x in tree_leaves((args, result)) if isinstance(x, Tensor)]
        launches = OURS.get(name, 1)
        if name == "convolution":
            source, weight, bias = args[:3]
            # cuDNN adds the bias in a separate pass. A change of layout before the convolution is another pass.
            launches += (bias is not None) + (is_channels_last(source) != is_channels_last(weight))
            results = result.numel()
            self.count.products.append((self.aside, results * weight[0].numel() * _transposed(args), results))
        self.count.launches[self.aside] += launches
        self.count.moved += sum(x.numel() * x.element_size() for x in tensors)


def _transposed(args: Any) -> float:
    """Return the factor from a weight's size to multiplications per result: 1, unless the convolution is transposed."""
    weight, stride, transposed = args[1], args[3], args[6]
    return weight.shape[0] / weight.shape[1] / math.prod(stride) if transposed else 1


class _Branch(Branch):
    """Marks work in the branch, so that it is counted separately."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    @contextmanager
    def fork(self) -> Iterator[None]:
        self._counter.aside = True
        yield
        self._counter.aside = False

    def join(self) -> None:
        pass


@dataclass(frozen=True)
class Form:
    """A way to run a step; see :class:`framecast.runtime.engines.torch.TorchEngine`."""

    precision: str = "fp32"
    deployed: bool = True
    branch: bool = True
    channels_last: bool = False


FORMS = {
    "fp32, as trained": Form(deployed=False, branch=False),
    "fp32, one stream": Form(branch=False),
    "fp32": Form(),
    "tf32": Form("tf32", channels_last=True),
    "fp16, contiguous": Form("fp16"),
    "fp16": Form("fp16", channels_last=True),
}


@torch.no_grad()
def counted(config: str, form: Form) -> Count:
    """Count a live step of a configuration: from the camera's picture on the GPU to the predicted one."""
    network: StepModel = build(config).eval()
    manifest = describe(network, config)
    counter = Counter()
    if form.deployed:
        network = network.on_gpu(channels_last=form.channels_last)
        if form.branch and isinstance(network, STIP):
            network.branch = _Branch(counter)
    if form.precision == "fp16":
        layers_to_half(network)
    network = network.to("meta")
    pictures = Pictures(1, manifest, torch.device("meta"))
    layout = torch.channels_last if network.channels_last else torch.contiguous_format
    state = {
        name: value.float().to(memory_format=layout) if value.dim() == 4 else value.float()
        for name, value in network.init_state().items()
    }
    taken = torch.zeros((1, *manifest.size[::-1], 3), dtype=torch.uint8, device="meta")
    shown = torch.zeros((1, manifest.outputs, *manifest.frame), device="meta")
    with counter, mock.patch.object(switch, "DEVICES", {"meta"}), mock.patch.object(switch, "INSTALLED", True):
        predicted, written = network(to_frame(manifest, taken), state)
        torch._foreach_copy_([torch.empty_like(x) for x in written.values()], list(written.values()))
        shown.copy_(predicted)
        pictures.show(shown)
    return counter.count


@torch.no_grad()
def window(config: str) -> Count:
    """Count a prediction by the published method: all known frames, from a zero state."""
    network = build(config).eval()
    rival = clip_wise(network)
    assert rival is not None, f"{config} is not a published network"
    counter = Counter()
    clip = torch.zeros((1, ENTRIES[config].window, *network.frame_shape), device="meta")
    rival = rival.to("meta")
    with counter:
        rival(clip)
    return counter.count


def estimated(count: Count, precision: str = "fp32", gap: float = GAP) -> float:
    """Return the estimated milliseconds of a step on an H200, under the assumptions above."""
    rate = RATES[precision] * 1e6  # operations a microsecond

    def chain(aside: bool) -> float:
        work = [2 * n / rate / min(1, math.ceil(m / TILE) / PROCESSORS) for a, n, m in count.products if a is aside]
        return gap * count.launches[aside] + sum(max(LEAST, time) for time in work)

    return max(chain(False), chain(True), count.moved / BANDWIDTH / 1e3) / 1e3


def main() -> None:
    """Print a row for each configuration and form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=CONFIGS, metavar="CONFIG")
    args = parser.parse_args()
    if unknown := set(args.configs) - set(ENTRIES):
        parser.error(f"no network {', '.join(sorted(unknown))}: choose from {', '.join(ENTRIES)}")
    print(header())
    rates = ", ".join(f"{precision} {rate}" for precision, rate in RATES.items())
    print(f"assumed   an H200: {BANDWIDTH} GB/s; {PROCESSORS} multiprocessors; TFLOP/s: {rates}")
    print(f"          a launch: {GAP} us in a graph, {EAGER} us without one")
    print("          Nothing here was measured on a GPU.\n")
    print(f"{'config':11s} {'form':18s} {'launches':>8} {'beside':>7} {'moved MB':>9} {'GMAC':>7} {'estimated ms':>13}")
    for config in args.configs:
        for name, form in FORMS.items():
            if config.startswith("stip") or not name.endswith((" one stream", " contiguous")):  # STIP-only forms
                count = counted(config, form)
                row(config, name, count, estimated(count, form.precision))
        if ENTRIES[config].window_gmacs is not None:
            count = window(config)
            row(config, WINDOW, count, estimated(count, gap=EAGER))
    gates()


def gates() -> None:
    """Print a row for each size of the STGRU gates and precision of the convolutions, compared with a copy."""
    print(f"\n{'stgru_gates':16s} {'moved MB':>9} {'two launches, us':>17} {'a copy, us':>11} {'of its bandwidth':>17}")
    for size, shape in SIZES.items():
        for precision, itemsize in (("fp32", 4), ("fp16", 2)):
            # Convolutions in this precision; states and the layer norms' affine are float32.
            moved = traffic(1, shape, 4) - 8 * math.prod(shape) * (4 - itemsize)
            ours, copy = (count * GAP + moved / BANDWIDTH / 1e3 for count in (2, 1))
            print(f"{size + ', ' + precision:16s} {moved / 1e6:9.2f} {ours:17.2f} {copy:11.2f} {copy / ours:17.0%}")


def row(config: str, name: str, count: Count, milliseconds: float) -> None:
    """Print a row."""
    launches, beside = count.launches[False], count.launches[True]
    gmacs = sum(n for _, n, _ in count.products) / 1e9
    figures = f"{launches:8d} {beside:7d} {count.moved / 1e6:9.1f} {gmacs:7.2f} {milliseconds:13.3f}"
    print(f"{config:11s} {name:18s} {figures}", flush=True)


if __name__ == "__main__":
    script(main)
