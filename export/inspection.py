"""What ``framecast inspect`` finds: taps inside a graph, what they gave over a clip, and the moments that are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.graph.manifest import Manifest
from framecast.runtime.convert import Tensor


@dataclass(frozen=True)
class Tap:
    """Something inside the graph that is looked at.

    Attributes:
        group: the picture that it goes to: ``gates``, ``attention`` or ``features``.
        name: what it is: ``update``, ``temporal attention``, ``encoder_s``.
        layer: of the cell that it is in, from 1; 0 for an encoder.
        tensors: in the graph; more than one where each slot has a tensor of its own.
    """

    group: str
    name: str
    layer: int
    tensors: tuple[str, ...]

    def figures(self, tensors: list[Tensor]) -> NDArray[np.float64]:
        """Of a step: the weights by slot, 1, 2, … steps back or 0, 1, … layers down; of the rest mean, min and max."""
        first = tensors[0]
        if self.group != "attention":
            return np.array([first.mean(dtype=np.float64), first.min(), first.max()])
        if self.name == "cell attention":  # a weight for each element
            return np.array([tensor.mean(dtype=np.float64) for tensor in tensors])
        weights = first.ravel().astype(np.float64)  # [1, n, 1, 1]
        return weights[::-1] if self.name == "spatial attention" else weights  # SAM gets a layer's own state last


@dataclass(frozen=True, eq=False)
class Moment:
    """A step that is shown: frame and prediction, uint8 [h, w, 3] BGR, and gates and features, [C, h, w] each."""

    index: int
    time: float
    input: Image
    prediction: Image
    maps: dict[Tap, Tensor]


@dataclass(eq=False)
class Inspection:
    """What was seen of a model over a clip.

    Attributes:
        manifest: of the model.
        source: name of the clip.
        frames: how many were seen.
        moments: a few of the steps, spread evenly.
        courses: what each step gave of every tap, see :meth:`Tap.figures`.
    """

    manifest: Manifest
    source: str
    frames: int = 0
    moments: list[Moment] = field(default_factory=list)
    courses: dict[Tap, list[NDArray[np.float64]]] = field(default_factory=dict)

    @property
    def settled(self) -> int:
        """The first step whose past is full; 0 where the clip ends before."""
        return self.manifest.warmup if self.frames > self.manifest.warmup else 0

    def taps(self, group: str) -> list[Tap]:
        """Those of a picture, by layer."""
        return sorted((tap for tap in self.courses if tap.group == group), key=lambda tap: tap.layer)

    def average(self, tap: Tap) -> list[float]:
        """Over the settled steps: weights by slot; of the rest the mean, the least and the greatest."""
        course = np.array(self.courses[tap][self.settled :])
        if tap.group == "attention":
            return [float(v) for v in course.mean(axis=0)]
        return [float(course[:, 0].mean()), float(course[:, 1].min()), float(course[:, 2].max())]
