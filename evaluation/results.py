"""The results of an evaluation: figures by method, by steps ahead and by clip, and their JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.evaluation.metrics import LPIPS, METRICS, Array, Truth
from framecast.evaluation.perceptual import Judge
from framecast.evaluation.rivals import CopyLast
from framecast.runtime.predictor import Predictor
from framecast.runtime.report import versions

COPY = CopyLast.name
Advance = Callable[[str, int, int], None]  # receives the current activity, and the clips or sequences done and in all


@dataclass(frozen=True, eq=False)
class Contender:
    """A model to evaluate.

    Attributes:
        name: name in tables and reports.
        given: the name that the user gave.
        predictor: runs the model.
    """

    name: str
    given: str
    predictor: Predictor

    @property
    def title(self) -> str:
        """The name, with a note if the weights are random."""
        return self.name if self.predictor.manifest.trained else f"{self.name} (random weights)"


@dataclass(frozen=True, eq=False)
class Strip:
    """Pictures of one moment, uint8 [h, w, C].

    Attributes:
        last: the newest frame that the methods saw.
        steps: how many steps ahead each picture is.
        truths: the ground truth, one picture per step.
        predictions: one row per method, in the order of the methods, with one picture per step.
        psnr: PSNR of the predictions, in dB.
    """

    last: Image
    steps: tuple[int, ...]
    truths: tuple[Image, ...]
    predictions: tuple[tuple[Image, ...], ...]
    psnr: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, eq=False)
class ClipResult:
    """One clip, or one file of sequences.

    Attributes:
        name: short name for tables.
        source: name of the source, without credentials.
        frames: number of frames read; for a file of sequences, the number of sequences.
        scored: number of scored frames, by steps ahead.
        values: means over the scored frames, [method, step, metric].
        strip: pictures of one moment.
    """

    name: str
    source: str
    frames: int
    scored: tuple[int, ...]
    values: Array
    strip: Strip


@dataclass(frozen=True, eq=False)
class Results:
    """All results of an evaluation. The axes of all arrays are ``methods``, steps ahead and ``metrics``.

    Attributes:
        given: number of frames given from the start of each sequence; None for clips.
        skipped: source and reason of each clip that could not be scored.
        lpips: why LPIPS is missing; None if it is not missing.
    """

    contenders: tuple[Contender, ...]
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    horizon: int
    given: int | None
    clips: tuple[ClipResult, ...]
    skipped: tuple[tuple[str, str], ...]
    lpips: str | None

    @property
    def mean(self) -> Array:
        """Means over clips, [method, step, metric]. All clips count equally, whatever their length."""
        return np.mean([clip.values for clip in self.clips], axis=0)  # type: ignore[no-any-return]

    def of(self, values: Array, method: str, metric: str) -> list[float]:
        """Return a figure at each step ahead, from :attr:`mean` or a clip's values."""
        return [float(v) for v in values[self.methods.index(method), :, self.metrics.index(metric)]]

    def worst(self, method: str, step: int) -> tuple[ClipResult, float]:
        """Return the clip with a method's smallest gain over copying ``step`` steps ahead, and that gain in dB."""
        gains = [
            self.of(c.values, method, "psnr")[step - 1] - self.of(c.values, COPY, "psnr")[step - 1] for c in self.clips
        ]
        worst = int(np.argmin(gains))
        return self.clips[worst], gains[worst]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of ``framecast eval --json``. Lists with a figure per step ahead start at step 1.

        ==============  ===============================================================================================
        ``kind``        ``clips`` or ``sequences``
        ``horizon``     steps ahead; for sequences, all frames after the ``given`` ones (``given`` is null for clips)
        ``size``        [width, height] of all comparisons; ``channels``
        ``models``      for each model: ``name`` (as in ``methods``), ``given`` (the user's name for it), ``config``,
                        ``weights`` (their training data, or ``random``), ``weights_sha256``, ``licence``, ``engine``,
                        and ``resets`` (number of predictions that were not finite)
        ``methods``     names, rivals first
        ``metrics``     the meaning of each metric, by name
        ``clips``       for each clip: ``name``, ``source``, ``frames``, ``scored`` (number of frames, by steps ahead),
                        and ``methods``: a list of means over those frames, by method and metric
        ``mean``        the same over all clips, which count equally
        ``overall``     the mean of ``mean`` over all steps ahead, as papers report it for sequences: one figure by
                        method and metric
        ``worst``       by method and step ahead: ``clip`` and ``gain_db``, its PSNR minus copying's
        ``skipped``     ``source`` and ``reason`` of each clip that could not be scored
        ``lpips``       why LPIPS is missing, or null
        ``versions``    versions of everything that a figure depends on, and the machine
        ==============  ===============================================================================================
        """
        first = self.contenders[0].predictor
        return {
            "kind": "clips" if self.given is None else "sequences",
            "horizon": self.horizon,
            "given": self.given,
            "size": list(first.manifest.size),
            "channels": first.manifest.frame[0],
            "models": [_model(contender) for contender in self.contenders],
            "methods": list(self.methods),
            "metrics": {name: METRICS[name].meaning for name in self.metrics},
            "clips": [
                {
                    "name": clip.name,
                    "source": clip.source,
                    "frames": clip.frames,
                    "scored": list(clip.scored),
                    "methods": _by_method(self, clip.values),
                }
                for clip in self.clips
            ],
            "mean": _by_method(self, self.mean),
            "overall": {
                method: {metric: float(np.mean(steps)) for metric, steps in metrics.items()}
                for method, metrics in _by_method(self, self.mean).items()
            },
            "worst": {
                method: [
                    {"clip": clip.name, "gain_db": gain}
                    for clip, gain in (self.worst(method, step) for step in range(1, self.horizon + 1))
                ]
                for method in self.methods
                if method != COPY
            },
            "skipped": [{"source": source, "reason": reason} for source, reason in self.skipped],
            "lpips": self.lpips,
            "versions": versions(first.engine.name, first.engine.version),
        }


class Tally:
    """Adds up a clip's figures. Every method is scored on the same frames.

    Args:
        methods: names of the methods; copying must be one of them.
        horizon: number of steps ahead.
        judge: computes LPIPS; None without LPIPS.
    """

    def __init__(self, methods: Sequence[str], horizon: int, judge: Judge | None) -> None:
        self._copy = methods.index(COPY)
        self._judge = judge
        self._metrics = metrics_with(judge)
        self._sums = np.zeros((len(methods), horizon, len(self._metrics)))
        self.scored = [0] * horizon

    def add(self, step: int, truth: Truth, predictions: Sequence[NDArray[Any]]) -> None:
        """Score each method's prediction of a frame, made ``step`` steps ahead."""
        judged = [math.nan] * len(predictions) if self._judge is None else self._judge(truth.image, predictions)
        copied = truth.compare(predictions[self._copy], lpips=judged[self._copy])
        compared = [
            copied if method == self._copy else truth.compare(prediction, copied=copied, lpips=lpips)
            for method, (prediction, lpips) in enumerate(zip(predictions, judged, strict=True))
        ]
        self._sums[:, step - 1] += [[METRICS[name].measure(one) for name in self._metrics] for one in compared]
        self.scored[step - 1] += 1

    def means(self) -> Array:
        """Return the means, [method, step, metric]. Every step needs a score."""
        return self._sums / np.array(self.scored)[:, None]  # type: ignore[no-any-return]


def metrics_with(judge: Judge | None) -> tuple[str, ...]:
    """Return the names of the available metrics: all of them, but LPIPS only with a judge."""
    return tuple(name for name in METRICS if name != LPIPS or judge is not None)


def _by_method(results: Results, values: Array) -> dict[str, dict[str, list[float]]]:
    return {
        method: {metric: results.of(values, method, metric) for metric in results.metrics} for method in results.methods
    }


def _model(contender: Contender) -> dict[str, Any]:
    manifest = contender.predictor.manifest
    return {
        "name": contender.name,
        "given": contender.given,
        "config": manifest.config,
        "weights": manifest.weights,
        "weights_sha256": manifest.weights_sha256,
        "licence": manifest.licence,
        "engine": contender.predictor.engine.name,
        "resets": contender.predictor.resets,
    }
