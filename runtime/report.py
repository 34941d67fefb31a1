"""The report of a run: the figures for its status line, its page and its JSON file."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Mapping
from typing import TypedDict

import numpy as np

from framecast import camera
from framecast.camera import Source, Times
from framecast.runtime.caveats import faulty, lacking, out, trusted, warnings
from framecast.runtime.engines import Engine
from framecast.runtime.lookahead import Lookahead
from framecast.runtime.score import Score
from framecast.runtime.sinks.sink import Output
from framecast.runtime.telemetry import Histogram, Snapshot

FAULTS = ("damaged", "times_mended", "reconnects", "concealed")
"""Events that are counted by the source, and in its place."""


class Latency(TypedDict):
    """Latency in milliseconds over the last ``n`` predictions: all, or at least the last 10,000. Null if ``n`` is 0.

    Percentiles are within 0.25 %, because durations are counted in buckets.
    """

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None
    n: int


class Psnr(TypedDict):
    """Mean PSNR in dB over ``n`` scored predictions, and of copying the last frame instead. Null if ``n`` is 0."""

    prediction: float | None
    copy_last: float | None
    n: int


class RunPsnr(Psnr):
    """The score of a run.

    Attributes:
        trusted: whether enough predictions are scored to report a gain: at least 50, and 20 % of all.
        dis: all three scores over the predictions for which DIS flow was computed; null if there are none.
    """

    trusted: bool
    dis: DisPsnr | None


class DisPsnr(Psnr):
    """Mean PSNR over the predictions for which DIS flow was computed: ours, copying's and DIS flow's."""

    dis_flow: float


class AheadPsnr(Psnr):
    """Mean PSNR of the predictions that looked ``ahead_ms`` milliseconds ahead."""

    ahead_ms: float


class Sharpness(TypedDict):
    """Mean gradient energy divided by that of the real frames: 1 is equally sharp, less is softer."""

    prediction: float
    copy_last: float


class Now(TypedDict):
    """How close to the present the last ``n`` pictures were, in milliseconds.

    The figures assume that ``camera_delay`` is right. They cannot reveal an error in it.

    Attributes:
        late: median age of the camera's newest picture when its prediction is seen.
        error: median of the moment shown minus the true one.
        spread: 95th percentile of the absolute difference.
        arrivals: 95th percentile of how much earlier or later a frame arrived than its time without jitter.
    """

    late: float
    error: float
    spread: float
    arrivals: float
    n: int


class Outages(TypedDict):
    """When a camera was out: from each loss, as it was noticed, to the next frame, and before its first one.

    Attributes:
        count: how often; the one that goes on counts as well.
        total_s: seconds in all.
        longest_s: seconds of the longest one.
    """

    count: int
    total_s: float
    longest_s: float


class Report(TypedDict):
    """The JSON of ``framecast run --json``. The page polls it during a run.

    Attributes:
        source: the source's name, without credentials.
        source_notes: what was done to the source's pictures and times, one line each.
        times: where a frame's time comes from: ``capture`` (the driver's stamp), ``arrival`` (its grab) or ``file``.
        model: the configuration's name.
        weights: their training data, or ``random``.
        engine: the engine that ran the step.
        precision: of the arithmetic: the artifact's, or the one that the engine was opened with.
        ahead_ms: median of the last lookaheads in milliseconds; null before the first frame.
        interval_ms: the camera's own interval, whether or not all frames are taken; null while it is not known.
        frames: the number of predicted frames.
        dropped: frames of a camera, or of a file at its own pace, that came while the model was busy.
        epochs: the number of streams begun. A clip's restart or a new frame size begins one.
        resets: how often a non-finite prediction reset the state.
        fps: predictions a second of wall time.
        silent_s: seconds since the newest frame, if none has come for a while.
        trouble: why no frames come, while a lost camera is opened again, or why a model server does not answer; null if
            all is well.
        attempts: how often it was tried to open a lost camera again.
        outages: how long the camera was out.
        latency_ms: from a frame's time (``times``) to its finished prediction. For a file at full speed, from when the
            predictor takes the frame.
        psnr_db: of all scored predictions.
        psnr_db_by_ahead: the same for each lookahead.
        sharpness: of the predictions, and of copying; null if unknown.
        now: how close to the present the pictures are; null without ``now``.
        events: ``repeats``: frames that repeat the one before; ``cuts`` to another scene; ``gaps`` in time; ``copied``:
            predictions replaced by a copy of the newest frame, because copying has lately been better; ``damaged``:
            pictures that could not be decoded; ``times_mended``: times that repeated or ran back; ``reconnects`` after
            the camera was lost; ``concealed``: predictions in the place of frames that were late or lost. With a model
            server: ``unanswered`` frames, and ``states_lost`` with the server or the connection.
        outputs: where the pictures went: one for each ``record`` and ``out``.
        warnings: problems with the run or its figures, one line each.
        ended: null while running, then ``end of source``, ``max frames``, ``interrupted`` or ``error: …``.
        versions: of everything that affects the figures.
        started: when the run started, in UTC (ISO 8601).
        host: the machine's name.
    """

    source: str
    source_notes: list[str]
    times: Times
    model: str
    weights: str
    engine: str
    precision: str
    ahead_ms: float | None
    interval_ms: float | None
    frames: int
    dropped: int
    epochs: int
    resets: int
    fps: float | None
    silent_s: float
    trouble: str | None
    attempts: int
    outages: Outages
    latency_ms: Latency
    psnr_db: RunPsnr
    psnr_db_by_ahead: list[AheadPsnr]
    sharpness: Sharpness | None
    now: Now | None
    events: dict[str, int]
    outputs: list[Output]
    warnings: list[str]
    ended: str | None
    versions: dict[str, str]
    started: str
    host: str


def report(
    snapshot: Snapshot,
    source: Source,
    faults: Mapping[str, int],
    engine: Engine,
    lookahead: Lookahead,
    outputs: Iterable[Output] = (),
) -> Report:
    """Make the report of a run.

    Args:
        snapshot: of the run's telemetry.
        source: the frames' source.
        faults: what was wrong with the source's frames; see :attr:`framecast.Source.faults`.
        engine: runs the step.
        lookahead: the lookahead that was asked for.
        outputs: where the pictures went.
    """
    seconds, shown, outputs = snapshot.seconds, snapshot.shown, list(outputs)
    return {
        "source": source.name,
        "source_notes": list(source.notes),
        "times": source.times,
        "model": engine.manifest.config,
        "weights": engine.manifest.weights,
        "engine": engine.name,
        "precision": _precision(engine),
        "ahead_ms": None if snapshot.ahead is None else round(1e3 * snapshot.ahead, 1),
        "interval_ms": None if snapshot.interval is None else round(1e3 * snapshot.interval, 2),
        "frames": snapshot.frames,
        "dropped": snapshot.dropped,
        "epochs": snapshot.epochs,
        "resets": snapshot.resets,
        "fps": round(snapshot.frames / seconds, 2) if seconds else None,
        "silent_s": round(snapshot.silent, 1),
        "trouble": source.trouble or engine.trouble,
        "attempts": source.attempts,
        "outages": outages(source.outages),
        "latency_ms": _latency(snapshot.latency),
        "psnr_db": {**_psnr(snapshot.score), "trusted": trusted(snapshot), "dis": _dis(snapshot.rival)},
        "psnr_db_by_ahead": [
            {"ahead_ms": round(ahead, 1), **_psnr(score)} for ahead, score in sorted(snapshot.scores.items())
        ],
        "sharpness": None
        if snapshot.sharpness is None
        else {"prediction": round(snapshot.sharpness[0], 3), "copy_last": round(snapshot.sharpness[1], 3)},
        "now": None
        if shown is None
        else {
            "late": round(1e3 * shown.late, 1),
            "error": round(1e3 * shown.error, 1),
            "spread": round(1e3 * shown.spread, 1),
            "arrivals": round(1e3 * shown.arrivals, 1),
            "n": shown.n,
        },
        "events": dict.fromkeys(FAULTS, 0) | dict(snapshot.events) | dict(faults),
        "outputs": outputs,
        "warnings": [
            *out(source.trouble, engine.trouble),
            *warnings(snapshot, lookahead),
            *faulty(faults),
            *lacking(outputs),
        ],
        "ended": snapshot.ended,
        "versions": versions(engine.name, engine.version),
        "started": f"{snapshot.started:%Y-%m-%dT%H:%M:%SZ}",
        "host": platform.node(),
    }


def outages(out: camera.Outages) -> Outages:
    """The outages of a camera for the report."""
    return {"count": out.count, "total_s": round(out.total, 3), "longest_s": round(out.longest, 3)}


def _dis(score: Score) -> DisPsnr | None:
    rival = score.rival
    return None if rival is None else {**_psnr(score), "dis_flow": round(rival, 3)}


def _latency(histogram: Histogram) -> Latency:
    if not histogram.n:
        return {"p50": None, "p90": None, "p99": None, "max": None, "n": 0}
    p50, p90, p99 = (round(histogram.percentile(p), 3) for p in (50, 90, 99))
    return {"p50": p50, "p90": p90, "p99": p99, "max": round(histogram.max, 3), "n": histogram.n}


def _psnr(score: Score) -> Psnr:
    predicted, copied = score.prediction, score.copy_last
    if predicted is None or copied is None:
        return {"prediction": None, "copy_last": None, "n": 0}
    return {"prediction": round(predicted, 3), "copy_last": round(copied, 3), "n": score.n}


def _precision(engine: Engine) -> str:
    """The precision of the arithmetic. An int8 artifact is always int8; a float32 one may run in a lower precision."""
    of_artifact, opened = engine.manifest.precision, engine.precision or "fp32"
    return " and ".join(dict.fromkeys(p for p in (of_artifact, opened) if p != "fp32")) or "fp32"


def versions(engine: str, engine_version: str) -> dict[str, str]:
    """The versions of everything that affects the figures."""
    import cv2

    from framecast import __version__

    return {
        "framecast": __version__,
        engine: engine_version,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def to_json(value: object, indent: int | None = None) -> str:
    """JSON, with null for NaN and Infinity."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
