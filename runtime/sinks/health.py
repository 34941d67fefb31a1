"""How a run is, for those who watch over it: whether it still predicts, and its figures for Prometheus."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from framecast.clock import SYSTEM

PATIENCE = 3.0  # seconds without a new prediction after which a run is not ready
INTERVALS = 5  # the same in intervals of the camera; the longer of both counts


def since_boot() -> float:
    """Seconds since the machine was started. It counts those in which the machine was suspended."""
    return SYSTEM.now() + SYSTEM.slept()


class Pulse:
    """Knows when the newest frame was predicted. It has a clock of its own, so it also sees a loop that hangs.

    Args:
        clock: seconds that never run backwards.
    """

    def __init__(self, clock: Callable[[], float] = since_boot) -> None:
        self._clock = clock
        self._newest: float | None = None

    def beat(self) -> None:
        """Note that a new frame was predicted. May be called from any thread."""
        self._newest = self._clock()

    @property
    def age(self) -> float | None:
        """Seconds since the newest frame was predicted; None before the first."""
        newest = self._newest
        return None if newest is None else max(0.0, self._clock() - newest)

    def failing(self, figures: Mapping[str, Any]) -> str | None:
        """Why the run is not ready, in words; None if it is.

        Args:
            figures: the run's report; ``interval_ms`` is the camera's interval.
        """
        age = self.age
        if age is None:
            return "no prediction yet"
        if age > max(PATIENCE, INTERVALS * 1e-3 * (figures.get("interval_ms") or 0.0)):
            return f"no new prediction for {age:.1f} s"
        return None


def exposition(figures: Mapping[str, Any], pulse: Pulse, viewers: int, accept: str) -> tuple[bytes, str]:
    """The figures for Prometheus, and their content type.

    Names follow https://prometheus.io/docs/practices/naming: base units, and ``_total`` for counters.

    Args:
        figures: the run's report.
        pulse: of the run.
        viewers: the number of open pages.
        accept: the request's ``Accept``; it chooses between Prometheus' text format and OpenMetrics.
    """
    registry = CollectorRegistry()
    registry.register(_Figures(figures, pulse, viewers))
    ProcessCollector(registry=registry)  # memory, descriptors, CPU time, start
    encode, kind = choose_encoder(accept)
    return encode(registry), kind


class _Figures(Collector):
    def __init__(self, figures: Mapping[str, Any], pulse: Pulse, viewers: int) -> None:
        self._figures, self._pulse, self._viewers = figures, pulse, viewers

    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        names = ("source", "model", "weights", "engine", "precision", "host")
        known = {name: str(figures[name]) for name in names if name in figures}
        version = str(figures.get("versions", {}).get("framecast", ""))
        yield InfoMetricFamily("framecast", "What runs.", known | {"version": version})
        ready = GaugeMetricFamily("framecast_ready", "1 if a new frame has been predicted lately, as /ready says.")
        ready.add_metric([], float(self._pulse.failing(figures) is None))
        yield ready
        age = GaugeMetricFamily(
            "framecast_frame_age_seconds", "Time since the newest frame was predicted.", unit="seconds"
        )
        if (seconds := self._pulse.age) is not None:
            age.add_metric([], seconds)
        yield age
        counts = dict(figures.get("events", {}))
        for key, name, text in _COUNTS:
            if (count := counts.pop(key, figures.get(key))) is not None:
                yield CounterMetricFamily(f"framecast_{name}", text, count)
        events = CounterMetricFamily("framecast_events", "What happened in the stream.", labels=["kind"])
        for kind, count in counts.items():
            events.add_metric([kind], count)
        yield events
        yield _latency(figures)
        yield from _score(figures.get("psnr_db", {}))
        yield GaugeMetricFamily("framecast_viewers", "Open pages.", self._viewers)


_COUNTS = (
    ("frames", "frames", "Frames predicted."),
    ("dropped", "dropped_frames", "Frames that came while the model was busy."),
    ("epochs", "epochs", "Streams begun."),
    ("resets", "resets", "Resets of the state after a prediction that was not finite."),
    ("reconnects", "reconnects", "Reconnections to the camera."),
)


def _latency(figures: Mapping[str, Any]) -> Metric:
    text = "From a frame's time to its prediction; the quantiles are of the last 10,000 to 20,000 predictions."
    latency = SummaryMetricFamily("framecast_latency_seconds", text, unit="seconds")
    figure = figures.get("latency_ms", {})
    for key, quantile in (("p50", "0.5"), ("p90", "0.9"), ("p99", "0.99"), ("max", "1")):
        if _known(figure.get(key)):
            latency.add_sample("framecast_latency_seconds", {"quantile": quantile}, 1e-3 * figure[key])
    latency.add_sample("framecast_latency_seconds_count", {}, figures.get("frames", 0))
    return latency


def _score(score: Mapping[str, Any]) -> Iterator[Metric]:
    psnr = GaugeMetricFamily("framecast_psnr_decibels", "Mean PSNR of all scored frames.", labels=["of"])
    for key in ("prediction", "copy_last"):
        if _known(score.get(key)):
            psnr.add_metric([key], score[key])
    yield psnr
    if "n" in score:
        yield CounterMetricFamily("framecast_scored_frames", "Frames whose prediction was scored.", score["n"])


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
