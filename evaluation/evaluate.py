"""``framecast.evaluate``: models by name on clips or on test sequences. ``framecast eval`` prints what it gives."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from framecast.camera import Image
from framecast.errors import OptionError
from framecast.evaluation.clips import check_together, evaluate_clips, find_clips
from framecast.evaluation.results import Advance, Contender, Results
from framecast.evaluation.rivals import Custom, Rival, standard
from framecast.evaluation.sequences import evaluate_sequences
from framecast.runtime.engines import choose
from framecast.runtime.predictor import Predictor, load
from framecast.runtime.shipped import labels

HORIZON = 5  # steps ahead, of clips
GIVEN = 10  # frames that each sequence begins with

Place = str | os.PathLike[str]
Predict = Callable[[Image, Image, int], Sequence[Image]]


def evaluate(
    models: Place | Sequence[Place] | Mapping[str, Place | Predictor],
    clips: Place | Sequence[Place],
    *,
    horizon: int | None = None,
    rivals: Mapping[str, Predict] | None = None,
    frames: int | None = None,
    given: int | None = None,
    sequences: int | None = None,
    threads: int = 0,
    advance: Advance = lambda what, done, total: None,
) -> Results:
    """Score models beside what one would do without a model: copying, linear extrapolation, optical flow.

        results = framecast.evaluate("edge", ["a.mp4", "clips/"])
        results.to_dict()["mean"]["edge"]["psnr"]     # dB, 1 … 5 steps ahead
        framecast.evaluate("edge", "demo", rivals={"mine": lambda last, before, horizon: [last] * horizon})

    Args:
        models: a shipped name or an artifact's path; several of them; or a mapping from the names that tables show to
            paths, names or opened predictors. All must have one resolution.
        clips: videos, folders of videos or of images, ``demo``; or ``.npy`` files of sequences, uint8 [T, N, H, W].
        horizon: score 1 … this many frames ahead (default: 5). For clips.
        rivals: further baselines by name. Each is called with the newest frame and the one before it, uint8
            [h, w, C] at the models' size (C is 3, BGR, or 1), and the horizon; it returns that many such frames. For
            clips.
        frames: take at most this many frames of each clip.
        given: frames that each sequence begins with (default: 10); the others are predicted.
        sequences: take at most this many sequences of each file.
        threads: CPU threads of a step; 0 for one a core.
        advance: called with what is being done, how many clips or sequences are done, and how many there are.

    Raises:
        ArtifactError: there is no such model, or the file is no artifact.
        SourceError: no clip can be scored. One among others that cannot is skipped; see :attr:`Results.skipped`.
        OptionError: an argument is out of its range, or is for clips and these are sequences (or the other way round).
        EngineError: an engine failed.
    """
    places, of_sequences = look_up(
        clips, horizon=horizon, rivals=rivals, frames=frames, given=given, sequences=sequences
    )
    choose("auto", threads)
    every = [*standard(), *(Custom(name, predict) for name, predict in (rivals or {}).items())]
    with ExitStack() as stack:
        contenders = _open(stack, models, every, threads)
        check_together(contenders)
        if of_sequences:
            return evaluate_sequences(contenders, places, given=given or GIVEN, limit=sequences, advance=advance)
        return evaluate_clips(
            contenders, places, rivals=every, horizon=horizon or HORIZON, frames=frames, advance=advance
        )


def look_up(
    clips: Place | Sequence[Place],
    *,
    horizon: int | None,
    rivals: object | None,
    frames: int | None,
    given: int | None,
    sequences: int | None,
) -> tuple[list[str], bool]:
    """The clips or files of sequences that :func:`evaluate` would take, and which of the two they are.

    Raises:
        SourceError, OptionError: see :func:`evaluate`.
    """
    places = find_clips([os.fspath(place) for place in _several(clips)])
    of_sequences = _is_sequences(places)
    _check_range(horizon=horizon, frames=frames, given=given, sequences=sequences)
    if of_sequences:
        _check_unset("sequences (.npy)", horizon=horizon, rivals=rivals, frames=frames)
    else:
        _check_unset("clips", given=given, sequences=sequences)
    return places, of_sequences


def _several(places: Place | Sequence[Place]) -> Sequence[Place]:
    return [places] if isinstance(places, (str, os.PathLike)) else places


def _is_sequences(places: Sequence[str]) -> bool:
    """Whether to follow the protocol for sequences rather than that for clips."""
    kinds = {place.lower().endswith(".npy") for place in places}
    if len(kinds) > 1:
        raise OptionError("clips and sequences (.npy) are scored in different ways: evaluate them apart")
    return kinds.pop()


def _check_range(**values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < 1:
            raise OptionError(f"{name} must be at least 1, not {value}")


def _check_unset(kind: str, **values: object) -> None:
    for name, value in values.items():
        if value is not None:
            raise OptionError(f"{name} cannot be used with {kind}: leave it out")


def _open(
    stack: ExitStack,
    models: Place | Sequence[Place] | Mapping[str, Place | Predictor],
    rivals: Sequence[Rival],
    threads: int,
) -> list[Contender]:
    """The models, opened until the stack is left."""
    taken = {rival.name for rival in rivals}
    if len(taken) < len(rivals):
        raise OptionError("a rival has the name of another: choose another name")
    named: Mapping[str, Place | Predictor]
    if isinstance(models, Mapping):
        named = models
    else:
        paths = list(dict.fromkeys(os.fspath(model) for model in _several(models)))
        named = dict(zip(labels(paths, taken), paths, strict=True))
    if not named:
        raise OptionError("no model given: name one that ships, or the path of an artifact")
    if both := taken & named.keys():
        raise OptionError(f"{both.pop()} names a model and a rival: choose another name")
    contenders = []
    for name, model in named.items():
        if isinstance(model, Predictor):
            contenders.append(Contender(name, name, model))
        else:
            predictor = stack.enter_context(load(model, threads=threads))
            contenders.append(Contender(name, os.fspath(model), predictor))
    return contenders
