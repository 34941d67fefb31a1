"""The contestants that predict the next frame, and how each is set up, for speed and for memory.

``CONTESTANTS`` lists them all. A new contestant is one row and a function that sets it up. All of them run the same
random float32 weights, with batch 1, on ``THREADS`` threads. A separate process measures a contestant's memory:
``python benchmarks/_cases.py MODEL CONTESTANT FOLDER`` sets it up, predicts, and prints its peak. Heavy libraries are
imported only when a contestant needs them; otherwise they would count as memory of all contestants.
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
BASELINE = "clip-wise PyTorch"  # the baseline of all ratios
THREADS = 2
STEPS = 20  # steps before a contestant is compared with the float32 step
SAME = 1e-4  # largest error of a float32 contestant, relative to the frames' effect on the prediction
COMPILE_TIMEOUT = 240.0  # seconds
MEMORY_TIMEOUT = 600.0
PREDICTIONS = 5  # number of predictions to make before memory is read
_CALIBRATION = 40  # number of frames, taken after those that measure the error


class Unavailable(Exception):  # noqa: N818
    """A contestant is not available here. The message says why."""


@dataclass(frozen=True)
class Task:
    """A network to predict with, and the files that its contestants share; see :func:`prepare`."""

    model: str
    folder: Path

    @property
    def artifact(self) -> Path:
        """The step as ONNX."""
        return self.folder / f"{self.model}.onnx"

    @property
    def weights(self) -> Path:
        """The weights as safetensors."""
        return self.folder / f"{self.model}.safetensors"

    @property
    def window(self) -> int:
        """Number of frames in a clip of the authors' code."""
        return CONFIGS[self.model].window

    def frames(self) -> list[Tensor]:
        """Return ``STEPS`` real input frames, [1, C, H, W] each."""
        return list(np.load(self.folder / f"{self.model}.npy"))

    def expected(self) -> tuple[Tensor, Tensor]:
        """Return the float32 step's predictions after ``STEPS`` real frames, and after as many black ones."""
        seen, black = np.load(self.folder / f"{self.model}.expected.npy")
        return seen, black


@dataclass(frozen=True)
class Ready:
    """A contestant that is set up.

    Attributes:
        predict: predicts the next frame once.
        rollout: returns its prediction after a reset and some frames, [1, C, H, W].
        idle: its work between two frames, not timed.
    """

    predict: Callable[[], object]
    rollout: Callable[[Sequence[Tensor]], Tensor]
    idle: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Contestant:
    """A way to predict the next frame.

    Attributes:
        setup: sets the contestant up.
        note: how it compares with the float32 step; :func:`note` fills in the placeholder.
        allowed: largest error, relative to the frames' effect, with which it is timed; None if it computes with less
            precision than float32.
    """

    setup: Callable[[Task], Ready]
    note: str
    allowed: float | None = SAME


def prepare(model: str, folder: Path) -> Task:
    """Write the files that the contestants share: artifact, weights, frames of the demo clip, expected predictions."""
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
    """Return frames ``begin`` to ``end`` of the demo clip."""
    with open_source("demo") as source:
        return [frame.image for frame in itertools.islice(source, begin, end)]


def _framed(picture: Image, manifest: Manifest) -> Tensor:
    return to_input(picture, manifest)


def set_up(task: Task, name: str) -> tuple[Ready, dict[str, float]]:
    """Set a contestant up, and compare it with the float32 step.

    The errors are relative: ``error`` to the prediction, and ``error_of_change`` to the frames' effect on it. That
    effect is the difference from the prediction after black frames. With random weights the first error says little:
    STIP's prediction is nearly the same for any frames.

    Raises:
        Unavailable: it is not available here, or its error is too large.
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
    if contestant.allowed is not None and not error <= contestant.allowed:
        raise Unavailable(f"it does not match the float32 step: error {error:.1e}, above {contestant.allowed:.0e}")
    return ready, {"error": off / float(np.linalg.norm(expected)), "error_of_change": error}


def note(model: str, name: str) -> str:
    """Return a note on how a contestant compares with a model's float32 step."""
    published = _CLIPS if CONFIGS[model].network.endswith(":TAU") else _WINDOWS
    return CONTESTANTS[name].note.format(clip_wise=published.format(window=CONFIGS[model].window))


