"""The networks' part of ``gpu_check.py``: errors on every engine, latency of a live step, cost of a stream."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _clipwise import clip_wise

from framecast.camera import open_source
from framecast.errors import FramecastError
from framecast.export.exporter import real_frames
from framecast.export.load_network import load_network
from framecast.export.onnx import describe, to_onnx
from framecast.graph.artifact import save
from framecast.graph.manifest import Manifest
from framecast.models.configs import CONFIGS, build
from framecast.models.step import StepModel
from framecast.runtime.convert import to_model_size
from framecast.runtime.engines.engine import Engine
from framecast.runtime.shipped import shipped
from framecast.runtime.stepper import Stepper

STEPS = 20
FRAMES = 120  # timed frames, after as many frames of warm-up
# Largest error over the rollout, in units of the value range. float32 differs by the order of its roundings; TF32 and
# fp16 have 11 bits.
ALLOWED = {"fp32": 1e-4, "tf32": 2e-2, "fp16": 2e-2}
VARIANTS: dict[str, dict[str, Any]] = {
    "torch eager": {"kernels": False, "graph": False},
    "torch eager, kernels": {"graph": False},
    "torch compiled": {"kernels": False, "graph": False, "compiled": True},
    "torch graph": {"kernels": False},
    "torch graph, kernels": {},
    "torch graph, kernels, tf32": {"precision": "tf32"},
    "torch graph, fp16": {"kernels": False, "precision": "fp16"},
    "torch graph, kernels, fp16": {"precision": "fp16"},
    "torch compiled, graph, kernels, fp16": {"precision": "fp16", "compiled": True},
}
OTHERS = ("onnxruntime-cuda", "tensorrt:fp32", "tensorrt:fp16")
Row = Callable[..., None]
Found = tuple[str, bool, dict[str, Any]]  # a row: its text, whether it is wrong, its figures
_RAN = "ran (no figures, because this is not a GPU)"


def check(configs: Sequence[str], device: str, row: Row, late: Callable[[], bool]) -> None:
    """Print a row for each network and engine: the largest error over a rollout of real frames."""
    row(f"{'config':11s} {'engine':37s} {'max error':>9} {'allowed':>8}")
    for config in configs:
        expected = rollout_of_network(*network_of(config))
        for name, made in engines(config, device):
            if late():
                return
            precision = next((p for p in ALLOWED if p in name), "fp32")
            # A warp can turn the last bit of a flow into a grey value; see the table of configurations.
            allowed = max(ALLOWED[precision], 10 * CONFIGS[config].tolerance)

            def run(engine: Engine, expected: Any = expected, allowed: float = allowed) -> Found:
                error = max(float(np.abs(a - b).max()) for a, b in zip(rollout(engine), expected, strict=True))
                wrong = not error <= allowed
                return f"{error:9.1e} {allowed:8.0e}", wrong, {"error": error, "allowed": allowed}

            attempt(config, name, made, run, row)


def latency(
    configs: Sequence[str], device: str, ceilings: dict[str, float] | None, row: Row, late: Callable[[], bool]
) -> None:
    """Print a row for each network and engine: a live step, from the camera's picture to the predicted one."""
    row(
        f"{'config':11s} {'engine':37s} {'p50 ms':>8} {'p99':>8} {'enqueue':>8} {'device':>8} {'roofline':>9} "
        f"{'window, eager':>14}"
    )
    for config in configs:
        window = _window(network_of(config)[0].to(device), CONFIGS[config].window)
        for name, made in engines(config, device):
            if late():
                return

            def run(engine: Engine, config: str = config, window: float = window) -> Found:
                times = live(engine)
                if ceilings is None:
                    return _RAN, False, {}
                bound = roofline(config, ceilings)
                p50, p99 = (float(p) for p in np.percentile(times["whole"], [50, 99]))
                figures = {
                    "p50": p50, "p99": p99, "n": len(times["whole"]), "enqueue": statistics.median(times["enqueue"]),
                    "device": times["device"], "roofline": bound,
                    "window_eager": None if math.isnan(window) else window,
                }  # fmt: skip
                text = f"{p50:8.3f} {p99:8.3f} {figures['enqueue']:8.3f} {figures['device']:8.3f}"
                return f"{text} {bound:9.3f} {window:14.3f}", False, figures

            attempt(config, name, made, run, row)
        torch.cuda.empty_cache()


