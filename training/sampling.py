"""Validation of a network on frames that it was not trained on: figures, and a strip of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from framecast.camera import Image
from framecast.graph.manifest import Quality
from framecast.models.step import StepModel
from framecast.models.tau import TAU
from framecast.runtime.score import Score, Scorer, psnr
from framecast.runtime.sinks.picture import caption, enlarged
from framecast.training.footage import Digits, Flows, Footage, Videos
from framecast.training.objectives import predict_clip
from framecast.training.view import Frame, Picture, to_values

SEQUENCES = 64  # Moving MNIST sequences to score: the first ones of the fixed test set
_BATCH = 16  # sequences at once
SCORABLE = 10  # minimum frames of a clip for scoring
_KNOWN = 3  # true frames at the start of a strip
_NARROWEST, _WIDEST = 120, 256  # minimum and maximum width of a picture in a strip, in pixels


@dataclass(frozen=True)
class Validation:
    """The result of a validation.

    Attributes:
        quality: quality of the next frame, in words and dB.
        mse: for sequences, the papers' MSE: a frame's sum of squared errors, averaged over predicted frames.
    """

    quality: Quality
    mse: float | None = None


Watch = Callable[[int, int], bool]  # takes the frames or sequences scored and in all; returns False to stop


def validate(
    model: StepModel, footage: Footage, given: int, predicted: int, watch: Watch = lambda done, total: True
) -> Validation | None:
    """Score a network on whole clips, on the first sequences of Moving MNIST's fixed test set, or on all of TaxiBJ's.

    Args:
        model: the network, in ``eval`` mode.
        footage: data that the network was not trained on.
        given: frames to give from each sequence of digits or traffic.
        predicted: frames after the given ones, predicted from the network's own predictions.
        watch: called after each frame, or after some sequences. If it ends the scoring early, the result covers only
            the frames scored so far, and says so.

    Returns:
        The result; None if no frame could be scored.
    """
    if not isinstance(footage, Videos):
        return _on_sequences(model, footage, given, predicted, watch)
    done, total = 0, sum(map(len, footage.clips))
    more = True

    def scored() -> bool:
        nonlocal done, more
        done += 1
        more = watch(done, total)
        return more

    scores = {}
    for name, clip in zip(footage.files, footage.clips, strict=True):
        if more:
            scores[name] = score(model, footage.scored(clip), scored)
    found = {name: score for name, score in scores.items() if np.isfinite(score).all()}
    if not found:
        return None
    prediction, copy_last = np.mean(list(found.values()), axis=0)
    clips = {name: (round(a, 2), round(b, 2)) for name, (a, b) in found.items()}
    part = "" if done == total else f" (the first {done} of {total} frames)"
    about = f"{len(found)} clip{'s' * (len(found) != 1)} it never saw{part}"
    return Validation(Quality(about, round(float(prediction), 2), round(float(copy_last), 2), clips))


@torch.inference_mode()
def score(model: StepModel, frames: Iterable[Picture], more: Callable[[], bool] = lambda: True) -> tuple[float, float]:
    """Return the mean PSNR in dB of predicting the next frame and of copying the last one; NaN if nothing was scored.

    Scoring is as in a live run. The network carries its state over all ``frames``, uint8 [H, W, C] at its size.
    ``more`` is called after each frame; scoring stops when it returns False.
    """
    state, scorer, total = model.init_state(), Scorer(), Score()
    for index, frame in enumerate(frames):
        for scored in scorer.arrive(frame, index, 1):
            total = total.plus(scored.psnr, scored.psnr_copy)
        prediction, state = model.step(to_tensor(model, [frame])[0], state)
        if index + 1 >= model.warmup:
            scorer.expect(to_picture(prediction[0, 0]), index + 1, 1, frame)
        if not more():
            break
    predicted, copied = total.prediction, total.copy_last
    return (float("nan"), float("nan")) if predicted is None or copied is None else (predicted, copied)


def _on_sequences(model: StepModel, footage: Digits | Flows, given: int, predicted: int, watch: Watch) -> Validation:
    total, what = (len(footage.sequences), "TaxiBJ") if isinstance(footage, Flows) else (SEQUENCES, "Moving MNIST")
    errors: list[float] = []
    scores: list[tuple[float, float]] = []
    for first in range(0, total, _BATCH):
        indices = range(first, min(first + _BATCH, total))
        sequences = [moment(footage, given + predicted, index) for index in indices]
        frames = torch.cat([to_tensor(model, sequence) for sequence in sequences], dim=1)  # [T, B, 1, H, W]
        guesses = rollout(model, frames[:given], predicted)
        errors += ((guesses - frames[given:].transpose(0, 1)).square().sum((1, 2, 3, 4)) / predicted).tolist()
        for sequence, guess in zip(sequences, guesses, strict=True):
            last, truth = sequence[given - 1], sequence[given]
            scores.append((psnr(_like(truth, guess[0]), truth), psnr(last, truth)))
        if not watch(len(scores), total):
            break
    prediction, copy_last = (round(float(score), 2) for score in np.mean(scores, axis=0))
    about = f"frame {given + 1} of {len(scores)} {what} sequences it never saw"
    return Validation(Quality(about, prediction, copy_last), float(np.mean(errors)))


def moment(footage: Footage, count: int, index: int = 0) -> list[Frame]:
    """Return consecutive frames: sequence ``index`` of the test set, or the middle of clip ``index``."""
    if isinstance(footage, Flows):
        return list(footage.sequences[index, :count])
    if isinstance(footage, Digits):
        episode = footage.episode([0, index], count)
        return [episode.frame(age) for age in range(count)]
    clip = footage.clips[index]
    begin = max(0, (len(clip) - count) // 2)
    return list(footage.scored(clip[begin : begin + count]))


def to_tensor(model: nn.Module, frames: Sequence[Frame]) -> Tensor:
    """Convert frames to a network's input, [T, 1, C, H, W], on the device of its weights."""
    stacked = torch.from_numpy(np.stack(frames)).to(next(model.parameters()).device)
    return to_values(stacked.permute(0, 3, 1, 2)[:, None])


