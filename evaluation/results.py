"""What an evaluation comes to: figures by method, by steps ahead and by clip; and their JSON."""

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
Advance = Callable[[str, int, int], None]  # told what is at work, how many clips or sequences are done, and of how many


@dataclass(frozen=True, eq=False)
class Contender:
    """A model that is evaluated.

    Attributes:
        name: in tables and reports.
        given: how the user named it.
        predictor: runs it.
    """

    name: str
    given: str
    predictor: Predictor

    @property
    def title(self) -> str:
        """The name, and what must be known to read its figures."""
        return self.name if self.predictor.manifest.trained else f"{self.name} (random weights)"


@dataclass(frozen=True, eq=False)
class Strip:
    """One moment as pictures, uint8 [h, w, C]: a row of predictions a method, in the order of the methods.

    Attributes:
        last: the newest frame that the methods saw.
        steps: how far ahead the pictures are.
        truths: what came, a picture a step.
        predictions: a row a method, a picture a step.
        psnr: of those, dB.
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
        name: short, in tables.
        source: what was opened, without credentials.
        frames: how many were read; of sequences, how many sequences.
        scored: how many frames were scored, by steps ahead.
        values: their means, [method, step, metric].
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
    """Everything that was measured; the axes of all arrays are ``methods``, steps ahead and ``metrics``.

    Attributes:
        given: frames that each sequence began with; None for clips.
        skipped: source and reason of what could not be scored.
        lpips: why there is no LPIPS, or None where there is.
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
        """[method, step, metric]: clips count alike, whatever their length."""
        return np.mean([clip.values for clip in self.clips], axis=0)  # type: ignore[no-any-return]

    def of(self, values: Array, method: str, metric: str) -> list[float]:
        """A figure at each step ahead, out of :attr:`mean` or a clip's values."""
        return [float(v) for v in values[self.methods.index(method), :, self.metrics.index(metric)]]

    def worst(self, method: str, step: int) -> tuple[ClipResult, float]:
        """The clip on which a method does worst against copying ``step`` steps ahead, and its gain there in dB."""
        gains = [
            self.of(c.values, method, "psnr")[step - 1] - self.of(c.values, COPY, "psnr")[step - 1] for c in self.clips
        ]
        worst = int(np.argmin(gains))
        return self.clips[worst], gains[worst]

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``framecast eval --json``. Lists that hold a figure for each step ahead begin at 1.

        ==============  ===============================================================================================
        ``kind``        ``clips`` or ``sequences``
        ``horizon``     steps ahead; of sequences all that are predicted, after ``given`` frames (null for clips)
        ``size``        [width, height] at which everything is compared; ``channels``
        ``models``      of each ``name`` among the methods, ``given`` (how it was named), ``config``, ``weights`` (what
                        they were trained on, or ``random``), ``weights_sha256``, ``licence``, ``engine``, and
                        ``resets`` (predictions that were not finite)
        ``methods``     names, rivals first
        ``metrics``     what each is, by name
        ``clips``       of each ``name``, ``source``, ``frames``, ``scored`` (how many frames, by steps ahead), and
                        ``methods``: by method and metric the means over those frames, a list
        ``mean``        the same over all clips, which count alike
        ``overall``     the mean of that over all steps ahead, what papers give for sequences: by method and metric a
                        figure
        ``worst``       by method, for each step ahead: ``clip`` and ``gain_db``, its PSNR less that of copying
        ``skipped``     ``source`` and ``reason`` of what could not be scored
        ``lpips``       why it is not among the metrics, or null
        ``versions``    of everything that a figure depends on, and the machine
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
    """Adds up a clip's figures; every method is scored on the same frames.

    Args:
        methods: their names, copying among them.
        horizon: how many steps ahead.
        judge: LPIPS, or None.
    """

    def __init__(self, methods: Sequence[str], horizon: int, judge: Judge | None) -> None:
        self._copy = methods.index(COPY)
        self._judge = judge
        self._metrics = metrics_with(judge)
        self._sums = np.zeros((len(methods), horizon, len(self._metrics)))
        self.scored = [0] * horizon

    def add(self, step: int, truth: Truth, predictions: Sequence[NDArray[Any]]) -> None:
        """Score what each method predicted ``step`` steps ahead for a frame."""
        judged = [math.nan] * len(predictions) if self._judge is None else self._judge(truth.image, predictions)
        copied = truth.compare(predictions[self._copy], lpips=judged[self._copy])
        compared = [
            copied if method == self._copy else truth.compare(prediction, copied=copied, lpips=lpips)
            for method, (prediction, lpips) in enumerate(zip(predictions, judged, strict=True))
        ]
        self._sums[:, step - 1] += [[METRICS[name].measure(one) for name in self._metrics] for one in compared]
        self.scored[step - 1] += 1

    def means(self) -> Array:
        """[method, step, metric]; every step must have been scored."""
        return self._sums / np.array(self.scored)[:, None]  # type: ignore[no-any-return]


def metrics_with(judge: Judge | None) -> tuple[str, ...]:
    """The names of the metrics that can be measured: all of them, but LPIPS only with a judge."""
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
