"""What the Python backend of NVIDIA Triton Inference Server runs: framecast's own engine, with a state for each camera.

The Python backend does not carry implicit state from request to request, so the states are kept here, by correlation
id. The server itself sees to it that a sequence's requests come one after another and to the same instance, and it
forgets a silent sequence; its state here is then dropped as well, a little later.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.errors import FrameError
from framecast.graph.manifest import Manifest
from framecast.runtime.engines import Engine, open_engine
from framecast.runtime.stepper import Stepper

START, END = 1, 2  # flags of a request in a sequence
LATER = 1.5  # times the server's own idle limit: until then it may still send a request
MOST_MOMENTS = 64  # that a request may ask for


class LostError(FrameError):
    """There is no state for this sequence: it must start again."""


@dataclass
class _Kept:
    stepper: Stepper
    used: float


class Sequences:
    """The states of many cameras on one engine.

    Args:
        engine: steps them; its owner closes it.
        steps: how many steps to predict ahead, for a model that predicts whole steps.
        most: the number of cameras kept; beyond it, the one that was silent longest is dropped.
        idle: seconds after which a silent camera is dropped.
    """

    def __init__(self, engine: Engine, steps: int, *, most: int = 64, idle: float = 60.0) -> None:
        self._engine, self._steps, self._most, self._idle = engine, steps, most, LATER * idle
        self._kept: OrderedDict[int, _Kept] = OrderedDict()  # the one that was silent longest first

    def __len__(self) -> int:
        return len(self._kept)

    def step(
        self,
        sequence: int,
        flags: int,
        image: Image,
        elapsed: float | None = None,
        ahead: Sequence[float] = (),
        *,
        now: float,
    ) -> tuple[NDArray[np.uint8], bool]:
        """Answer one request.

        Args:
            sequence: the correlation id.
            flags: ``START``, ``END``.
            image: uint8 [h, w, 3] BGR, at the model's size.
            elapsed: for a model of motion: seconds since the frame before; below 0 for no new frame, only moments.
            ahead: for a model of motion: the moments to render, in seconds after the newest frame.
            now: seconds, on any clock.

        Returns:
            The pictures, uint8 [N, h, w, 3], and whether they are finite.

        Raises:
            LostError: the sequence is unknown and does not start here.
            FrameError: the picture has another size.
            EngineError: the step failed.
        """
        self._forget(now)
        manifest = self._engine.manifest
        width, height = manifest.size
        if flags & START:
            self._kept.pop(sequence, None)
            self._kept[sequence] = _Kept(Stepper(self._engine), now)
        kept = self._kept.get(sequence)
        if kept is None:
            raise LostError("no state for this sequence: it must specify the START flag")
        kept.used = now
        self._kept.move_to_end(sequence)
        moments = manifest.renders == "moments"
        if not (moments and elapsed is not None and elapsed < 0):
            if image.shape != (height, width, 3):
                raise FrameError(f"a picture must be {width}x{height}, not {image.shape[1]}x{image.shape[0]}")
            kept.stepper.advance([image.copy()], elapsed or 0.0)  # the request's memory ends with it
        if moments:
            if len(ahead) > MOST_MOMENTS or not all(0 <= seconds < math.inf for seconds in ahead):
                raise FrameError(f"up to {MOST_MOMENTS} moments may be asked for, none before the newest frame")
            (pictures,) = kept.stepper.at(ahead, 1.0) if ahead else [[]]
        else:
            (pictures,) = kept.stepper.look_ahead(self._steps)
        if flags & END:
            del self._kept[sequence]
        blank = np.zeros((len(ahead) if moments else self._steps, height, width, 3), np.uint8)
        return (np.stack(pictures) if pictures else blank), pictures is not None

    def _forget(self, now: float) -> None:
        while self._kept:
            sequence, kept = next(iter(self._kept.items()))
            if len(self._kept) <= self._most and now - kept.used < self._idle:
                return
            del self._kept[sequence]


class TritonPythonModel:
    """The class that Triton's Python backend looks for in model.py."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the artifact beside model.py, and warm up."""
        import json

        import triton_python_backend_utils

        self._utils: Any = triton_python_backend_utils
        parameters = json.loads(args["model_config"])["parameters"]

        def parameter(key: str) -> str:
            text: str = parameters[key]["string_value"]
            return text

        version = Path(args["model_repository"], args["model_version"])
        artifact = next(path for path in (version / "artifact.onnx", version / "artifact.json") if path.exists())
        self._engine = open_engine(artifact, "auto", threads=1)
        manifest = Manifest.from_json(parameter("framecast"))
        self._moments = manifest.renders == "moments"
        self._sequences = Sequences(
            self._engine,
            manifest.outputs,
            most=int(parameter("framecast_cameras")),
            idle=float(parameter("framecast_idle")),
        )
        width, height = manifest.size
        self._sequences.step(0, START | END, np.zeros((height, width, 3), np.uint8), 0.0, [0.1], now=0.0)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests, one after another."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """Close the engine."""
        self._engine.close()

    def _answer(self, request: Any) -> Any:
        utils = self._utils
        if request.is_cancelled():  # its client has given up: to step would only delay the others, until all give up
            return utils.InferenceResponse(error=utils.TritonError("framecast: the client has gone"))

        def given(name: str) -> NDArray[Any]:
            row: NDArray[Any] = utils.get_input_tensor_by_name(request, name).as_numpy()[0]
            return row

        try:
            asked: list[Any] = [float(given("elapsed")[0]), given("ahead").tolist()] if self._moments else []
            shown, finite = self._sequences.step(
                request.correlation_id(), request.flags(), given("image"), *asked, now=time.monotonic()
            )
        except Exception as error:  # noqa: BLE001 (it fails this request, not the server)
            return utils.InferenceResponse(error=utils.TritonError(f"framecast: {error}"))
        tensors = {"shown": shown[None], "finite": np.array([[finite]], np.float32)}
        return utils.InferenceResponse([utils.Tensor(name, tensor) for name, tensor in tensors.items()])