def to_picture(frame: Tensor) -> Picture:
    """Convert [C, H, W] to uint8 [H, W, C], rounded and clamped."""
    picture: Picture = (frame * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    return picture


def _like(frame: Frame, guess: Tensor) -> Frame:
    """Convert a prediction, [C, H, W], to the kind of ``frame``: a picture, or traffic as it is."""
    return to_picture(guess) if frame.dtype == np.uint8 else guess.permute(1, 2, 0).cpu().numpy()


@torch.inference_mode()
def rollout(model: StepModel, frames: Tensor, count: int) -> Tensor:
    """Predict ``count`` frames, [T, B, C, H, W] to [B, count, C, H, W]. Predictions are fed back, not clamped."""
    if isinstance(model, TAU) and len(frames) == model.config.frames and count <= model.outputs:
        return predict_clip(model, frames, count)  # the same in one pass
    state = model.init_state(frames.shape[1])
    for frame in frames:
        prediction, state = model.step(frame, state)
    blocks = [prediction]
    while sum(block.shape[1] for block in blocks) < count:
        for frame in blocks[-1].unbind(1):
            prediction, state = model.step(frame, state)
        blocks.append(prediction)
    return torch.cat(blocks, dim=1)[:, :count]


def strip(model: StepModel, footage: Footage, given: int, predicted: int) -> Image:
    """Draw a picture [H, W, 3]: ground truth above; below it, predictions from its first frames, with PSNR."""
    frames = moment(footage, given + predicted)
    given = min(given, len(frames) - 1)
    predictions = rollout(model, to_tensor(model, frames[:given]), len(frames) - given)[0]
    guesses = [_like(frames[0], prediction) for prediction in predictions]
    view, columns = footage.view, []
    for index in range(max(0, given - _KNOWN), len(frames)):
        truth, ahead = view.show(frames[index]), index - given + 1
        if ahead < 1:
            below, text = np.zeros_like(truth), "given"
        else:
            guess = guesses[ahead - 1]
            below, decibels = view.show(guess), psnr(view.crop(guess), view.crop(frames[index]))
            text = f"+{ahead}  {decibels:.1f} dB"
        tiles = [_scaled(truth), _scaled(below)]
        columns.append(np.vstack([caption(tiles[0].shape[1], text), *tiles]))
    return np.hstack(columns)


def _scaled(image: Image) -> Image:
    """Enlarge a small picture by a whole factor, or reduce a large one."""
    height, width = image.shape[:2]
    if width > _WIDEST:
        size = (_WIDEST, max(1, round(height * _WIDEST / width)))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
    return enlarged(image, _NARROWEST)
