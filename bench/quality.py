"""Quality of a benchmark's predictions: their PSNR in dB, and that of copying the last frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from framecast.camera import Image
from framecast.graph.manifest import Manifest
from framecast.runtime.engines import Engine
from framecast.runtime.predictor import Predictor
from framecast.runtime.score import Score, Scorer


@dataclass(frozen=True)
class Quality:
    """Quality of a model's predictions, scored as in live runs (:mod:`framecast.runtime.score`).

    Attributes:
        prediction: PSNR in dB.
        copy_last: PSNR of copying the last frame, dB.
        data: the clips that it was measured on.
        ahead_ms: lookahead; None for the next frame of clips with different frame rates.
        n: number of scored frames; None if the model's author measured it.
    """

    prediction: float
    copy_last: float
    data: str
    ahead_ms: float | None = None
    n: int | None = None


def stated(manifest: Manifest) -> Quality | None:
    """Return the quality of the next frame that an artifact states; None if it states none."""
    known = manifest.quality
    return None if known is None else Quality(known.prediction, known.copy_last, known.data)


def measured(engine: Engine, frames: Sequence[Image], data: str, interval: float, ahead: float) -> Quality | None:
    """Measure the quality on frames in memory.

    Args:
        engine: engine of a model that takes pictures; its owner closes it.
        frames: consecutive frames, uint8 [H, W, 3] BGR.
        data: name of the clip, for reports.
        interval: seconds between two frames.
        ahead: lookahead in seconds. The prediction is scored at the nearest frame, as in a live run.

    Returns:
        The quality; None if no frame can be scored, because there are too few or they repeat each other.

    Raises:
        EngineError: the engine failed.
    """
    predictor, scorer, score = Predictor(engine), Scorer(), Score()
    k = max(1, round(ahead / interval))
    for index, image in enumerate(frames):
        predictor.step(image, index * interval, interval=interval)
        prediction = predictor.at((index + k) * interval)
        if predictor.steps == 1:
            scorer.restart()
        seen = predictor.input
        for scored in scorer.arrive(seen, index * interval, interval):
            score = score.plus(scored.psnr, scored.psnr_copy)
        if predictor.steps >= predictor.manifest.warmup:
            scorer.expect(prediction.image, prediction.time, prediction.ahead, seen)
    if score.prediction is None or score.copy_last is None:
        return None
    return Quality(score.prediction, score.copy_last, data, 1e3 * k * interval, score.n)
