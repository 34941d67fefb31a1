"""One clip, scored as in a live run. All methods share the same frames, and their CPU times are measured in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from framecast.camera import Image, Source
from framecast.clock import Clock
from framecast.errors import OptionError, SourceError
from framecast.evaluation.ahead import Ahead
from framecast.evaluation.metrics import Array, Truth
from framecast.evaluation.perceptual import Judge
from framecast.evaluation.results import ClipResult, Contender, Strip, Tally
from framecast.evaluation.rivals import Rival
from framecast.runtime.dis import MIN_SIDE
from framecast.runtime.predictor import Predictor
from framecast.runtime.resize import resize
from framecast.runtime.score import Scorer, psnr
from framecast.runtime.stepper import SNAP

COSTED = 8  # measure the cost on every 8th frame only, because that computes pictures one by one, which takes longer
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Run:
    """The settings that all clips share.

    Attributes:
        contenders: the models.
        rivals: the baselines; copying is the first.
        ahead: the moments to predict.
        size: (width, height) of all comparisons; None for each clip's own.
        most: maximum number of frames of a clip; None for all.
        judge: computes LPIPS; None without LPIPS.
        clock: measures the CPU time.
    """

    contenders: tuple[Contender, ...]
    rivals: tuple[Rival, ...]
    ahead: Ahead
    size: tuple[int, int] | None
    most: int | None
    judge: Judge | None
    clock: Clock

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of all methods, rivals first."""
        return (*(rival.name for rival in self.rivals), *(contender.name for contender in self.contenders))

    @property
    def predictors(self) -> list[Predictor]:
        """The models' predictors."""
        return [contender.predictor for contender in self.contenders]


@dataclass(frozen=True, eq=False)
class _Moment:
    """The predictions of all methods from one frame.

    Attributes:
        frame: the frame at the compared size, as the scorer sees it: [h, w, 3].
        last: the same frame with the models' channels.
        time: the frame's time in seconds.
        interval: seconds between two frames, as known at that time.
        whole: for each requested moment, how many frames ahead it is scored.
        pictures: each method's prediction, by frames ahead.
        truths: the real frames of the nearest and the furthest prediction, by frames ahead, once they have arrived.
    """

    frame: Image
    last: Image
    time: float
    interval: float
    whole: tuple[int, ...]
    pictures: dict[int, list[Image]] = field(default_factory=dict)
    truths: dict[int, Image] = field(default_factory=dict)

    def see(self, later: _Moment) -> None:
        """Keep a later frame if it is the ground truth of the nearest or the furthest prediction."""
        near, far = self.whole[0], self.whole[-1]
        k = round((later.time - self.time) / self.interval)
        if k >= near:
            self.truths.setdefault(near, later.last)
        if k == far:
            self.truths[far] = later.last


def score_clip(run: Run, name: str, source: Source, advance: Callable[[int], None]) -> ClipResult:
    """Score a clip.

    The scorer of live runs decides which frames count. All methods are scored on the same frames, so all wait for the
    longest warm-up, and all restart after a prediction that was not finite.

    Args:
        run: the settings.
        name: the clip's short name.
        source: the clip.
        advance: called after each frame with the number of frames so far.

    Raises:
        SourceError: the clip cannot be read, or no frame of it can be scored.
        OptionError: the source is a camera, or one of the user's rivals fails.
        EngineError: an engine failed.
    """
    if source.live:
        raise OptionError(f"{source.name} is a camera: record it first and evaluate the recording")
    tally, cost, copies = Tally(run.methods, len(run.ahead), run.judge), _Cost(run), _Copies(run)
    middle = _Middle(run.ahead)
    looked: list[list[float]] = [[] for _ in run.ahead.asked]  # milliseconds, by moment
    frames, size = 0, (0, 0)
    for frames, truth, due in _frames(run, source, cost, copies):
        size = truth.shape[1], truth.shape[0]
        compared = Truth(truth) if due else None
        for moment, k, seconds in due:
            assert compared is not None  # noqa: S101
            for index in (i for i, whole in enumerate(moment.whole) if whole == k):
                tally.add(index, compared, moment.pictures[k])
                looked[index].append(1e3 * seconds)
            middle.offer(moment, k)
        advance(frames)
    if not all(tally.scored):
        raise SourceError(
            f"cannot score {_furthest(run.ahead)} in {source.name}: its {frames} frames are too few, or repeat each "
            f"other (give a longer clip, or a smaller --{'ahead' if run.ahead.in_ms else 'horizon'})"
        )
    return ClipResult(
        name=name,
        source=source.name,
        size=size,
        frames=frames,
        scored=tuple(tally.scored),
        values=tally.means(),
        strip=middle.strip(),
        ahead_ms=tuple(float(np.mean(one)) for one in looked),
        cpu_ms=cost.medians(),
        copied=tuple(copies.copied),
        pictures=tuple(copies.pictures),
    )


