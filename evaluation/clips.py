"""Evaluation of models and rivals on whole clips, scored as in a live run. All methods share the same frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from framecast.camera import Image, Source, files, open_source
from framecast.camera.images import SUFFIXES, images_among
from framecast.errors import OptionError, SourceError
from framecast.evaluation.metrics import Truth
from framecast.evaluation.perceptual import Judge, find_lpips
from framecast.evaluation.results import Advance, ClipResult, Contender, Results, Strip, Tally, metrics_with
from framecast.evaluation.rivals import Rival, standard
from framecast.redact import redact
from framecast.runtime.dis import MIN_SIDE
from framecast.runtime.score import Scorer, psnr


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
        videos = [str(path) for path in inside if path.suffix.lower() in files.SUFFIXES and path.is_file()]
        images = images_among(inside)
        if videos and images:
            raise SourceError(f"{redact(place)} holds both videos and images: name the videos, or 'FOLDER/*.png'")
        if not videos and not images:
            looked = " ".join((*files.SUFFIXES, *SUFFIXES))
            raise SourceError(f"no videos or images in {redact(place)} (looked for {looked})")
        found += videos or [place]
    if not found:
        raise SourceError("no clips given: name videos, folders of videos or images, or demo")
    return list(dict.fromkeys(found))


def check_together(contenders: Sequence[Contender]) -> None:
    """Check that all models see the same picture size, so that they can share a table.

    Raises:
        OptionError: the sizes differ, or are too small for the comparison.
    """
    first = contenders[0].predictor.manifest
    if min(first.size) < MIN_SIDE:
        raise OptionError(
            f"{contenders[0].name} sees {_view(contenders[0])}: a side must be at least {MIN_SIDE} pixels"
        )
    for other in contenders[1:]:
        manifest = other.predictor.manifest
        if (manifest.size, manifest.frame[0]) != (first.size, first.frame[0]):
            raise OptionError(
                f"{other.name} sees {_view(other)}, {contenders[0].name} {_view(contenders[0])}: "
                "models in one table must have one resolution; evaluate them separately"
            )


def _view(contender: Contender) -> str:
    width, height = contender.predictor.manifest.size
    return f"{width}×{height}{' grey' if contender.predictor.manifest.frame[0] == 1 else ''}"


def evaluate_clips(
    contenders: Sequence[Contender],
    places: Sequence[str],
    *,
    horizon: int,
    rivals: Sequence[Rival] | None = None,
    frames: int | None = None,
    advance: Advance = lambda what, done, total: None,
) -> Results:
    """Score models and rivals on clips (:mod:`framecast.runtime.score`), 1 … ``horizon`` steps ahead.

    Args:
        contenders: at least one model; all must have the same resolution (:func:`check_together`).
        places: result of :func:`find_clips`.
        horizon: number of steps ahead.
        rivals: baselines; copying must be the first (default: :func:`standard`).
        frames: use up to this many frames of each clip.
        advance: called after each frame.

    Raises:
        SourceError: no clip can be scored. If only some cannot, they are skipped.
        OptionError: a place is a camera.
        EngineError: an engine failed.
    """
    judge = find_lpips()
    every = tuple(standard() if rivals is None else rivals)
    run = _Run(tuple(contenders), every, horizon, frames, None if isinstance(judge, str) else judge)
    clips: list[ClipResult] = []
    skipped: list[tuple[str, str]] = []
    for number, (place, name) in enumerate(zip(places, _names(places), strict=True)):
        found = run.attempt(place, name, partial(_advance, advance, name, number, len(places)))
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
        horizon=horizon,
        given=None,
        clips=tuple(clips),
        skipped=tuple(skipped),
        lpips=judge if isinstance(judge, str) else None,
    )


def _advance(advance: Advance, name: str, number: int, total: int, frames: int) -> None:
    advance(f"{name}: frame {frames}", number, total)


def _names(places: Sequence[str]) -> list[str]:
    """Return short names, without folder and suffix, unless two of them would be equal."""
    whole = [redact(place) for place in places]
    short = [name if "://" in name or "*" in name else Path(name).stem or name for name in whole]
    return short if len(set(short)) == len(short) else whole


@dataclass(frozen=True, eq=False)
class _Moment:
    """Each method's predictions from one frame, in the order of the methods: [method][step - 1]."""

    last: Image
    ahead: list[list[Image]]


