"""Evaluation on test sequences by the papers' protocol: after a reset, some frames are given and the rest predicted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.errors import EngineError, OptionError, SourceError, first_line
from framecast.evaluation.ahead import Ahead
from framecast.evaluation.made import Made, is_made, open_made
from framecast.evaluation.metrics import Truth
from framecast.evaluation.perceptual import find_lpips
from framecast.evaluation.results import Advance, ClipResult, Contender, Results, Strip, Tally, metrics_with
from framecast.evaluation.rivals import CopyLast, Linear, Rival
from framecast.redact import redact
from framecast.runtime.convert import blank_frame, to_frame
from framecast.runtime.engines.engine import Engine
from framecast.runtime.score import psnr
from framecast.runtime.stepper import Stepper


def open_sequences(place: str) -> Image:
    """Open a ``.npy`` file of uint8 [T, N, H, W], the layout of Moving MNIST's ``mnist_test_seq.npy``.

    The file is memory-mapped, not read.

    Raises:
        SourceError: the file cannot be read, or has another layout.
    """
    path = Path(place.removeprefix("file://"))
    try:
        with np.errstate(over="ignore"):  # a damaged shape: its size overflows, and numpy then refuses it
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # damaged headers also raise tokenize's errors, and RecursionError
        reason = getattr(error, "strerror", None) or first_line(error)
        raise SourceError(f"cannot read {redact(place)} as sequences: {reason} (make or download it again)") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 4 or 0 in array.shape:
        got = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else "an archive"
        raise SourceError(f"{redact(place)} must hold uint8 [T, N, H, W], like mnist_test_seq.npy, not {got}")
    return array


def evaluate_sequences(
    contenders: Sequence[Contender],
    places: Sequence[str],
    *,
    given: int = 10,
    limit: int | None = None,
    advance: Advance = lambda share, what: None,
) -> Results:
    """Score models, copying and linear extrapolation on grey sequences. Every predicted frame is scored.

    Args:
        contenders: at least one model; all must have the sequences' size.
        places: ``.npy`` files (:func:`open_sequences`), or ``mnist://`` URIs (``evaluation/made.py``).
            All sequences must have the same length.
        given: number of frames to give from the start of each sequence; the models predict the others.
        limit: use up to this many sequences per file, from the first.
        advance: called after each sequence.

    Raises:
        SourceError: a file cannot be read, or has another layout.
        OptionError: a model does not fit the sequences, or no frame is left to predict.
        EngineError: an engine failed, or a prediction is not finite.
    """
    files = [open_made(place) if is_made(place) else open_sequences(place) for place in places]
    lengths = {file.shape[0] for file in files}
    if len(lengths) > 1:
        different = " and ".join(map(str, sorted(lengths)))
        raise OptionError(f"cannot evaluate sequences of {different} frames together: evaluate them separately")
    (length,) = lengths
    if not 1 <= given < length:
        raise OptionError(f"--given must be 1 to {length - 1}, not {given}: the sequences have {length} frames")
    for contender in contenders:
        manifest = contender.predictor.manifest
        for place, file in zip(places, files, strict=True):
            height, width = file.shape[2:]
            if manifest.channel_order != "GRAY" or manifest.size != (width, height):
                raise OptionError(
                    f"{contender.name} takes {manifest.size[0]}×{manifest.size[1]} {manifest.channel_order}, "
                    f"{redact(place)} holds {width}×{height} GRAY: sequences are not resized; use a model of that size"
                )
        if manifest.warmup > given:
            raise OptionError(
                f"{contender.name} needs {manifest.warmup} frames before it predicts: use --given {manifest.warmup}"
            )
    rivals = (CopyLast(), Linear())
    methods = (*(rival.name for rival in rivals), *(contender.name for contender in contenders))
    judge = find_lpips()
    clips = []
    counts = [min(limit or file.shape[1], file.shape[1]) for file in files]
    total, done = sum(counts), 0
    for place, file, count in zip(places, files, counts, strict=True):
        tally = Tally(methods, length - given, None if isinstance(judge, str) else judge)
        show = partial(_advance, advance, done, total)
        clips.append(_score(place, file, count, given, tally, rivals, contenders, show))
        done += count
    return Results(
        contenders=tuple(contenders),
        methods=methods,
        metrics=metrics_with(None if isinstance(judge, str) else judge),
        ahead=Ahead.in_frames(length - given),
        given=given,
        clips=tuple(clips),
        skipped=(),
        lpips=judge if isinstance(judge, str) else None,
    )


def _score(
    place: str,
    file: Image | Made,
    count: int,
    given: int,
    tally: Tally,
    rivals: Sequence[Rival],
    contenders: Sequence[Contender],
    advance: Callable[[str, int], None],
) -> ClipResult:
    name, about = (file.name, file.about) if isinstance(file, Made) else (Path(place).stem, redact(place))
    horizon, content = file.shape[0] - given, hashlib.sha256()
    for number in range(count):
        frames = np.ascontiguousarray(file[:, number][..., None])  # [T, h, w, 1]
        content.update(frames.tobytes())
        before = frames[max(given - 2, 0)]
        ahead: list[Any] = [rival.predict(frames[given - 1], before, range(1, horizon + 1)) for rival in rivals]
        ahead += [forecast(contender.predictor.engine, frames[:given], horizon) for contender in contenders]
        for index, frame in enumerate(frames[given:]):
            tally.add(index, Truth(frame), [images[index] for images in ahead])
        if number == count // 2:
            strip = _strip(frames, given, ahead)
        advance(name, number + 1)
    size, scored = (file.shape[3], file.shape[2]), tuple(tally.scored)
    origin = about, content.hexdigest()
    return ClipResult(name, redact(place), size, count, scored, tally.means(), strip, origin=origin)


def _advance(advance: Advance, before: int, total: int, name: str, done: int) -> None:
    advance((before + done) / total, f"{name}: sequence {done}")


def forecast(engine: Engine, frames: Image, horizon: int) -> NDArray[np.float32]:
    """Reset, step through a few grey frames, and predict the next ones: [horizon, h, w, 1], floats in 0…1, not clamped.

    Unlike :meth:`framecast.runtime.Predictor.rollout` it does not round to uint8, because the papers score floats.

    Args:
        engine: engine of a model with one channel.
        frames: uint8 [t, h, w, 1], at the model's size.
        horizon: number of frames to predict.

    Raises:
        EngineError: the engine failed, or a prediction is not finite.
    """
    manifest = engine.manifest
    low, high = manifest.value_range
    width, height = manifest.size
    stepper, frame = Stepper(engine), blank_frame(manifest)
    for image in frames:
        to_frame(image, manifest, frame[0])
        stepper.step(frame)
    predicted = stepper.predict(horizon)[0, :, 0, :height, :width, None]
    finite = np.isfinite(predicted).all(axis=(1, 2, 3))
    if not finite.all():
        first = int(np.argmin(finite)) + 1
        raise EngineError(f"{manifest.config} predicts values that are not finite {first} frames ahead")
    return (predicted - low) / (high - low)


def _strip(frames: Image, given: int, predictions: Sequence[Any]) -> Strip:
    ahead = Ahead.in_frames(len(frames) - given)
    truths = tuple(frames[given + index] for index in ahead.ends)
    rows = tuple(tuple(_picture(images[index]) for index in ahead.ends) for images in predictions)
    scores = tuple(tuple(psnr(*pair) for pair in zip(row, truths, strict=True)) for row in rows)
    return Strip(frames[given - 1], tuple(map(ahead.label, ahead.ends)), truths, rows, scores)


def _picture(image: NDArray[Any]) -> Image:
    return image if image.dtype == np.uint8 else np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
