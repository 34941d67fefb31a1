"""``framecast.evaluate`` scores models on clips or on test sequences. ``framecast eval`` prints its result."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from framecast.camera.layouts import find_in_layout, find_layout
from framecast.errors import OptionError
from framecast.evaluation.ahead import Ahead
from framecast.evaluation.clips import evaluate_clips, find_clips
from framecast.evaluation.results import Advance, Contender, Results
from framecast.evaluation.rivals import Custom, Predict, Rival, standard
from framecast.evaluation.samples import is_sequences
from framecast.evaluation.sequences import evaluate_sequences
from framecast.runtime.engines import Engine, choose
from framecast.runtime.predictor import Predictor, open_model
from framecast.runtime.shipped import labels

HORIZON = 5  # frames ahead, for clips

Place = str | os.PathLike[str]


def evaluate(
    models: Place | Sequence[Place] | Mapping[str, Place | Predictor | Engine],
    clips: Place | Sequence[Place],
    *,
    horizon: int | None = None,
    ahead: Sequence[float] | None = None,
    size: tuple[int, int] | None = None,
    rivals: Mapping[str, Predict] | None = None,
    frames: int | None = None,
    given: int | None = None,
    predict: int | None = None,
    layout: str | None = None,
    sequences: int | None = None,
    threads: int = 0,
    advance: Advance = lambda share, what: None,
) -> Results:
    """Score models and compare them with simple baselines: copying, linear extrapolation, optical flow.

        results = framecast.evaluate("edge", ["a.mp4", "clips/"])
        results.to_dict()["mean"]["edge"]["psnr"]     # dB, 1 … 5 frames ahead
        framecast.evaluate("edge", "clips/", ahead=[0.04, 0.1]).to_dict()["cost"]["edge"]     # CPU ms at these moments
        framecast.evaluate("edge", "demo", rivals={"mine": lambda last, before, ahead: [last] * len(ahead)})

    Args:
        models: one or more shipped names or artifact paths; or a mapping from the names for the tables to paths, names
            or open predictors; or engines, of models whose channels are not a picture. Models that take one size only
            must all take the same.
        clips: videos, folders of videos or of images, or ``demo``; or ``.npy`` files of sequences, uint8 [T, N, H, W],
            in colour [T, N, H, W, 3], BGR; or ``mnist://``, Moving MNIST's test set of 10,000 sequences of a seed:
            ``mnist://IDX_FILE?seed=0``; or TaxiBJ's ``dataset.npz``, whose sequences for tests are scored; or with
            ``layout``, folders of a data set.
        horizon: score 1 to this many frames ahead (default: 5). For clips.
        ahead: score these moments instead, in seconds. For clips. Each is predicted and scored at the clip's nearest
            frame, but never before the next frame; ``ahead_ms`` in the JSON says at how many milliseconds that was.
        size: (width, height) at which all methods are compared (default: the size of the models that take one size
            only; without such a model, each clip's own). For clips.
        rivals: further baselines by name, for clips. Each is a function of the newest frame, the frame before it, and
            a list of moments ahead. The unit of the moments is the time between these two frames: 1.0 is the next frame
            of a steady stream, 2.5 lies between two frames. Frames are uint8 [h, w, C] at the compared size; C is 3
            (BGR) or 1. The function returns one such frame per moment.
        frames: use up to this many frames of each clip.
        given: number of frames to give from the start of each sequence (default: 10, or those of the layout or of
            TaxiBJ). With this and ``predict``, clips are cut into sequences, and each is predicted from a reset, as in
            papers.
        predict: number of frames to predict then (default: all others of a file, or the layout's).
        layout: take the clips for tests of a data set in this layout: see :data:`framecast.camera.layouts.LAYOUTS`.
        sequences: use up to this many sequences of each file or clip.
        threads: CPU threads of a step; 0 for one per core.
        advance: called with the fraction done, 0 to 1, and the current activity.

    Returns:
        The scores of all methods, by lookahead, metric and clip, with pictures and CPU time.

    Raises:
        ArtifactError: there is no such model, or the file is not an artifact.
        SourceError: no clip can be scored. If only some cannot, they are skipped; see :attr:`Results.skipped`.
        OptionError: an argument is out of range, or is for clips when these are sequences, or the reverse.
        EngineError: an engine failed.
    """
    places, of_sequences = look_up(
        clips,
        horizon=horizon,
        ahead=ahead,
        size=size,
        rivals=rivals,
        frames=frames,
        given=given,
        predict=predict,
        layout=layout,
        sequences=sequences,
    )
    choose("auto", threads)
    every = [*standard(), *(Custom(name, predict) for name, predict in (rivals or {}).items())]
    with ExitStack() as stack:
        contenders = _open(stack, models, every, threads)
        if of_sequences:
            known = None if layout is None else find_layout(layout)
            return evaluate_sequences(
                contenders,
                places,
                given=given or (known.given if known else None),
                predict=predict or (known.predicted if known else None),
                layout=layout,
                limit=sequences,
                advance=advance,
            )
        moments = Ahead.in_frames(horizon or HORIZON) if ahead is None else Ahead.in_seconds(ahead)
        return evaluate_clips(
            contenders, places, ahead=moments, size=size, rivals=every, frames=frames, advance=advance
        )


def look_up(
    clips: Place | Sequence[Place],
    *,
    horizon: int | None,
    ahead: Sequence[float] | None,
    size: tuple[int, int] | None,
    rivals: object | None,
    frames: int | None,
    given: int | None,
    predict: int | None,
    layout: str | None,
    sequences: int | None,
) -> tuple[list[str], bool]:
    """Return the clips, files or folders that :func:`evaluate` would use, and whether it would score sequences.

    Raises:
        SourceError, OptionError: see :func:`evaluate`.
    """
    places = [os.fspath(place) for place in _several(clips)]
    if layout is not None:
        for place in places:
            find_in_layout(Path(place.removeprefix("file://")), layout, test=True)
    else:
        places = find_clips(places)
    arrays = layout is None and _is_arrays(places)
    of_sequences = arrays or bool(layout or given or predict)
    _check_range(horizon=horizon, frames=frames, given=given, predict=predict, sequences=sequences)
    if of_sequences:
        _check_unset("sequences", horizon=horizon, ahead=ahead, size=size, rivals=rivals, frames=frames)
        if not arrays and layout is None and not (given and predict):
            raise OptionError("to cut clips into sequences, say how many frames to give and to predict: both")
    else:
        if ahead is not None:
            Ahead.in_seconds(ahead)
            _check_unset("ahead", horizon=horizon)
        _check_unset("clips", sequences=sequences)
    return places, of_sequences


def _several(places: Place | Sequence[Place]) -> Sequence[Place]:
    return [places] if isinstance(places, (str, os.PathLike)) else places


def _is_arrays(places: Sequence[str]) -> bool:
    """Return whether the places are sequences already, which have their own protocol, or clips."""
    kinds = {is_sequences(place) for place in places}
    if len(kinds) > 1:
        raise OptionError("clips and sequences (.npy, .npz, mnist://) are scored differently: evaluate them separately")
    return kinds.pop()


def _check_range(**values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < 1:
            raise OptionError(f"{name} must be at least 1, not {value}")


def _check_unset(kind: str, **values: object) -> None:
    for name, value in values.items():
        if value is not None:
            raise OptionError(f"{name} cannot be used with {kind}: leave it out")


def open_contender(stack: ExitStack, model: Place, threads: int) -> Predictor | Engine:
    """Open a model for :func:`evaluate`: a predictor, or only the engine if its channels are not a picture.

    The stack closes it.

    Raises:
        ArtifactError, EngineError: see :func:`framecast.load`.
    """
    engine = stack.enter_context(open_model(model, threads=threads))
    return Predictor(engine) if engine.manifest.is_picture else engine


def _open(
    stack: ExitStack,
    models: Place | Sequence[Place] | Mapping[str, Place | Predictor | Engine],
    rivals: Sequence[Rival],
    threads: int,
) -> list[Contender]:
    """Open the models. The stack closes them."""
    taken = {rival.name for rival in rivals}
    if len(taken) < len(rivals):
        raise OptionError("two rivals have the same name: choose another name")
    named: Mapping[str, Place | Predictor | Engine]
    if isinstance(models, Mapping):
        named = models
    else:
        paths = list(dict.fromkeys(os.fspath(model) for model in _several(models)))
        named = dict(zip(labels(paths, taken), paths, strict=True))
    if not named:
        raise OptionError("no model given: name a shipped model, or give the path of an artifact")
    if both := taken & named.keys():
        raise OptionError(f"{both.pop()} is the name of a model and of a rival: choose another name")
    contenders = []
    for name, model in named.items():
        if isinstance(model, (Predictor, Engine)):
            contenders.append(Contender(name, name, model))
        else:
            contenders.append(Contender(name, os.fspath(model), open_contender(stack, model, threads)))
    return contenders
