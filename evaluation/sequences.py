"""Evaluation on test sequences by the papers' protocol: after a reset, some frames are given and the rest predicted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image, taxibj
from framecast.errors import EngineError, OptionError, SourceError
from framecast.evaluation.ahead import Ahead
from framecast.evaluation.clips import common_size
from framecast.evaluation.metrics import Truth
from framecast.evaluation.perceptual import find_lpips
from framecast.evaluation.results import Advance, ClipResult, Contender, Results, Strip, Tally, metrics_with
from framecast.evaluation.rivals import CopyLast, Linear, Rival
from framecast.evaluation.samples import Frames, Samples, check_fits, open_samples
from framecast.runtime.convert import blank_frame, from_values, to_frame, to_values
from framecast.runtime.engines.engine import Engine
from framecast.runtime.score import psnr
from framecast.runtime.stepper import Stepper


def evaluate_sequences(
    contenders: Sequence[Contender],
    places: Sequence[str],
    *,
    given: int | None = None,
    predict: int | None = None,
    layout: str | None = None,
    limit: int | None = None,
    advance: Advance = lambda share, what: None,
) -> Results:
    """Score models, copying and linear extrapolation on sequences. Every predicted frame is scored.

    Args:
        contenders: at least one model; all must have the size of the sequences in a file, and the same for clips.
        places: ``.npy`` files (:func:`framecast.evaluation.samples.open_sequences`), ``mnist://`` URIs
            (``evaluation/made.py``), TaxiBJ's ``dataset.npz`` or clips; or with ``layout``, folders of a data set.
        given: number of frames to give from the start of each sequence (default: 10; 4 of TaxiBJ).
        predict: number of frames to predict then (default: all others). Clips need it.
        layout: name of the data set's layout; see :mod:`framecast.camera.layouts`.
        limit: use up to this many sequences per file or clip, from the first.
        advance: called after each sequence.

    Raises:
        SourceError: a file cannot be read or has another layout, or no clip can be scored.
        OptionError: a model does not fit the sequences, no frame is left to predict, or ``limit`` is below 1.
        EngineError: an engine failed, or a prediction is not finite.
    """
    if limit is not None and limit < 1:
        raise OptionError(f"the limit must be 1 sequence or more, not {limit}")
    every = [open_samples(place, layout) for place in places]
    given = given or every[0].given
    horizon = _horizon(every, given, predict)
    for contender in contenders:
        for samples in every:
            check_fits(contender.name, contender.manifest, samples)
        if (warmup := contender.manifest.warmup) > given:
            raise OptionError(f"{contender.name} needs {warmup} frames before it predicts: use --given {warmup}")
    common_size(contenders)
    rivals = (CopyLast(), Linear())
    methods = (*(rival.name for rival in rivals), *(contender.name for contender in contenders))
    judge = find_lpips() if contenders[0].manifest.is_picture else "LPIPS is left out: traffic is not a picture"
    clips: list[ClipResult] = []
    skipped: list[tuple[str, str]] = []
    for number, samples in enumerate(every):
        tally = Tally(methods, horizon, None if isinstance(judge, str) else judge)
        onward = partial(_advance, advance, number, len(every))
        found = _score(samples, given, horizon, limit, tally, rivals, contenders, onward, skipped)
        if found is not None:
            clips.append(found)
    if not clips:
        raise SourceError(f"none of the {len(skipped)} clips can be scored: {': '.join(skipped[0])}")
    return Results(
        contenders=tuple(contenders),
        methods=methods,
        metrics=metrics_with(None if isinstance(judge, str) else judge),
        ahead=Ahead.in_frames(horizon),
        given=given,
        clips=tuple(clips),
        skipped=tuple((source, f"{source}: {reason}") for source, reason in skipped),
        lpips=judge if isinstance(judge, str) else None,
    )


def _horizon(every: Sequence[Samples], given: int, predict: int | None) -> int:
    """Return the number of frames to predict.

    Raises:
        OptionError: the files have too few frames, or different numbers of them; or clips need ``predict``.
    """
    lengths = {samples.shape[0] for samples in every if samples.shape}
    if predict is not None:
        if lengths and given + predict > min(lengths):
            raise OptionError(
                f"cannot predict {predict} frames after {given}: the sequences have {min(lengths)} frames (lower "
                "--predict or --given)"
            )
        return predict
    if not lengths:
        raise OptionError("clips are cut into sequences: say how many frames to predict after those given (--predict)")
    if len(lengths) > 1:
        different = " and ".join(map(str, sorted(lengths)))
        raise OptionError(f"cannot evaluate sequences of {different} frames together: evaluate them separately")
    (length,) = lengths
    if not 1 <= given < length:
        raise OptionError(f"--given must be 1 to {length - 1}, not {given}: the sequences have {length} frames")
    return length - given


def _score(
    samples: Samples,
    given: int,
    horizon: int,
    limit: int | None,
    tally: Tally,
    rivals: Sequence[Rival],
    contenders: Sequence[Contender],
    advance: Callable[[float, str, int], None],
    skipped: list[tuple[str, str]],
) -> ClipResult | None:
    """Score the sequences of one row of results; None if there are none. ``skipped`` gets clips that cannot be used."""
    total = samples.count(limit)
    count, done, strip, content = 0, 0.0, None, hashlib.sha256()
    for name, share, sequences in samples.parts(contenders[0].manifest, given + horizon, limit):
        try:
            for frames in sequences:
                content.update(frames.tobytes())
                before = frames[max(given - 2, 0)]
                ahead: list[Any] = [rival.predict(frames[given - 1], before, range(1, horizon + 1)) for rival in rivals]
                ahead += [forecast(contender.engine, frames[:given], horizon) for contender in contenders]
                for index, frame in enumerate(frames[given:]):
                    tally.add(index, Truth(frame), [images[index] for images in ahead])
                if count == total // 2:
                    strip, size = _strip(frames, given, ahead), (frames.shape[2], frames.shape[1])
                count += 1
                advance(done + (share * count / total if total else 0.0), name, count)
        except SourceError as error:
            skipped.append((name, str(error)))
        done += share
    if strip is None:
        return None
    scored, origin = tuple(tally.scored), (samples.about, content.hexdigest())
    return ClipResult(samples.name, samples.source, size, count, scored, tally.means(), strip, origin=origin)


def _advance(advance: Advance, before: int, total: int, done: float, name: str, count: int) -> None:
    advance((before + done) / total, f"{name}: sequence {count}")


def forecast(engine: Engine, frames: Frames, horizon: int) -> NDArray[np.float32]:
    """Reset, step through a few frames, and predict the next ones: [horizon, h, w, C], floats in 0…1, not clamped.

    Unlike :meth:`framecast.runtime.Predictor.rollout` it does not round to uint8, because the papers score floats. If
    the model predicts fewer frames, they are fed back.

    Args:
        engine: engine of a model.
        frames: [t, h, w, C] at the model's size: uint8, C = 1 or 3 (BGR) as in its frames; or floats in 0…1, traffic.
        horizon: number of frames to predict.

    Raises:
        EngineError: the engine failed, or a prediction is not finite.
    """
    manifest = engine.manifest
    stepper, frame = Stepper(engine), blank_frame(manifest)
    for image in frames:
        (to_frame if image.dtype == np.uint8 else from_values)(image, manifest, frame[0])
        stepper.step(frame)
    predicted = to_values(stepper.predict(horizon)[0], manifest)
    finite = np.isfinite(predicted).all(axis=(1, 2, 3))
    if not finite.all():
        first = int(np.argmin(finite)) + 1
        raise EngineError(f"{manifest.config} predicts values that are not finite {first} frames ahead")
    return predicted


def _strip(frames: Frames, given: int, predictions: Sequence[Any]) -> Strip:
    like = _picture if frames.dtype == np.uint8 else np.asarray  # pictures are scored as they are shown
    ahead = Ahead.in_frames(len(frames) - given)
    truths = [frames[given + index] for index in ahead.ends]
    rows = [[like(images[index]) for index in ahead.ends] for images in predictions]
    scores = tuple(tuple(psnr(*pair) for pair in zip(row, truths, strict=True)) for row in rows)
    shown, *others = (tuple(map(_drawn, row)) for row in (truths, *rows))
    return Strip(_drawn(frames[given - 1]), tuple(map(ahead.label, ahead.ends)), shown, tuple(others), scores)


def _drawn(frame: NDArray[Any]) -> Image:
    return frame if frame.dtype == np.uint8 else taxibj.picture(frame)


def _picture(image: NDArray[Any]) -> Image:
    return image if image.dtype == np.uint8 else np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
