"""What a run says of itself: the figures of its status line, its page and its JSON report."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray


class Latency(TypedDict):
    """Milliseconds over the last ``n`` predictions, 10,000 at least if there were as many; null where there is none."""

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None
    n: int


class Psnr(TypedDict):
    """Mean PSNR in dB over ``n`` scored predictions, and of copying the last frame over the same; null where none."""

    prediction: float | None
    copy_last: float | None
    n: int


class HorizonPsnr(Psnr):
    """The same for predictions ``k`` steps ahead."""

    k: int


class Report(TypedDict):
    """The JSON of ``framecast run --report``, and what a page polls while the run goes on.

    Attributes:
        source: what was watched, without credentials.
        model: the configuration's name.
        weights: what they were trained on, or ``random``.
        engine: what ran the step.
        precision: in which it computed: the artifact's, or what the engine was opened for.
        horizon: how many steps ahead was predicted.
        ahead_ms: how far that is, in milliseconds.
        frames: how many were predicted.
        dropped: frames of a camera that came while the model was busy.
        epochs: streams begun (a clip that starts over and a new frame size begin one).
        resets: predictions that were not finite, and made the state start anew.
        fps: predictions a second of wall time.
        latency_ms: from the grab of a frame to its finished prediction; for a file that is read at full speed, from
            when its turn came.
        psnr_db: at ``horizon``.
        psnr_db_by_horizon: at each step up to it.
        ended: null while running, then ``end of source``, ``max frames``, ``interrupted`` or ``error: …``.
        versions: of everything that a figure depends on.
    """

    source: str
    model: str
    weights: str
    engine: str
    precision: str
    horizon: int
    ahead_ms: float
    frames: int
    dropped: int
    epochs: int
    resets: int
    fps: float | None
    latency_ms: Latency
    psnr_db: Psnr
    psnr_db_by_horizon: list[HorizonPsnr]
    ended: str | None
    versions: dict[str, str]


def latency(milliseconds: NDArray[np.float64]) -> Latency:
    """Percentiles of latencies."""
    if not len(milliseconds):
        return {"p50": None, "p90": None, "p99": None, "max": None, "n": 0}
    p50, p90, p99 = (round(float(v), 3) for v in np.percentile(milliseconds, [50, 90, 99]))
    return {"p50": p50, "p90": p90, "p99": p99, "max": round(float(milliseconds.max()), 3), "n": len(milliseconds)}


def versions(engine: str, engine_version: str) -> dict[str, str]:
    """Of everything that a figure depends on."""
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
    """JSON, with null for what it cannot say: NaN and Infinity."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
