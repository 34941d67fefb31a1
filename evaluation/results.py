"""The results of an evaluation: figures by method, lookahead and clip, and their JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.errors import OptionError
from framecast.evaluation.ahead import Ahead
from framecast.evaluation.metrics import LPIPS, METRICS, Array, Truth
from framecast.evaluation.perceptual import Judge
from framecast.evaluation.rivals import CopyLast, DisFlow
from framecast.graph.manifest import Manifest
from framecast.runtime.engines import Engine
from framecast.runtime.predictor import Predictor
from framecast.runtime.report import versions

COPY, DIS = CopyLast.name, DisFlow.name
Advance = Callable[[float, str], None]  # receives the fraction done, 0 to 1, and the current activity


def not_for_clips(name: str) -> OptionError:
    """Make the error for a model that takes no pictures."""
    return OptionError(f"cannot evaluate {name} on clips: its channels are not a picture (give TaxiBJ's dataset.npz)")


@dataclass(frozen=True, eq=False)
class Contender:
    """A model to evaluate.

    Attributes:
        name: name in tables and reports.
        given: the name or path that the user gave.
        model: its predictor; only its engine if its channels are not a picture.
    """

    name: str
    given: str
    model: Predictor | Engine

    @property
    def predictor(self) -> Predictor:
        """The predictor, which clips need.

        Raises:
            OptionError: the model's channels are not a picture.
        """
        if not isinstance(self.model, Predictor):
            raise not_for_clips(self.name)
        return self.model

    @property
    def engine(self) -> Engine:
        """The engine."""
        return self.model.engine if isinstance(self.model, Predictor) else self.model

    @property
    def manifest(self) -> Manifest:
        """The model's manifest."""
        return self.model.manifest

    @property
    def resets(self) -> int:
        """How often a prediction was not finite. Sequences do not go on after one."""
        return self.model.resets if isinstance(self.model, Predictor) else 0

    @property
    def title(self) -> str:
        """The name, with a note if the weights are random."""
        return self.name if self.manifest.trained else f"{self.name} (random weights)"


@dataclass(frozen=True, eq=False)
class Strip:
    """Pictures of one moment, uint8 [h, w, C]; of traffic, its channels side by side.

    Attributes:
        last: the newest frame that the methods saw.
        labels: how far ahead each picture is, in words.
        truths: the ground truth, one picture per label.
        predictions: one row per method, in the order of the methods, with one picture per label.
        psnr: PSNR of the predictions, in dB.
    """

    last: Image
    labels: tuple[str, ...]
    truths: tuple[Image, ...]
    predictions: tuple[tuple[Image, ...], ...]
    psnr: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, eq=False)
