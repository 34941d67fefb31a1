"""Who predicts the next frame, of which networks, and how each is set up: for speed and for memory alike.

``CONTESTANTS`` is the one table; a new one is a line of it, and a function that sets it up. All run float32 weights
that are random and always the same, batch 1, on ``THREADS`` threads. What a contestant costs in memory is seen in a
process of its own: ``python benchmarks/_cases.py MODEL CONTESTANT FOLDER`` sets it up, predicts, and prints its peak.
Nothing heavy is imported before a contestant needs it, since that would count as the memory of all.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from framecast.bench.cold_start import peak_memory
from framecast.camera import Image, open_source
from framecast.errors import FramecastError
from framecast.graph.manifest import Manifest
from framecast.models.configs import CONFIGS
from framecast.runtime.convert import Tensor, to_input
from framecast.runtime.engines import Engine, open_engine
from framecast.runtime.stepper import Stepper

MODELS = ("stip-ucf", "stau-mnist", "mau-mnist", "astm-mnist", "tau-mnist")
BASELINE = "clip-wise PyTorch"  # what all are compared with
THREADS = 2
STEPS = 20  # of state, after which a contestant is held against the float32 step
SAME = 1e-4  # error, of what the frames change, up to which two are the same function in float32
COMPILE_TIMEOUT = 240.0  # seconds
MEMORY_TIMEOUT = 600.0
PREDICTIONS = 5  # before a contestant's memory is read
_CALIBRATION = 40  # frames, after those that it is judged by


class Unavailable(Exception):  # noqa: N818
    """A contestant that cannot be had here, and why."""


@dataclass(frozen=True)
class Task:
    """A network to predict with, and what its contestants share, as files: see :func:`prepare`."""

    model: str
    folder: Path

    @property
    def artifact(self) -> Path:
        """The step as ONNX."""
        return self.folder / f"{self.model}.onnx"

    @property
    def weights(self) -> Path:
        """The same as safetensors."""
        return self.folder / f"{self.model}.safetensors"

    @property
    def window(self) -> int:
        """How many frames the authors' code sees."""
        return CONFIGS[self.model].window

    def frames(self) -> list[Tensor]:
        """Real ones to predict from, ``STEPS`` of them, [1, C, H, W] each."""
        return list(np.load(self.folder / f"{self.model}.npy"))

    def expected(self) -> tuple[Tensor, Tensor]:
        """What the float32 step predicts after ``STEPS`` frames, and after as many black ones."""
        seen, black = np.load(self.folder / f"{self.model}.expected.npy")
        return seen, black


@dataclass(frozen=True)
class Ready:
    """A contestant, set up.

    Attributes:
        predict: the next frame, once.
        rollout: its prediction after frames from a reset, [1, C, H, W].
        idle: what it does between two frames, which is not counted.
    """

    predict: Callable[[], object]
    rollout: Callable[[Sequence[Tensor]], Tensor]
    idle: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Contestant:
    """A way to predict the next frame.

    Attributes:
        setup: makes it ready.
        note: what is equal to the float32 step and what is not; see :func:`note` for what is filled in.
        allowed: the largest error, of what the frames change, with which it is timed; None where it computes with less
            than float32.
    """

    setup: Callable[[Task], Ready]
    note: str
    allowed: float | None = SAME


def prepare(model: str, folder: Path) -> Task:
    """Write what the contestants share: artifact, weights, frames of the demo clip, and what is expected of them."""
    import torch

    from framecast.export.exporter import export_random
    from framecast.export.load_network import load_network

    task = Task(model, folder)
    export_random(model, folder)
    network, manifest = load_network(export_random(model, folder, artifact=False))
    np.save(folder / f"{model}.npy", np.stack([_framed(picture, manifest) for picture in _pictures(0, STEPS)]))
    frames = torch.from_numpy(np.stack(task.frames()))
    expected = []
    for clip in (frames, torch.zeros_like(frames)):
        state = network.init_state()
        with torch.inference_mode():
            for frame in clip:
                prediction, state = network.step(frame, state)
        expected.append(prediction[:, 0].numpy())
    np.save(folder / f"{model}.expected.npy", expected)
    return task