@dataclass(frozen=True, eq=False)
class _Run:
    """The settings that all clips share."""

    contenders: tuple[Contender, ...]
    rivals: tuple[Rival, ...]
    horizon: int
    most: int | None  # frames of a clip
    judge: Judge | None

    @property
    def methods(self) -> tuple[str, ...]:
        return (*(rival.name for rival in self.rivals), *(contender.name for contender in self.contenders))

    def attempt(self, place: str, name: str, advance: Callable[[int], None]) -> ClipResult | SourceError:
        """Score a clip, or return why it cannot be scored."""
        try:
            with open_source(place) as source:
                return self.score(name, source, advance)
        except SourceError as error:
            return error

    def score(self, name: str, source: Source, advance: Callable[[int], None]) -> ClipResult:
        """Score a clip.

        The scorer of live runs decides which frames count. To keep the methods on the same frames, the longest warm-up
        holds for all of them. So does a restart after one model's prediction was not finite.
        """
        if source.live:
            raise OptionError(f"{source.name} is a camera: record it first and evaluate the recording")
        predictors = [contender.predictor for contender in self.contenders]
        channels = predictors[0].manifest.frame[0]
        scorer, tally, middle = Scorer(), Tally(self.methods, self.horizon, self.judge), _Middle(self.horizon)
        moments: deque[_Moment] = deque(maxlen=self.horizon)
        shape: tuple[int, ...] | None = None
        frames = 0
        while frames != self.most and (frame := source.read()) is not None:
            if frame.image.shape != shape:
                shape = frame.image.shape
                moments.clear()
                for predictor in predictors:
                    predictor.reset()
            for predictor in predictors:
                predictor.step(frame.image)
            seen = predictors[0].input
            last = seen[..., :channels]
            before = moments[-1].last if moments else last
            ahead = [rival.predict(last, before, self.horizon) for rival in self.rivals]
            ahead += [[p.image[..., :channels] for p in predictor.rollout(self.horizon)] for predictor in predictors]
            if any(predictor.steps == 1 for predictor in predictors):
                scorer.restart()
            due = [round(scored.ahead) for scored in scorer.arrive(seen, frames, 1)]
            if due:
                truth = Truth(last)
                for step in due:
                    tally.add(step, truth, [images[step - 1] for images in moments[-step].ahead])
                middle.offer(due, moments, last)
            if all(predictor.steps >= predictor.manifest.warmup for predictor in predictors):
                for step in range(1, self.horizon + 1):
                    scorer.expect(seen, frames + step, step, seen)
            moments.append(_Moment(last, ahead))
            frames += 1
            advance(frames)
        if not all(tally.scored):
            raise SourceError(
                f"nothing to score {self.horizon} steps ahead in {source.name}: {frames} frames are too few or "
                "repeat each other (give a longer clip, or a smaller --horizon)"
            )
        return ClipResult(name, source.name, frames, tuple(tally.scored), tally.means(), middle.strip())


class _Middle:
    """Keeps a moment near the middle of a clip of any length, with the frames that followed it."""

    def __init__(self, horizon: int) -> None:
        self._steps = tuple(dict.fromkeys((1, horizon)))
        self._kept: list[tuple[_Moment, tuple[Image, ...]]] = []
        self._stride = 1  # keep every stride-th moment; at eight, drop every second one and double the stride
        self._seen = 0

    def offer(self, due: Sequence[int], moments: Sequence[_Moment], now: Image) -> None:
        """Consider the moment whose furthest prediction is due now."""
        if (furthest := self._steps[-1]) not in due:
            return
        if self._seen % self._stride == 0:
            next_one = now if furthest == 1 else moments[-furthest + 1].last
            self._kept.append((moments[-furthest], (next_one, now)[-len(self._steps) :]))
            if len(self._kept) == 8:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._seen += 1

    def strip(self) -> Strip:
        moment, truths = self._kept[len(self._kept) // 2]
        rows = tuple(tuple(images[step - 1] for step in self._steps) for images in moment.ahead)
        scores = tuple(tuple(psnr(*pair) for pair in zip(row, truths, strict=True)) for row in rows)
        return Strip(moment.last, self._steps, truths, rows, scores)
