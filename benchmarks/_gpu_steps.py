"""The networks' part of ``gpu_check.py``: the error and the latency of a step, in every variant."""

from __future__ import annotations

import copy
import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from _clipwise import clip_wise
from _gpu_run import Found, NotHere, Row
from _gpu_variants import ALLOWED, BEST, SMALL, VARIANTS, Variant

from framecast.camera import open_source
from framecast.export.load_network import load_network
from framecast.export.onnx import describe
from framecast.graph.manifest import Manifest
from framecast.models.configs import CONFIGS, MOTION, build
from framecast.models.step import StepModel
from framecast.runtime.convert import to_input, to_model_size
from framecast.runtime.engines.engine import Engine
from framecast.runtime.engines.torch import TorchEngine
from framecast.runtime.shipped import shipped
from framecast.runtime.stepper import Stepper

STEPS = 20  # steps of a rollout
# Frames with more values than LARGE get fewer steps and frames, because their pictures take long.
LARGE, LARGE_STEPS, LARGE_FRAMES = 10_000_000, 3, 40
REPLAYS, BACK, FRAMES, WARMUP = 200, 20, 150, 20  # timed replays, replays in a row, timed frames, warm-up frames
ON_CPU = 100_000  # pixels of a motion model's picture up to which the CPU is the reference
SEEN = 40  # frames of the demo clip
AHEAD, INTERVAL = 0.1, 1 / 30  # seconds, for motion models
HOLD = 400_000  # cycles that the GPU waits before a timed replay, so that the host can enqueue it meanwhile
RAN = "ran (no figures on a CPU)"
COLUMNS = (
    f"{'max error':>9} {'allowed':>8}  {'replay ms':>9} {'p99':>8} {'in a row':>8}  {'live p50':>8} {'p99':>8} "
    f"{'enqueue':>8}"
)


def steps(config: str, device: str, *, slow: bool = False) -> list[Row]:
    """Return a row for each variant of a network: its error over a rollout, and its latency."""
    return [row(config, variant, device) for variant in VARIANTS if variant.slow == slow]


def row(config: str, variant: Variant, device: str, size: tuple[int, int] | None = None) -> Row:
    """Return the row of one variant. ``size`` (width, height) sets the picture size of a motion model."""
    named = config if size is None else f"{config} {size[0]}x{size[1]}"
    return Row(
        f"{named} {variant.name}", lambda: measured(config, lambda: made(config, variant, device, size), device, size)
    )


def measured(
    config: str, opened: Callable[[], Any], device: str, size: tuple[int, int] | None = None, *, timed: bool = True
) -> Found:
    """Measure an engine's error and, if that is within its bound, its latency."""
    with opened() as engine:
        precision = engine.precision or "fp32"
        # A warp can turn the last bit of a flow into a grey level; see ``tolerance`` in the table of configurations.
        allowed = max(ALLOWED[precision], 10 * {**CONFIGS, **MOTION}[config].tolerance)
        expected = reference(config, device, size)
        # Python's max would drop NaN.
        error = float(np.max([np.abs(a - b).max() for a, b in zip(rollout(engine), expected, strict=True)]))
        figures: dict[str, Any] = {"error": error, "allowed": allowed, "precision": precision}
        text = f"{error:9.1e} {allowed:8.0e}"
        if not error <= allowed:
            return Found(text, wrong=True, figures=figures)
        if not timed:
            return Found(text, figures=figures)
        live, replayed = live_times(engine), replay_times(engine)
    if device == "cpu":
        return Found(f"{text}  {RAN}", figures=figures)
    figures |= live | replayed
    if replayed:
        text += f"  {replayed['replay']:9.3f} {replayed['replay_p99']:8.3f} {replayed['in_a_row']:8.3f}"
    else:
        text += f"  {'–':>9} {'–':>8} {'–':>8}"
    text += f"  {live['p50']:8.3f} {live['p99']:8.3f} {live['enqueue']:8.3f}"
    if "render_span" in replayed:
        text += f"  render {replayed['render_span']:.3f}"
    return Found(text, figures=figures)


@contextmanager
def made(config: str, variant: Variant, device: str, size: tuple[int, int] | None = None) -> Iterator[TorchEngine]:
    """Open a torch engine in one variant.

    Raises:
        NotHere: this device cannot run the variant.
    """
    if device == "cpu" and variant.options.get("precision", "fp32") != "fp32":
        raise NotHere("a CPU runs fp32 only")
    if device == "cpu" and variant.slow:
        raise NotHere("a dry run does not compile networks")
    network, manifest = network_of(config, device, size)
    # An engine changes its network's layers, so each variant gets its own copy.
    with TorchEngine(copy.deepcopy(network), manifest, device=device, **variant.options) as engine:
        yield engine


@functools.cache
def network_of(config: str, device: str, size: tuple[int, int] | None = None) -> tuple[StepModel, Manifest]:
    """Return a network with its shipped weights, or with random ones of a fixed seed. In a dry run it is small."""
    if device == "cuda" and config in shipped() and config in CONFIGS:
        return load_network(shipped()[config])
    changes = dict(SMALL.get(config, {})) if device == "cpu" else {}
    if size is not None:
        changes |= {"width": size[0], "height": size[1]}
    torch.manual_seed(0)
    network = build(config, changes).eval()
    return network, describe(network, config, changes)


@functools.cache
def reference(config: str, device: str, size: tuple[int, int] | None = None) -> list[Any]:
    """Return the predictions over the first frames by PyTorch in float32 on the CPU.

    At a camera's size, a motion model takes seconds per step on the CPU. The reference is then plain PyTorch on the
    GPU, which another row compares with the CPU at a small size.
    """
    network, manifest = network_of(config, device, size)
    options: dict[str, Any] = {"device": "cpu"}
    if size is not None and math.prod(size) > ON_CPU:
        options = {"device": device, "graph": False, "kernels": False}
    with TorchEngine(copy.deepcopy(network), manifest, **options) as engine:
        return rollout(engine)