def _pictures(begin: int, end: int) -> list[Image]:
    """Of the demo clip."""
    with open_source("demo") as source:
        return [frame.image for frame in itertools.islice(source, begin, end)]


def _framed(picture: Image, manifest: Manifest) -> Tensor:
    return to_input(picture, manifest)


def set_up(task: Task, name: str) -> tuple[Ready, dict[str, float]]:
    """Make a contestant ready, and hold it to the float32 step.

    Its errors are relative ones: ``error`` to the prediction, and ``error_of_change`` to what the frames change in it,
    that is to its difference from the prediction after black frames. With random weights the first says little: STIP's
    prediction is nearly the same whatever it sees.

    Raises:
        Unavailable: it cannot be had here, or it is not the same function.
    """
    contestant = CONTESTANTS[name]
    expected, black = task.expected()
    try:
        ready = contestant.setup(task)
        off = float(np.linalg.norm(ready.rollout(task.frames()) - expected))
    except (FramecastError, ModuleNotFoundError) as reason:
        raise Unavailable(" ".join(str(reason).split())) from reason
    if not np.isfinite(off):
        raise Unavailable(f"its prediction after {STEPS} frames is not finite")
    error = off / float(np.linalg.norm(expected - black))
    if contestant.allowed is not None and error > contestant.allowed:
        raise Unavailable(f"it is not the float32 step: off by {error:.1e}, {contestant.allowed:.0e} is allowed")
    return ready, {"error": off / float(np.linalg.norm(expected)), "error_of_change": error}


def note(model: str, name: str) -> str:
    """What is equal to the float32 step of a model, and what is not."""
    published = _CLIPS if CONFIGS[model].network.endswith(":TAU") else _WINDOWS
    return CONTESTANTS[name].note.format(clip_wise=published.format(window=CONFIGS[model].window))