def _furthest(ahead: Ahead) -> str:
    return f"{ahead.asked[-1]:g} ms ahead" if ahead.in_ms else f"{ahead.asked[-1]:g} frames ahead"


_Due = list[tuple[_Moment, int, float]]  # an earlier moment, and how many frames and seconds ago it was


def _frames(run: Run, source: Source, cost: _Cost, copies: _Copies) -> Iterator[tuple[int, Image, _Due]]:
    """Step all models through a clip. Yields the frames so far, the newest one, and the moments it scores."""
    predictors = run.predictors
    channels = predictors[0].manifest.frame[0]
    scorer, moments = Scorer(), deque[_Moment]()
    shape: tuple[int, ...] | None = None
    frames = 0
    while frames != run.most and (frame := source.read()) is not None:
        if frame.image.shape != shape:
            shape = frame.image.shape
            moments.clear()
            for predictor in predictors:
                predictor.reset()
        image = _at_size(frame.image, run.size, source.name)
        steps = [_timed(run.clock, partial(p.step, image, frame.time))[1] for p in predictors]
        seen, interval = predictors[0].input, predictors[0].interval
        moment = _Moment(seen, seen[..., :channels], frame.time, interval, run.ahead.frames(interval))
        before = moments[-1] if moments else None
        _predict(run, moment, before, steps, cost if frames % COSTED == 0 else None, copies)
        repeated = any(predictor.event == "repeat" for predictor in predictors)
        if not repeated and any(predictor.steps == 1 for predictor in predictors):
            scorer.restart()
        for earlier in moments:
            earlier.see(moment)
        made = {id(earlier.frame): earlier for earlier in moments}
        due: _Due = []
        for scored in scorer.arrive(seen, frame.time, interval, repeated=repeated):
            if (origin := made.get(id(scored.last))) is not None:
                due.append((origin, round(scored.ahead / origin.interval), scored.ahead))
        if all(predictor.steps >= predictor.manifest.warmup for predictor in predictors):
            for k in moment.pictures:
                scorer.expect(seen, frame.time + k * interval, k * interval, seen)
        frames += 1
        yield frames, moment.last, due
        for earlier, k, _ in due:
            if k not in (earlier.whole[0], earlier.whole[-1]):  # the strip needs those
                del earlier.pictures[k]
        moments.append(moment)
        while moments[0].time + (moments[0].whole[-1] + 1) * interval < frame.time:
            moments.popleft()


def _at_size(image: Image, size: tuple[int, int] | None, name: str) -> Image:
    """Return a frame at the compared size."""
    if size is not None and image.shape[1::-1] != size:
        return resize(image, size)
    if min(image.shape[:2]) < MIN_SIDE:
        raise SourceError(f"{name} is too small to compare: a side must be at least {MIN_SIDE} pixels (give a size)")
    return image


def _predict(
    run: Run, moment: _Moment, before: _Moment | None, steps: Sequence[float], cost: _Cost | None, copies: _Copies
) -> None:
    """Fill in every method's pictures, and measure what they cost.

    Args:
        run: the settings.
        moment: the newest frame.
        before: the frame before it, if any.
        steps: CPU seconds of each model's step.
        cost: collects the measurements; None to compute the pictures together, which is cheaper.
        copies: counts the pictures, and those that a predictor replaced by a copy of the last frame.
    """
    whole = sorted(set(moment.whole))
    last, earlier, elapsed = moment.last, moment.last, moment.interval
    if before is not None:
        earlier, elapsed = before.last, moment.time - before.time
    rows: list[list[Image]] = []
    spent: list[list[float]] = []
    for rival in run.rivals:
        ahead = [_snapped(k * moment.interval / elapsed) for k in whole]
        row, seconds = _pictures(partial(rival.predict, last, earlier), ahead, run.clock, cost)
        copies.add(len(rows), 0, len(row))
        rows.append(row)
        spent.append(seconds)
    for predictor, step in zip(run.predictors, steps, strict=True):
        copied = predictor.copied
        row, seconds = _pictures(partial(_ahead, predictor, moment), whole, run.clock, cost)
        made = max(whole) if cost is None and _rolls_out(predictor, whole) else len(whole)
        copies.add(len(rows), predictor.copied - copied, made)
        rows.append([image[..., : last.shape[2]] for image in row])
        spent.append([step + one for one in seconds])
    for i, k in enumerate(whole):
        moment.pictures[k] = [row[i] for row in rows]
    if cost is not None:
        cost.add([[row[whole.index(k)] for k in moment.whole] for row in spent])


