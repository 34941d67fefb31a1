"""Evaluation of models and rivals on clips: which clips, at which size, and the results of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from framecast.camera import open_source, video
from framecast.camera.images import SUFFIXES, images_among
from framecast.clock import SYSTEM, Clock
from framecast.errors import FrameError, OptionError, SourceError
from framecast.evaluation.ahead import Ahead
from framecast.evaluation.one_clip import Run, score_clip
from framecast.evaluation.perceptual import find_lpips
from framecast.evaluation.results import Advance, ClipResult, Contender, Results, metrics_with
from framecast.evaluation.rivals import Rival, standard
from framecast.redact import redact
from framecast.runtime.dis import MIN_SIDE


def find_clips(places: Sequence[str]) -> list[str]:
    """Return the places, with each folder of videos replaced by its videos. A folder of images is one clip.

    Raises:
        SourceError: a folder holds neither videos nor images, or both; or there is no place.
    """
    found: list[str] = []
    for place in places:
        folder = Path(place.removeprefix("file://"))
        try:
            inside = sorted(folder.iterdir()) if folder.is_dir() else None
        except OSError as error:
            raise SourceError(f"cannot list {redact(place)}: {error.strerror} (check its permissions)") from error
        if inside is None:
            found.append(place)
            continue
        videos = [str(path) for path in inside if path.suffix.lower() in video.SUFFIXES and path.is_file()]
        images = images_among(inside)
        if videos and images:
            raise SourceError(f"{redact(place)} holds both videos and images: name the videos, or 'FOLDER/*.png'")
        if not videos and not images:
            looked = " ".join((*video.SUFFIXES, *SUFFIXES))
            raise SourceError(f"no videos or images in {redact(place)} (looked for {looked})")
        found += videos or [place]
    if not found:
        raise SourceError("no clips given: name videos, folders of videos or images, or demo")
    return list(dict.fromkeys(found))


def common_size(contenders: Sequence[Contender], size: tuple[int, int] | None = None) -> tuple[int, int] | None:
    """Return the picture size (width, height) at which all methods are compared; None for each clip's own size.

    Args:
        contenders: the models. Some take one size only, others any (:attr:`Engine.any_size`).
        size: the requested size, if any.

    Raises:
        OptionError: the models take different pictures, or ``size`` is too small or not the models' size.
    """
    first = contenders[0]
    for other in contenders[1:]:
        if other.manifest.frame[0] != first.manifest.frame[0]:
            raise _apart(other, first)
    fixed = [contender for contender in contenders if not contender.engine.any_size]
    for other in fixed[1:]:
        if other.manifest.size != fixed[0].manifest.size:
            raise _apart(other, fixed[0])
    if fixed:
        own = fixed[0].manifest.size
        if size not in (None, own):
            raise OptionError(
                f"{fixed[0].name} takes {_view(fixed[0])} only: leave out the size, or leave out the model"
            )
        size = own
    if size is not None and min(size) < MIN_SIDE:
        raise OptionError(f"cannot compare at {size[0]}×{size[1]}: a side must be at least {MIN_SIDE} pixels")
    return size


def _apart(one: Contender, other: Contender) -> OptionError:
    return OptionError(
        f"{one.name} takes {_view(one)}, {other.name} takes {_view(other)}: "
        "models in one table need the same resolution; evaluate them separately"
    )


def _view(contender: Contender) -> str:
    manifest = contender.manifest
    size = "any size" if contender.engine.any_size else f"{manifest.size[0]}×{manifest.size[1]}"
    return f"{size}{' grey' if manifest.frame[0] == 1 else ''}"


def evaluate_clips(
    contenders: Sequence[Contender],
    places: Sequence[str],
    *,
    ahead: Ahead,
    size: tuple[int, int] | None = None,
    rivals: Sequence[Rival] | None = None,
    frames: int | None = None,
    advance: Advance = lambda share, what: None,
    clock: Clock = SYSTEM,
) -> Results:
    """Score models and rivals on clips (:mod:`framecast.runtime.score`), and measure what they cost.

    Args:
        contenders: at least one model.
        places: result of :func:`find_clips`.
        ahead: the moments to predict.
        size: (width, height) of all comparisons (default: see :func:`common_size`).
        rivals: baselines, copying first (default: :func:`standard`).
        frames: use up to this many frames of each clip.
        advance: called after each frame.
        clock: measures the CPU time.

    Raises:
        SourceError: no clip can be scored. If only some cannot, they are skipped.
        OptionError: a place is a camera, or see :func:`common_size`.
        EngineError: an engine failed.
    """
    judge = find_lpips()
    run = Run(
        contenders=tuple(contenders),
        rivals=tuple(standard() if rivals is None else rivals),
        ahead=ahead,
        size=common_size(contenders, size),
        most=frames,
        judge=None if isinstance(judge, str) else judge,
        clock=clock,
    )
    clips: list[ClipResult] = []
    skipped: list[tuple[str, str]] = []
    for number, (place, name) in enumerate(zip(places, _names(places), strict=True)):
        found = _attempt(run, place, name, partial(_advance, advance, name, number, len(places)))
        advance((number + 1) / len(places), f"{name}: done")
        if isinstance(found, ClipResult):
            clips.append(found)
        else:
            skipped.append((redact(place), str(found)))
    if not clips:
        reason = skipped[0][1]
        raise SourceError(reason if len(skipped) == 1 else f"none of the {len(skipped)} clips can be scored: {reason}")
    return Results(
        contenders=run.contenders,
        methods=run.methods,
        metrics=metrics_with(run.judge),
        ahead=ahead,
        given=None,
        clips=tuple(clips),
        skipped=tuple(skipped),
        lpips=judge if isinstance(judge, str) else None,
    )


def _attempt(run: Run, place: str, name: str, advance: Callable[[int | None, int], None]) -> ClipResult | SourceError:
    """Score a clip, or return why it cannot be scored."""
    try:
        with open_source(place) as source:
            length = source.length
            if run.most is not None:
                length = min(length or run.most, run.most)
            return score_clip(run, name, source, partial(advance, length))
    except SourceError as error:
        return error
    except FrameError as error:
        return SourceError(f"{redact(place)}: {error}")


def _advance(advance: Advance, name: str, number: int, total: int, length: int | None, frames: int) -> None:
    """Report a frame of a clip. Each clip counts equally; one of unknown length counts when it is done."""
    share = min(frames / length, 1.0) if length else 0.0
    of = f" of {length}" if length and frames <= length else ""
    advance((number + share) / total, f"{name}: frame {frames}{of}")


def _names(places: Sequence[str]) -> list[str]:
    """Return short names, without folder and suffix, unless two of them would be equal."""
    whole = [redact(place) for place in places]
    short = [name if "://" in name or "*" in name else Path(name).stem or name for name in whole]
    return short if len(set(short)) == len(short) else whole