def memory(task: Task, name: str) -> int | None:
    """Return the peak bytes of a separate process that sets a contestant up and predicts; None if unknown."""
    command = [sys.executable, __file__, task.model, name, str(task.folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MEMORY_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return None
    words = done.stdout.split()
    return int(words[-1]) if done.returncode == 0 and words else None


def _clip_wise(task: Task) -> Ready:
    """Set up the authors' method, which recomputes the whole window for each frame."""
    import torch
    from _clipwise import clip_wise
    from safetensors.torch import load_file

    from framecast.models.configs import build

    torch.set_num_threads(THREADS)
    with torch.device("meta"):
        network = build(task.model)
    rival = clip_wise(network, load_file(task.weights))
    assert rival is not None  # MODELS has only published networks
    # One tensor per window, so that only the network is timed.
    clip = torch.from_numpy(np.stack(task.frames(), axis=1))
    windows = itertools.cycle([clip[:, i : i + task.window] for i in range(STEPS - task.window + 1)])

    @torch.inference_mode()
    def predict() -> object:
        return rival(next(windows))[:, rival.newest]

    @torch.inference_mode()
    def rollout(frames: Sequence[Tensor]) -> Tensor:
        # A recurrent network takes any number of frames. Over all frames, it must predict what the step predicts.
        seen = frames[-task.window :] if rival.newest == 0 else frames
        predicted: Tensor = rival(torch.from_numpy(np.stack(seen, axis=1)))[:, rival.newest].numpy()
        return predicted

    return Ready(predict, rollout)


def _stepping(task: Task, engine: Engine) -> Ready:
    """Set up a step on an engine, with carried state."""
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
    except Exception as reason:  # torch's compiler and the C++ compiler may raise anything
        lines = str(reason).strip().splitlines()
        raise Unavailable(f"torch.compile: {lines[0] if lines else type(reason).__name__}") from reason
    return ready


def _engine(name: str, form: Callable[[Task], Path] = lambda task: task.artifact) -> Callable[[Task], Ready]:
    """Return the setup of an engine on the artifact, or on another form of the artifact."""
    return lambda task: _stepping(task, open_engine(form(task), name, threads=THREADS))


def _int8(task: Task) -> Path:
    """Return the int8 artifact. The quantizer is imported only to make the file, so that its memory does not count."""
    output = task.folder / f"{task.model}.int8.onnx"
    if not output.exists():
        from framecast.export.quantize import quantize

        quantize(task.artifact, output, [_pictures(STEPS, STEPS + _CALIBRATION)], "the demo clip, later on")
    return output


def _halves(whole: Callable[[Task], Path] = lambda task: task.artifact) -> Callable[[Task], Path]:
    """Return a function that returns the artifact in two halves; it imports the splitter only to make the file."""

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
    """Raise TimeoutError if the block takes longer than ``seconds``."""

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
    "as the authors' code runs: recomputes {window} frames from a zero state for each prediction, and sees no "
    "others; same weights, same function"
)
_CLIPS = "as the authors' code runs: encodes {window} frames and decodes {window} for each prediction; same output"
_CARRIED = "its state has seen every frame so far"
_STEP = f"same weights, same function; {_CARRIED}"
_AHEAD = "the part that needs no frame is computed before the frame arrives, and not timed"
_LESS = f"same weights but rounded: the error shows the loss; {_CARRIED}"
CONTESTANTS: Mapping[str, Contestant] = {
    BASELINE: Contestant(_clip_wise, "{clip_wise}"),
    "PyTorch step": Contestant(_eager, f"eager; {_STEP}"),
    "PyTorch step, compiled": Contestant(
        _compiled, f"torch.compile (inductor); {_STEP}; its memory includes the compiler's"
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
        _engine("openvino:bf16", _int8), f"8-bit integers, and the rest in bfloat16 instead of float32; {_LESS}", None
    ),
    "OpenVINO step, all three": Contestant(
        _engine("openvino:bf16", _halves(_int8)), f"int8 and bf16, in two halves; {_AHEAD}; {_LESS}", None
    ),
}


def _main(model: str, name: str, folder: str) -> None:
    """Run in the process whose memory is measured."""
    ready = CONTESTANTS[name].setup(Task(model, Path(folder)))
    for _ in range(PREDICTIONS):
        ready.predict()
    print(peak_memory())


if __name__ == "__main__":
    _main(*sys.argv[1:])