def rollout(engine: Engine) -> list[Any]:
    """Return an engine's predictions over the same frames. Values that the engine does not write are NaN."""
    stepper, manifest = Stepper(engine), engine.manifest
    count = STEPS if math.prod(manifest.frame) <= LARGE else LARGE_STEPS
    return [np.array(stepper.step(to_input(image, manifest), poison=True)) for image in _demo()[:count]]


@functools.cache
def _demo() -> list[Any]:
    with open_source("demo") as source:
        return [frame.image for frame in islice(source, SEEN)]


_resized: dict[tuple[int, int], list[Any]] = {}


def pictures(manifest: Manifest) -> list[Any]:
    """Return real frames at the model's size; they must be real because a warp's time depends on the motion."""
    if manifest.size not in _resized:
        _resized[manifest.size] = [to_model_size(image, manifest) for image in _demo()]
    return _resized[manifest.size]


def live_times(engine: Engine) -> dict[str, float]:
    """Return the milliseconds of a live step, from the camera's picture to the predicted one, and of its enqueueing.

    A motion model renders one moment per frame.
    """
    images, stepper, moments = pictures(engine.manifest), Stepper(engine), engine.manifest.renders == "moments"
    whole, enqueue = [], []
    count = FRAMES if math.prod(engine.manifest.frame) <= LARGE else LARGE_FRAMES
    count, before = (count, WARMUP) if engine.device != "cpu" else (2, 0)
    for i in range(before + count):
        image = images[i % len(images)]
        begun = time.perf_counter()
        stepper.advance([image], INTERVAL)
        queued = time.perf_counter()
        if moments:
            stepper.at([AHEAD], INTERVAL)
        else:
            stepper.render()
        whole.append(1e3 * (time.perf_counter() - begun))
        enqueue.append(1e3 * (queued - begun))
    whole, enqueue = whole[-count:], enqueue[-count:]
    p50, p99 = (float(p) for p in np.percentile(whole, [50, 99]))
    return {"p50": p50, "p99": p99, "frames": count, "enqueue": statistics.median(enqueue)}


def replay_times(engine: Engine) -> dict[str, float]:
    """Return the milliseconds of a step on the device, measured with CUDA events; empty if torch does not run it there.

    ``replay`` is a single step, and ``in_a_row`` the mean over steps that are enqueued one after the other. A small
    network's weights and state stay in the cache between steps, as they do in a live stream. ``render_span`` is for
    motion models: the time from a moment's first kernel to its picture on the host.
    """
    stream = getattr(engine, "_stream", None)  # the events must be on the steps' stream
    if not isinstance(stream, torch.cuda.Stream):
        return {}
    states, images = [engine.new_state() for _ in range(2)], pictures(engine.manifest)
    turn = 0

    def run() -> None:
        nonlocal turn
        engine.run(states[turn % 2], states[1 - turn % 2])
        turn += 1

    def events() -> tuple[Any, Any]:
        return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    single, in_a_row = [], []
    with engine.lock, torch.cuda.stream(stream):
        for i in range(WARMUP + REPLAYS):
            engine.take([images[i % len(images)]], states[1 - turn % 2])
            begun, ended = events()
            torch.cuda._sleep(HOLD)
            begun.record(stream)
            run()
            ended.record(stream)
            ended.synchronize()
            single.append(begun.elapsed_time(ended))
        for _ in range(10):
            begun, ended = events()
            torch.cuda._sleep(HOLD)
            begun.record(stream)
            for _ in range(BACK):
                run()
            ended.record(stream)
            ended.synchronize()
            in_a_row.append(begun.elapsed_time(ended) / BACK)
        drawn = []
        for _ in range(REPLAYS // 4 if engine.manifest.renders == "moments" else 0):
            begun, ended = events()
            begun.record(stream)
            engine.render_at(states[turn % 2], [AHEAD])
            ended.record(stream)
            ended.synchronize()
            drawn.append(begun.elapsed_time(ended))
    p50, p99 = (float(p) for p in np.percentile(single[WARMUP:], [50, 99]))
    return {"replay": p50, "replay_p99": p99, "replays": REPLAYS, "in_a_row": statistics.median(in_a_row)} | (
        {"render_span": statistics.median(drawn)} if drawn else {}
    )


def window(config: str, device: str) -> Row:
    """Return the row of the published method: for each frame, eagerly run the whole window from a zero state."""

    def run() -> Found:
        network = copy.deepcopy(network_of(config, device)[0]).to(device)
        eager = _window(network, CONFIGS[config].window)
        with made(config, BEST, device) as engine:
            live = live_times(engine)
        if device == "cpu":
            return Found(RAN)
        ratio = eager / live["p50"]
        figures = {"window_eager": eager, "step": live["p50"], "ratio": ratio}
        return Found(f"{eager:9.3f} ms  a step {live['p50']:.3f} ms  ratio {ratio:.1f}", figures=figures)

    return Row(f"{config} eager window", run)


@torch.inference_mode()
def _window(network: StepModel, known: int) -> float:
    """Return the milliseconds of one prediction by the published method, in float32."""
    device = next(network.parameters()).device
    rival = clip_wise(network)
    if rival is None:
        raise NotHere("not a published network")
    known = getattr(rival.config, "frames", known)  # TAU takes exactly this many; fewer in a dry run
    clip = torch.rand(1, known, *network.frame_shape, device=device)
    times = []
    for _ in range(25 if device.type == "cuda" else 2):
        begun = time.perf_counter()
        rival(clip)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times[len(times) // 5 :])
