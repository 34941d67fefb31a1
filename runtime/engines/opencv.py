"""OpenCV on the CPU: runs the model of motion at the camera's own size, with vectorised routines and no graph."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from framecast.camera import Image
from framecast.errors import ArtifactError, EngineError, FrameError
from framecast.graph.manifest import GRAPHLESS, Manifest, read_json
from framecast.runtime.convert import Tensor
from framecast.runtime.engines.engine import Engine, Moment, State
from framecast.runtime.motion import Motion, Seen

SIZES = 4  # picture sizes whose scratch buffers are kept
LEAST = 16  # pixels: minimum for each side of a picture


@dataclass(eq=False)
class MotionState(State):
    """A state of the model of motion.

    Attributes:
        rows: for each stream, the model's memory after its newest frame; None before the first. Entries are replaced,
            never modified.
    """

    rows: list[Seen | None] = field(default_factory=list)

    def reset(self) -> None:
        """See :meth:`State.reset`."""
        self.rows = [None] * len(self.rows)


class OpenCvEngine(Engine):
    """See :class:`Engine`. It takes pictures of any size, and only pictures.

    Args:
        artifact: path of the model's manifest, ``.json``.
        threads: OpenCV's threads, for the whole process; 0 does not change them (OpenCV's default: one per core).
        precision: ``full``, or ``fast`` for a cheaper, slightly worse prediction.

    Raises:
        ArtifactError: the file is not a manifest of a model of motion.
    """

    name = "opencv"
    device = "cpu"
    any_size = True
    batches = False  # a batch is a loop
    light = True

    def __init__(self, artifact: Path, *, threads: int = 0, precision: str = "full") -> None:
        network = f"{artifact} is a network: opencv runs only models of motion, such as edge"
        if artifact.suffix != GRAPHLESS:
            raise ArtifactError(network)
        self.manifest: Manifest = read_json(artifact)
        if self.manifest.renders != "moments":
            raise ArtifactError(network)
        self.version: str = cv2.__version__
        self.precision = precision
        self._motions: OrderedDict[tuple[int, int], Motion] = OrderedDict()  # by (width, height)
        self._closed = False
        if threads:
            cv2.setNumThreads(threads)

    def new_state(self, batch: int = 1) -> MotionState:
        """See :meth:`Engine.new_state`."""
        nothing = Moment({})
        return MotionState({}, np.empty((batch, 0), np.float32), nothing, (nothing,), (), {}, rows=[None] * batch)

    def reset(self, state: State, rows: Sequence[int] | None = None) -> None:
        """See :meth:`Engine.reset`."""
        assert isinstance(state, MotionState)  # noqa: S101 (this engine made it)
        for row in range(len(state.rows)) if rows is None else rows:
            state.rows[row] = None

    def fit(self, image: Image) -> Image:
        """See :meth:`Engine.fit`: the picture itself."""
        return image

    def take(self, images: Sequence[Image], state: State) -> None:
        """See :meth:`Engine.take`. The pictures are kept, not copied."""
        for image in images:
            if min(image.shape[:2]) < LEAST:
                height, width = image.shape[:2]
                raise FrameError(f"a frame of {width}x{height} is too small: each side needs at least {LEAST} pixels")
        state.seen = list(images)

    def run(self, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.run`."""
        assert isinstance(state_in, MotionState)  # noqa: S101 (this engine made both)
        assert isinstance(state_out, MotionState)  # noqa: S101
        if state_in is state_out:
            raise EngineError("a step cannot read and write the same state: pass two")
        elapsed = self.since(state_out)
        rows: list[Seen | None] = []
        for row, (image, before) in enumerate(zip(state_out.seen, state_in.rows, strict=True)):
            same = before is not None and bool(state_in.seen) and state_in.seen[row].shape == image.shape
            rows.append(self._motion(image).perceive(before if same else None, image, elapsed))
        state_out.rows = rows

    def render_at(self, state: State, ahead: Sequence[float]) -> list[list[Image]]:
        """See :meth:`Engine.render_at`."""
        assert isinstance(state, MotionState)  # noqa: S101 (this engine made it)
        return [
            [] if seen is None else [self._motion(image).render(seen, seconds) for seconds in ahead]
            for image, seen in zip(state.seen, state.rows, strict=False)
        ]

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """Not supported, because the model of motion takes pictures, not tensors.

        Raises:
            EngineError: always.
        """
        raise EngineError(
            f"the opencv engine runs {self.manifest.config} on pictures, not on tensors: use take and run"
        )

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        self._closed = True
        self._motions.clear()

    def _motion(self, image: Image) -> Motion:
        """The stages for pictures of this size. Makes them on first use."""
        if self._closed:
            raise EngineError(f"{self.manifest.config} is closed: load it again")
        height, width = image.shape[:2]
        motion = self._motions.pop((width, height), None) or Motion(width, height, fast=self.precision == "fast")
        self._motions[width, height] = motion
        if len(self._motions) > SIZES:
            self._motions.popitem(last=False)
        return motion
