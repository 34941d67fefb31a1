"""Parity: how far an engine drifts from the reference over a stream, with each carrying its own state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from framecast.camera import Image, Source
from framecast.runtime.convert import blank, see, to_frame, to_image
from framecast.runtime.engines import Engine
from framecast.runtime.score import SETTLE, psnr


@dataclass(frozen=True)
class Drift:
    """What a rollout over real frames showed.

    Attributes:
        steps: how many frames both saw.
        max: largest absolute difference of the predictions, in units of the value range; NaN if one is not finite.
        mean: of the absolute differences, likewise.
        psnr: dB, mean over the frames that are scored, of the engine; NaN where none is.
        psnr_change: dB, by how much that is above the reference's.
    """

    steps: int
    max: float
    mean: float
    psnr: float
    psnr_change: float


def drift(reference: Engine, engine: Engine, images: Iterable[Image]) -> Drift:
    """Step both through the same pictures, uint8 [H, W, 3] BGR each, at least one, and compare what they predict.

    PSNR is of the next frame, as :mod:`framecast.runtime.score` has it: the first 8 frames, and frames that repeat the
    one before, are left out.

    Raises:
        EngineError: an engine failed.
    """
    manifest = reference.manifest
    low, high = manifest.value_range
    pairs = [[one.new_state(), one.new_state()] for one in (reference, engine)]
    worst, means, scores = [], [], []
    shown: list[Image] = []
    last: Image | None = None
    for index, image in enumerate(images):
        seen, frame = see(image, manifest), blank(manifest)
        if shown and index >= SETTLE and last is not None and not np.array_equal(seen, last):
            scores.append([psnr(predicted, seen) for predicted in shown])
        to_frame(seen, manifest, frame)
        predictions = []
        for one, states in zip((reference, engine), pairs, strict=True):
            states[1].prediction.fill(np.nan)  # so that an output that is not written shows
            predictions.append(one.step(frame, *states).copy())
            states.reverse()
        error = np.abs(predictions[0] - predictions[1]) / (high - low)
        worst.append(float(error.max()))
        means.append(float(error.mean()))
        finite = all(np.isfinite(p).all() for p in predictions)
        shown = [to_image(p[0, 0], manifest) for p in predictions] if finite else []
        last = seen
    expected, found = np.mean(scores, axis=0) if scores else (np.nan, np.nan)
    return Drift(len(worst), float(np.max(worst)), float(np.mean(means)), float(found), float(found - expected))


def pictures(source: Source, count: int) -> Iterable[Image]:
    """The first frames of a source, at most ``count``."""
    for _ in range(count):
        if (frame := source.read()) is None:
            return
        yield frame.image