class ClipResult:
    """One clip, or one file of sequences.

    Attributes:
        name: short name for tables.
        source: name of the source, without credentials.
        size: (width, height) of the compared pictures.
        frames: number of frames read; for a file of sequences, the number of sequences.
        scored: number of scored frames, by moment.
        values: means over the scored frames, [method, moment, metric].
        strip: pictures of one moment.
        ahead_ms: how many milliseconds ahead each moment was scored, on average; None for sequences.
        cpu_ms: median CPU time of a step and one picture of that moment, in milliseconds, [method, moment]; None for
            sequences.
        copied: by method, how many of its pictures the predictor replaced by a copy of the last frame.
        pictures: number of pictures that each method predicted, scored or not.
        origin: of sequences: where they come from, in words; and the SHA-256 of their bytes, one after another.
    """

    name: str
    source: str
    size: tuple[int, int]
    frames: int
    scored: tuple[int, ...]
    values: Array
    strip: Strip
    ahead_ms: tuple[float, ...] | None = None
    cpu_ms: Array | None = None
    copied: tuple[int, ...] = ()
    pictures: tuple[int, ...] = ()
    origin: tuple[str, str] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Results:
    """All results of an evaluation. The axes of all arrays are ``methods``, ``ahead`` and ``metrics``.

    Attributes:
        contenders: the models.
        methods: names of all methods, rivals first.
        metrics: names of the metrics.
        ahead: the moments that were asked for.
        given: number of frames given from the start of each sequence; None for clips.
        clips: the result of each clip, or of each file of sequences.
        skipped: source and reason of each clip that could not be scored.
        lpips: why LPIPS is missing; None if it is not missing.
    """

    contenders: tuple[Contender, ...]
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    ahead: Ahead
    given: int | None
    clips: tuple[ClipResult, ...]
    skipped: tuple[tuple[str, str], ...]
    lpips: str | None

    def __repr__(self) -> str:
        at = self.metrics.index("psnr") if "psnr" in self.metrics else 0
        figures = ", ".join(f"{name} {self.mean[k, 0, at]:.2f}" for k, name in enumerate(self.methods))
        return f"Results({len(self.clips)} scored; {self.metrics[at]} at the first moment: {figures}; see to_dict())"

    @property
    def mean(self) -> Array:
        """Means over clips, [method, moment, metric]. All clips count equally, whatever their length."""
        return np.mean([clip.values for clip in self.clips], axis=0)  # type: ignore[no-any-return]

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) of all comparisons; None if they differ from clip to clip."""
        sizes = {clip.size for clip in self.clips}
        return sizes.pop() if len(sizes) == 1 else None

    def of(self, values: Array, method: str, metric: str) -> list[float]:
        """Return a figure at each moment, from :attr:`mean` or a clip's values."""
        return [float(v) for v in values[self.methods.index(method), :, self.metrics.index(metric)]]

    def worst(self, method: str, index: int) -> tuple[ClipResult, float]:
        """Return the clip with a method's smallest gain over copying at a moment, and that gain in dB."""
        gains = [self.of(c.values, method, "psnr")[index] - self.of(c.values, COPY, "psnr")[index] for c in self.clips]
        worst = int(np.argmin(gains))
        return self.clips[worst], gains[worst]

    def cpu_ms(self, method: str) -> list[float] | None:
        """CPU milliseconds of a step and one picture, at each moment: the mean over clips. None if not measured."""
        return _mean([None if clip.cpu_ms is None else clip.cpu_ms[self.methods.index(method)] for clip in self.clips])

    def copied(self, method: str) -> float | None:
        """The fraction of a method's pictures that were replaced by a copy of the last frame. None for sequences."""
        row = self.methods.index(method)
        pictures = sum(clip.pictures[row] for clip in self.clips if clip.pictures)
        return sum(clip.copied[row] for clip in self.clips if clip.copied) / pictures if pictures else None

    def cpu_to_dis(self, method: str) -> list[float] | None:
        """Like :meth:`cpu_ms`, divided by DIS flow's: the mean over clips. None if either was not measured."""
        if DIS not in self.methods:
            return None
        row, dis = self.methods.index(method), self.methods.index(DIS)
        return _mean([None if clip.cpu_ms is None else clip.cpu_ms[row] / clip.cpu_ms[dis] for clip in self.clips])

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of ``framecast eval --json``. Lists with a figure per moment have the order of ``ahead``.

        ==============  ===============================================================================================
        ``kind``        ``clips`` or ``sequences``
        ``ahead``       ``asked``: the requested moments; ``in``: their unit, ``frames`` or ``ms``
        ``horizon``     the furthest moment in frames; null if the moments are in milliseconds
        ``given``       number of frames given from the start of each sequence; null for clips
        ``size``        [width, height] of all comparisons, or null if it differs from clip to clip; ``channels``
        ``models``      for each model: ``name`` (as in ``methods``), ``given`` (the user's name for it), ``config``,
                        ``weights`` (their training data, or ``random``), ``weights_sha256``, ``licence``, ``engine``,
                        ``resets`` (number of predictions that were not finite), and ``copied`` (fraction of its
                        pictures that were replaced by a copy of the last frame; null for sequences)
        ``methods``     names, rivals first
        ``metrics``     the meaning of each metric, by name
        ``clips``       for each clip: ``name``, ``source``, ``size``, ``frames``, ``scored`` (number of frames, by
                        moment), ``methods``: a list of means over those frames, by method and metric; ``ahead_ms``:
                        how far ahead each moment was scored, and ``cpu_ms`` by method (both null for sequences);
                        ``sha256`` of the sequences' bytes, one sequence after another (null for clips)
        ``mean``        means over all clips, which count equally, by method and metric
        ``overall``     the mean of ``mean`` over all moments, as papers report it for sequences: one figure by
                        method and metric
        ``worst``       by method and moment: ``clip`` and ``gain_db``, its PSNR minus copying's
        ``cost``        by method: ``cpu_ms`` of a step and one picture at a moment, on all threads, and ``to_dis``,
                        its ratio to DIS flow's at the same size in the same run; null for sequences
        ``skipped``     ``source`` and ``reason`` of each clip that could not be scored
        ``lpips``       why LPIPS is missing, or null
        ``versions``    versions of everything that a figure depends on, and the machine
        ==============  ===============================================================================================
        """
        first = self.contenders[0]
        return {
            "kind": "clips" if self.given is None else "sequences",
            "ahead": {"in": self.ahead.unit, "asked": list(self.ahead.asked)},
            "horizon": None if self.ahead.in_ms else int(self.ahead.asked[-1]),
            "given": self.given,
            "size": None if self.size is None else list(self.size),
            "channels": first.manifest.frame[0],
            "models": [{**_model(contender), "copied": self.copied(contender.name)} for contender in self.contenders],
            "methods": list(self.methods),
            "metrics": {name: METRICS[name].meaning for name in self.metrics},
            "clips": [_clip(self, clip) for clip in self.clips],
            "mean": _by_method(self, self.mean),
            "overall": {
                method: {metric: float(np.mean(figures)) for metric, figures in metrics.items()}
                for method, metrics in _by_method(self, self.mean).items()
            },
            "worst": {
                method: [
                    {"clip": clip.name, "gain_db": gain}
                    for clip, gain in (self.worst(method, index) for index in range(len(self.ahead)))
                ]
                for method in self.methods
                if method != COPY
            },
            "cost": None
            if self.given is not None
            else {
                method: {"cpu_ms": self.cpu_ms(method), "to_dis": self.cpu_to_dis(method)} for method in self.methods
            },
            "skipped": [{"source": source, "reason": reason} for source, reason in self.skipped],
            "lpips": self.lpips,
            "versions": versions(first.engine.name, first.engine.version),
        }


class Tally:
    """Adds up a clip's figures. Every method is scored on the same frames.

    Args:
        methods: names of the methods; copying must be one of them.
        moments: number of moments ahead.
        judge: computes LPIPS; None without LPIPS.
    """

    def __init__(self, methods: Sequence[str], moments: int, judge: Judge | None) -> None:
        self._copy = methods.index(COPY)
        self._judge = judge
        self._metrics = metrics_with(judge)
        self._sums = np.zeros((len(methods), moments, len(self._metrics)))
        self.scored = [0] * moments

    def add(self, index: int, truth: Truth, predictions: Sequence[NDArray[Any]]) -> None:
        """Score each method's prediction of a frame, at one of the moments ahead."""
        judged = [math.nan] * len(predictions) if self._judge is None else self._judge(truth.image, predictions)
        copied = truth.compare(predictions[self._copy], lpips=judged[self._copy])
        compared = [
            copied if method == self._copy else truth.compare(prediction, copied=copied, lpips=lpips)
            for method, (prediction, lpips) in enumerate(zip(predictions, judged, strict=True))
        ]
        self._sums[:, index] += [[METRICS[name].measure(one) for name in self._metrics] for one in compared]
        self.scored[index] += 1

    def means(self) -> Array:
        """Return the means, [method, moment, metric]. Every moment needs a score."""
        return self._sums / np.array(self.scored)[:, None]  # type: ignore[no-any-return]


def metrics_with(judge: Judge | None) -> tuple[str, ...]:
    """Return the names of the available metrics: all of them, but LPIPS only with a judge."""
    return tuple(name for name in METRICS if name != LPIPS or judge is not None)


def _by_method(results: Results, values: Array) -> dict[str, dict[str, list[float]]]:
    return {
        method: {metric: results.of(values, method, metric) for metric in results.metrics} for method in results.methods
    }


def _mean(rows: Sequence[Array | None]) -> list[float] | None:
    known = [row for row in rows if row is not None]
    return [float(v) for v in np.mean(known, axis=0)] if known else None


def _clip(results: Results, clip: ClipResult) -> dict[str, Any]:
    return {
        "name": clip.name,
        "source": clip.source,
        "size": list(clip.size),
        "frames": clip.frames,
        "scored": list(clip.scored),
        "sha256": None if clip.origin is None else clip.origin[1],
        "ahead_ms": None if clip.ahead_ms is None else list(clip.ahead_ms),
        "cpu_ms": None
        if clip.cpu_ms is None
        else {method: row.tolist() for method, row in zip(results.methods, clip.cpu_ms, strict=True)},
        "methods": _by_method(results, clip.values),
    }


def _model(contender: Contender) -> dict[str, Any]:
    manifest = contender.manifest
    return {
        "name": contender.name,
        "given": contender.given,
        "config": manifest.config,
        "weights": manifest.weights,
        "weights_sha256": manifest.weights_sha256,
        "licence": manifest.licence,
        "engine": contender.engine.name,
        "resets": contender.resets,
    }