def _pictures(
    predict: Callable[[Sequence[T]], list[Image]], ahead: Sequence[T], clock: Clock, cost: _Cost | None
) -> tuple[list[Image], list[float]]:
    """Return all pictures, and the CPU seconds of each if the cost is measured."""
    if cost is None:
        return predict(ahead), []
    found = [_timed(clock, partial(predict, [one])) for one in ahead]
    return [image for (image,), _ in found], [seconds for _, seconds in found]


def _ahead(predictor: Predictor, moment: _Moment, whole: Sequence[int]) -> list[Image]:
    """Return a model's pictures for some numbers of frames ahead."""
    if not _rolls_out(predictor, whole):
        return [predictor.at(moment.time + k * moment.interval).image for k in whole]
    rollout = predictor.rollout(max(whole))
    return [rollout[k - 1].image for k in whole]


def _rolls_out(predictor: Predictor, whole: Sequence[int]) -> bool:
    """Whether one rollout gives all pictures. A model of motion renders each moment by itself."""
    return predictor.manifest.renders != "moments" and len(whole) > 1


def _snapped(steps: float) -> float:
    """Round a number of steps if it is almost whole, because time stamps are rounded."""
    return float(round(steps)) if abs(steps - round(steps)) < SNAP else steps


def _timed(clock: Clock, call: Callable[[], T]) -> tuple[T, float]:
    """Return a call's result and its CPU seconds on all threads."""
    begun = clock.cpu()
    found = call()
    return found, clock.cpu() - begun


class _Cost:
    """The CPU time of all methods, on frames spread over a clip."""

    def __init__(self, run: Run) -> None:
        self._shape = len(run.methods), len(run.ahead)
        self._first = True
        self._samples: list[list[list[float]]] = []

    def add(self, seconds: list[list[float]]) -> None:
        """Add a frame's CPU times, [method][moment], in seconds. The clip's first frame does not count."""
        if self._first:
            self._first = False
            return
        self._samples.append(seconds)

    def medians(self) -> Array:
        """Median milliseconds, [method, moment].

        Every scored clip has a sample, because no frame before the eighth is scored.
        """
        return 1e3 * np.median(np.reshape(self._samples, (-1, *self._shape)), axis=0)  # type: ignore[no-any-return]


class _Copies:
    """Counts each method's pictures, and those that a predictor replaced by a copy of the last frame."""

    def __init__(self, run: Run) -> None:
        self.copied, self.pictures = [0] * len(run.methods), [0] * len(run.methods)

    def add(self, method: int, copied: int, pictures: int) -> None:
        """Count the pictures of one frame."""
        self.copied[method] += copied
        self.pictures[method] += pictures


class _Middle:
    """Keeps a moment near the middle of a clip of any length, and the frames that follow it."""

    def __init__(self, ahead: Ahead) -> None:
        self._ahead = ahead
        self._kept: list[_Moment] = []
        self._stride = 1  # keep every stride-th moment; at four, drop every second one and double the stride
        self._seen = 0

    def offer(self, moment: _Moment, k: int) -> None:
        """Consider a moment whose prediction ``k`` frames ahead was scored. The furthest prediction completes it."""
        if k != moment.whole[-1]:
            return
        if self._seen % self._stride == 0:
            self._kept.append(moment)
            if len(self._kept) == 4:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._seen += 1

    def strip(self) -> Strip:
        """Return the pictures of the moment in the middle."""
        moment = self._kept[len(self._kept) // 2]
        whole = [moment.whole[index] for index in self._ahead.ends]
        truths = tuple(moment.truths[k] for k in whole)
        rows = tuple(zip(*(moment.pictures[k] for k in whole), strict=True))
        scores = tuple(tuple(psnr(*pair) for pair in zip(row, truths, strict=True)) for row in rows)
        labels = tuple(self._ahead.label(index) for index in self._ahead.ends)
        return Strip(moment.last, labels, truths, rows, scores)
