"""Data of ``framecast inspect``: taps inside a graph, their values over a clip, and the moments to draw."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.graph.manifest import Manifest
from framecast.runtime.convert import Tensor


@dataclass(frozen=True)
class Tap:
    """A value inside the graph to inspect.

    Attributes:
        group: the picture that shows it: ``gates``, ``attention`` or ``features``.
        name: name of the value: ``update``, ``temporal attention``, ``encoder_s``.
        layer: layer of its cell, from 1; 0 for an encoder.
        tensors: its tensors in the graph; more than one if each slot has its own tensor.
    """

    group: str
    name: str
    layer: int
    tensors: tuple[str, ...]

    def figures(self, tensors: list[Tensor]) -> NDArray[np.float64]:
        """Return a step's figures: attention weights by slot, otherwise mean, min and max.

        The slots are 1, 2, … steps back, or 0, 1, … layers down.
        """
        first = tensors[0]
        if self.group != "attention":
            return np.array([first.mean(dtype=np.float64), first.min(), first.max()])
        if self.name == "cell attention":  # one weight per element
            return np.array([tensor.mean(dtype=np.float64) for tensor in tensors])
        weights = first.ravel().astype(np.float64)  # [1, n, 1, 1]
        return weights[::-1] if self.name == "spatial attention" else weights  # SAM lists a layer's own state last


@dataclass(frozen=True, eq=False)
class Moment:
    """A step to show: frame and prediction, uint8 [h, w, 3] BGR, and gates and features, [C, h, w] each."""

    index: int
    time: float
    input: Image
    prediction: Image
    maps: dict[Tap, Tensor]


@dataclass(eq=False)
class Inspection:
    """The values inside a model over a clip.

    Attributes:
        manifest: manifest of the model.
        source: name of the clip.
        frames: number of frames seen.
        moments: a few of the steps, evenly spread.
        courses: figures of every tap at each step, see :meth:`Tap.figures`.
    """

    manifest: Manifest
    source: str
    frames: int = 0
    moments: list[Moment] = field(default_factory=list)
    courses: dict[Tap, list[NDArray[np.float64]]] = field(default_factory=dict)

    @property
    def settled(self) -> int:
        """The first step after the warm-up; 0 if the clip ends before it."""
        return self.manifest.warmup if self.frames > self.manifest.warmup else 0

    def taps(self, group: str) -> list[Tap]:
        """Return the taps of a picture, by layer."""
        return sorted((tap for tap in self.courses if tap.group == group), key=lambda tap: tap.layer)

    def average(self, tap: Tap) -> list[float]:
        """Average over the steps after the warm-up: attention weights by slot, otherwise mean, min and max."""
        course = np.array(self.courses[tap][self.settled :])
        if tap.group == "attention":
            return [float(v) for v in course.mean(axis=0)]
        return [float(course[:, 0].mean()), float(course[:, 1].min()), float(course[:, 2].max())]