def memory(task: Task, name: str) -> int | None:
    """Bytes that a process of its own had at most, which sets a contestant up and predicts; None where none tells."""
    command = [sys.executable, __file__, task.model, name, str(task.folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MEMORY_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return None
    words = done.stdout.split()
    return int(words[-1]) if done.returncode == 0 and words else None


def _clip_wise(task: Task) -> Ready:
    """The authors' way: the whole window again for each frame."""
    import torch
    from _clipwise import clip_wise
    from safetensors.torch import load_file

    from framecast.models.configs import build

    torch.set_num_threads(THREADS)
    with torch.device("meta"):
        network = build(task.model)
    rival = clip_wise(network, load_file(task.weights))
    assert rival is not None  # only published networks are in MODELS
    # One tensor a window, so that nothing but the network is timed.
    clip = torch.from_numpy(np.stack(task.frames(), axis=1))
    windows = itertools.cycle([clip[:, i : i + task.window] for i in range(STEPS - task.window + 1)])

    @torch.inference_mode()
    def predict() -> object:
        return rival(next(windows))[:, rival.newest]

    @torch.inference_mode()
    def rollout(frames: Sequence[Tensor]) -> Tensor:
        # A recurrent one takes any number of frames: over all of them it is what the step is after as many.
        seen = frames[-task.window :] if rival.newest == 0 else frames
        predicted: Tensor = rival(torch.from_numpy(np.stack(seen, axis=1)))[:, rival.newest].numpy()
        return predicted

    return Ready(predict, rollout)


def _stepping(task: Task, engine: Engine) -> Ready:
    """A step on an engine, its state carried on."""
    stepper, frames = Stepper(engine), itertools.cycle(task.frames())

    def rollout(frames: Sequence[Tensor]) -> Tensor:
        own = Stepper(engine)
        for frame in frames:
            prediction = own.step(frame)
        return np.array(prediction[:, 0])

    return Ready(lambda: stepper.step(next(frames)), rollout, idle=stepper.precompute)


def _eager(task: Task) -> Ready:
    from framecast.runtime.engines.torch import TorchEngine

    return _stepping(task, TorchEngine.open(task.weights, device="cpu", threads=THREADS))


def _compiled(task: Task) -> Ready:
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(task.folder / "inductor"))
    from framecast.runtime.engines.torch import TorchEngine

    ready = _stepping(task, TorchEngine.open(task.weights, device="cpu", threads=THREADS, compiled=True))
    try:
        with _within(COMPILE_TIMEOUT):
            ready.predict()
    except Exception as reason:  # whatever the compiler raises, and the one below it
        said = str(reason).strip().splitlines()
        raise Unavailable(f"torch.compile: {said[0] if said else type(reason).__name__}") from reason
    return ready


def _engine(name: str, form: Callable[[Task], Path] = lambda task: task.artifact) -> Callable[[Task], Ready]:
    """An engine on the artifact, or on another form of it."""
    return lambda task: _stepping(task, open_engine(form(task), name, threads=THREADS))


def _int8(task: Task) -> Path:
    """The int8 artifact; what makes it is not part of running it, and not imported where it is there."""
    output = task.folder / f"{task.model}.int8.onnx"
    if not output.exists():
        from framecast.export.quantize import quantize

        quantize(task.artifact, output, [_pictures(STEPS, STEPS + _CALIBRATION)], "the demo clip, later on")
    return output


def _halves(whole: Callable[[Task], Path] = lambda task: task.artifact) -> Callable[[Task], Path]:
    """The artifact in two halves; likewise."""

    def form(task: Task) -> Path:
        artifact = whole(task)
        output = artifact.with_name(f"{artifact.stem}.halves.onnx")
        if not output.exists():
            from framecast.graph.split import split_artifact

            split_artifact(artifact, output)
        return output

    return form


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Break off what takes longer."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_WINDOWS = (
    "as the authors' code runs: computes {window} frames anew from a zero state for each prediction, and knows no "
    "others; same weights, same function"
)
_CLIPS = "as the authors' code runs: encodes {window} frames and decodes {window} for each prediction; same output"
_CARRIED = "its state has seen every frame so far"
_STEP = f"same weights, same function; {_CARRIED}"
_AHEAD = "what needs no frame is computed before it is there, and not counted"
_LESS = f"same weights but rounded: the error says what is lost; {_CARRIED}"
CONTESTANTS: Mapping[str, Contestant] = {
    BASELINE: Contestant(_clip_wise, "{clip_wise}"),
    "PyTorch step": Contestant(_eager, f"eager; {_STEP}"),
    "PyTorch step, compiled": Contestant(
        _compiled, f"torch.compile (inductor); {_STEP}; its memory counts what compiling took"
    ),
    "ONNX Runtime step": Contestant(_engine("onnxruntime"), f"framecast's default engine; {_STEP}"),
    "ONNX Runtime step, halves": Contestant(_engine("onnxruntime", _halves()), f"{_AHEAD}; {_STEP}"),
    "ONNX Runtime step, int8": Contestant(_engine("onnxruntime", _int8), f"8-bit integers; {_LESS}", None),
    "ONNX Runtime step, int8, halves": Contestant(
        _engine("onnxruntime", _halves(_int8)), f"8-bit integers; {_AHEAD}; {_LESS}", None
    ),
    "OpenVINO step": Contestant(_engine("openvino"), f"float32; {_STEP}"),
    "OpenVINO step, halves": Contestant(_engine("openvino", _halves()), f"float32; {_AHEAD}; {_STEP}"),
    "OpenVINO step, bf16": Contestant(_engine("openvino:bf16"), f"computes in bfloat16; {_LESS}", None),
    "OpenVINO step, int8": Contestant(_engine("openvino", _int8), f"8-bit integers; {_LESS}", None),
    "OpenVINO step, int8 and bf16": Contestant(
        _engine("openvino:bf16", _int8), f"8-bit integers, and what is float32 beside them in bfloat16; {_LESS}", None
    ),
    "OpenVINO step, all three": Contestant(
        _engine("openvino:bf16", _halves(_int8)), f"int8 and bf16, in two halves; {_AHEAD}; {_LESS}", None
    ),
}


def _main(model: str, name: str, folder: str) -> None:
    """What the process does whose memory is wanted."""
    ready = CONTESTANTS[name].setup(Task(model, Path(folder)))
    for _ in range(PREDICTIONS):
        ready.predict()
    print(peak_memory())


if __name__ == "__main__":
    _main(*sys.argv[1:])