def steady(configs: Sequence[str], device: str, row: Row, late: Callable[[], bool]) -> None:
    """Print the device allocations and the host's waits in 50 frames of a running stream."""
    from torch.profiler import ProfilerActivity, profile

    row(f"{'config':11s} {'engine':37s} {'allocations a frame':>20} {'waits a frame':>14}")
    name = "torch graph, kernels"

    def run(engine: Engine) -> Found:
        images, stepper = pictures(engine.manifest), Stepper(engine)

        def frames(count: int) -> None:
            for i in range(count):
                stepper.advance([images[i % len(images)]])
                stepper.render()

        frames(40)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
        with profile(activities=activities) as profiled:
            frames(50)
        names = [event.name for event in profiled.events() or []]
        allocations = sum(n in ("cudaMalloc", "cudaMallocAsync", "cuMemCreate") for n in names) / 50
        waits = sum("Synchronize" in n for n in names) / 50
        if device == "cpu":
            return _RAN, False, {}
        return f"{allocations:20.2f} {waits:14.2f}", False, {"allocations": allocations, "waits": waits}

    for config in configs:
        if late():
            return
        attempt(config, name, dict(engines(config, device))[name], run, row)


def attempt(
    config: str,
    name: str,
    made: Callable[[], Any],
    run: Callable[[Engine], Found],
    row: Row,
) -> None:
    """Print a row with the result of ``run`` on an engine: "not run" if it is not available, wrong if it fails."""
    begin, figures = f"{config:11s} {name:37s}", {"config": config, "engine": name}
    try:
        with made() as engine:
            text, wrong, found = run(engine)
    except (FramecastError, ImportError) as reason:
        row(f"{begin} not run: {_line(reason)}", **figures, not_run=_line(reason))
    except Exception as reason:  # noqa: BLE001 (a GPU's libraries raise anything, and the other rows must still run)
        row(f"{begin} failed: {type(reason).__name__}: {_line(reason)}", wrong=True, **figures, error=_line(reason))
    else:
        row(f"{begin} {text}", wrong, **figures, **found)


def network_of(config: str) -> tuple[StepModel, Manifest]:
    """Return a network with its shipped weights, or with random weights that are always the same."""
    if config in shipped():
        return load_network(shipped()[config])
    torch.manual_seed(0)
    network = build(config).eval()
    return network, describe(network, config)


