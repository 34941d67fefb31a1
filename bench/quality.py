"""The quality beside a cost: PSNR in dB of the same predictions, and of copying."""

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
    """What a model's predictions are worth, as live runs score them (:mod:`framecast.runtime.score`).

    Attributes:
        prediction: PSNR in dB.
        copy_last: PSNR of copying the last frame, dB.
        data: what it was measured on.
        ahead_ms: how far ahead; None for the next frame of clips with several rates.
        n: number of scored frames; None if the model's author measured it.
    """

    prediction: float
    copy_last: float
    data: str
    ahead_ms: float | None = None
    n: int | None = None


def stated(manifest: Manifest) -> Quality | None:
    """The quality of the next frame that an artifact states; None if it states none."""
    known = manifest.quality
    return None if known is None else Quality(known.prediction, known.copy_last, known.data)


def measured(engine: Engine, frames: Sequence[Image], data: str, interval: float, ahead: float) -> Quality | None:
    """Measure the quality on frames in memory.

    Args:
        engine: of a model that takes pictures; its owner closes it.
        frames: consecutive frames, uint8 [H, W, 3] BGR.
        data: what the frames are, in words.
        interval: seconds between two of them.
        ahead: seconds ahead. It is scored at the nearest frame, as in a live run.

    Returns:
        None if no frame can be scored: there are too few, or they repeat each other.

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
