"""Parity: the drift of an engine from the reference over a stream. Each carries its own state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from framecast.camera import Image
from framecast.runtime.convert import blank_frame, to_frame, to_image, to_model_size
from framecast.runtime.engines import Engine
from framecast.runtime.score import Score, Scorer
from framecast.runtime.stepper import Stepper


@dataclass(frozen=True)
class Drift:
    """The drift of an engine over real frames.

    Attributes:
        steps: number of frames that both engines saw.
        max: largest absolute difference of the predictions, in units of the value range; NaN if one is not finite.
        mean: mean absolute difference, in units of the value range; NaN if one is not finite.
        psnr: mean PSNR of the engine over the scored frames, in dB; NaN if no frame was scored.
        psnr_change: ``psnr`` minus the reference's PSNR, in dB.
    """

    steps: int
    max: float
    mean: float
    psnr: float
    psnr_change: float


def drift(reference: Engine, engine: Engine, images: Iterable[Image]) -> Drift:
    """Step both engines through the same pictures and compare their predictions.

    The pictures are uint8 [H, W, 3] BGR; there must be at least one. PSNR is that of the next frame, as in
    :mod:`framecast.runtime.score`.

    Raises:
        EngineError: an engine failed.
    """
    manifest = reference.manifest
    low, high = manifest.value_range
    steppers = Stepper(reference), Stepper(engine)
    scorers, scores = (Scorer(), Scorer()), [Score(), Score()]
    worst, means = [], []
    for index, image in enumerate(images):
        seen, frame = to_model_size(image, manifest), blank_frame(manifest)
        to_frame(seen, manifest, frame[0])
        predictions = [stepper.step(frame, poison=True).copy() for stepper in steppers]
        error = np.abs(predictions[0] - predictions[1]) / (high - low)
        worst.append(float(error.max()))
        means.append(float(error.mean()))
        finite = all(np.isfinite(p).all() for p in predictions)
        for i, (scorer, prediction) in enumerate(zip(scorers, predictions, strict=True)):
            for scored in scorer.arrive(seen, index, interval=1):
                scores[i] = scores[i].plus(scored.psnr, scored.psnr_copy)
            if finite:
                scorer.expect(to_image(prediction[0, 0], manifest), index + 1, 1, seen)
    expected, found = (score.prediction or np.nan for score in scores)
    return Drift(len(worst), float(np.max(worst)), float(np.mean(means)), found, found - expected)