def engines(config: str, device: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield every way to run a configuration, by name."""
    from framecast.runtime.engines.torch import TorchEngine

    def torch_engine(options: dict[str, Any]) -> Callable[[], Any]:
        return lambda: TorchEngine(*network_of(config), device=device, **options)

    for name, options in VARIANTS.items():
        if device == "cpu" and options.get("precision"):
            continue  # a CPU has no other precisions
        yield name, torch_engine(options)
    for name in OTHERS:
        yield name, partial(_from_artifact, config, name)


@contextmanager
def _from_artifact(config: str, name: str) -> Iterator[Engine]:
    """Open an engine on an exported artifact. For TensorRT, build the engine first."""
    from framecast.runtime.engines import open_engine

    with tempfile.TemporaryDirectory() as folder:
        path = shipped().get(config) or Path(folder) / f"{config}.onnx"
        engine, _, precision = name.partition(":")
        if engine == "tensorrt":
            from framecast.export import tensorrt
            from framecast.runtime.engines.tensorrt.library import gpu, library

            here, found = gpu(), library()
            _exported(config, path)
            tensorrt.build(tensorrt.BuildRequest(path, config, found, here, precision=precision))
        elif engine == "onnxruntime-cuda":
            import onnxruntime

            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise FramecastError(f"onnxruntime {onnxruntime.__version__} here has no CUDA")
            _exported(config, path)
        with open_engine(path, name) as opened:
            yield opened


def _exported(config: str, path: Path) -> None:
    if not path.exists():
        save(to_onnx(*network_of(config)), path)


def pictures(manifest: Manifest) -> list[Any]:
    """Return real frames at the model's size, because a warp's time depends on the motion."""
    with open_source("demo") as source:
        return [to_model_size(frame.image, manifest) for frame in islice(source, 60)]


def _frames(manifest: Manifest) -> list[Any]:
    with open_source("demo") as source:
        return list(real_frames(source, manifest, STEPS))


@torch.inference_mode()
def rollout_of_network(network: StepModel, manifest: Manifest) -> list[Any]:
    """Return the predictions over the first frames by PyTorch on the CPU."""
    state, predicted = network.init_state(), []
    for frame in _frames(manifest):
        prediction, state = network.step(torch.from_numpy(frame), state)
        predicted.append(prediction.numpy().copy())
    return predicted


def rollout(engine: Engine) -> list[Any]:
    """Return the predictions of an engine over the same frames. Values that it does not write are NaN."""
    stepper = Stepper(engine)
    return [np.array(stepper.step(frame, poison=True)) for frame in _frames(engine.manifest)]


def live(engine: Engine) -> dict[str, Any]:
    """Return the milliseconds of a live step: the whole, the part until all is enqueued, and the device (median)."""
    images, stepper = pictures(engine.manifest), Stepper(engine)
    whole, enqueue, device = [], [], []
    for i in range(2 * FRAMES):
        image = images[i % len(images)]
        begun = time.perf_counter()
        stepper.advance([image])
        queued = time.perf_counter()
        stepper.render()
        ended = time.perf_counter()
        if i >= FRAMES:
            whole.append(1e3 * (ended - begun))
            enqueue.append(1e3 * (queued - begun))
    for _ in range(20):  # back to back, with one prediction per ten steps: this is the device's own time
        begun = time.perf_counter()
        for _ in range(10):
            stepper.advance([images[0]])
        stepper.render()
        device.append(1e3 * (time.perf_counter() - begun) / 10)
    return {"whole": whole, "enqueue": enqueue, "device": statistics.median(device)}


@torch.inference_mode()
def _window(network: StepModel, known: int) -> float:
    """Return the milliseconds of a prediction by the published way: from a zero state over all known frames.

    It runs eagerly in float32. The result is NaN if the network is not a published one.
    """
    device = next(network.parameters()).device
    rival = clip_wise(network)
    if rival is None:
        return math.nan

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    clip = torch.rand(1, known, *network.frame_shape, device=device)
    times = []
    for i in range(25 if device.type == "cuda" else 6):
        wait()
        begun = time.perf_counter()
        rival(clip)
        wait()
        if i >= 5:
            times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times)


def roofline(config: str, ceilings: dict[str, float]) -> float:
    """Return the minimum milliseconds of a float32 step, limited by bytes of weights and state, or by its products."""
    entry = CONFIGS[config]
    moved = 4 * entry.parameters + 2 * entry.state_bytes
    by_bytes, by_products = moved / ceilings["copy GB/s"] / 1e6, 2 * entry.gmacs / ceilings["fp32 TFLOP/s"]
    return max(by_bytes, by_products)  # ms: bytes over GB/s are 1e-9 s, GFLOP over TFLOP/s are 1e-3 s


def ceilings() -> dict[str, float]:
    """Measure this GPU: GB/s of a large copy (read and written), TFLOP/s of a large matrix product."""
    from _gpu_kernels import microseconds

    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    found = {"copy GB/s": 2 * source.numel() / microseconds(lambda: target.copy_(source), 20) / 1e3}
    size = 8192
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
        out = torch.empty_like(a)
        found[f"{name} TFLOP/s"] = 2 * size**3 / microseconds(partial(torch.mm, a, b, out=out), 10) / 1e6
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:110]
