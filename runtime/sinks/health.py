"""How a run is, for those who watch over it: whether it still predicts, and its figures for Prometheus."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from framecast.clock import SYSTEM
from framecast.runtime.sinks.sink import Result

PATIENCE = 3.0  # seconds without a new prediction after which a run is not ready
INTERVALS = 5  # the same in intervals of the camera; the longer of both counts
# Upper edges of the latency's buckets, 1 ms to 10 s: a fast step to a stalled machine. Six a decade, because a quantile
# that Prometheus computes may be wrong by a bucket's width: here by no more than two thirds of it. More would cost each
# camera as many time series.
BUCKETS = (
    *(0.001, 0.0015, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0),
)


def since_boot() -> float:
    """Seconds since the machine was started. It counts those in which the machine was suspended."""
    return SYSTEM.now() + SYSTEM.slept()


class Pulse:
    """Knows when the newest frame was predicted, and counts how long predictions took and how good they were.

    It has a clock of its own, so it also sees a loop that hangs. Only the loop's thread calls :meth:`see`, and waits
    for nobody there. Any thread may read.

    Args:
        clock: seconds that never run backwards.
        wall: seconds since 1970.

    Attributes:
        time: of the newest frame, in seconds since 1970 by the machine's clock; None before the first.
        latencies: the number of predictions in each bucket of ``BUCKETS``, and of longer ones.
        latency: the sum of all latencies in seconds.
        scored: the number of frames whose prediction was scored.
        psnr: the sum of their predictions' PSNR in dB.
        psnr_copy: the same of copying.
    """

    def __init__(self, clock: Callable[[], float] = since_boot, wall: Callable[[], float] = time.time) -> None:
        self._clock, self._wall = clock, wall
        self._newest: float | None = None
        self._changed = 0.0  # when the newest picture that differs from the one before was predicted
        self._lost, self._out = False, -math.inf  # whether the camera was out when last asked; when that was first seen
        self.time: float | None = None
        self.latencies = [0] * (len(BUCKETS) + 1)
        self.latency = 0.0
        self.scored = 0
        self.psnr = self.psnr_copy = 0.0

    def see(self, result: Result) -> None:
        """Take note of a result. Only a new frame counts: no later moment of an old one, and none that was missing."""
        if not result.new:
            return
        latency, now = result.stamps.latency, self._clock()
        self.time = self._wall() - latency
        self.latencies[bisect_left(BUCKETS, latency)] += 1
        self.latency += latency
        if not result.repeated:
            self._changed = now
        if result.psnr is not None and result.psnr_copy is not None:
            self.psnr += result.psnr
            self.psnr_copy += result.psnr_copy
            self.scored += 1
        self._newest = now

    @property
    def age(self) -> float | None:
        """Seconds since the newest frame was predicted; None before the first."""
        newest = self._newest
        return None if newest is None else max(0.0, self._clock() - newest)

    @property
    def staleness(self) -> float | None:
        """Seconds since the picture last changed: longer than the age if frames repeat. None before the first."""
        return None if self._newest is None else max(0.0, self._clock() - self._changed)

    def failing(self, figures: Mapping[str, Any]) -> str | None:
        """Why the camera is not ready, in words without names and addresses; None if it is, or if it has ended well.

        After an outage a run is ready again with its first new prediction, not with its first frame.

        Args:
            figures: the run's report; ``interval_ms`` is the camera's interval, ``trouble`` says that the
                camera or a model server is out.
        """
        if (ended := figures.get("ended")) is not None:
            return "the camera has failed" if ended.startswith("error") else None
        before, self._lost = self._lost, bool(figures.get("trouble"))
        if self._lost:
            self._out = self._out if before else self._clock()
            return "the camera or the model server is out: trying again"
        age = self.age
        if age is None:
            return "no prediction yet"
        if self._clock() - age < self._out:
            return "no prediction since the camera was out"
        if age > max(PATIENCE, INTERVALS * 1e-3 * (figures.get("interval_ms") or 0.0)):
            return f"no new prediction for {age:.1f} s"
        return None


Cameras = Mapping[str, tuple[Mapping[str, Any], Pulse]]  # each camera's report and pulse, by its name


def readiness(cameras: Cameras) -> dict[str, object]:
    """What /ready answers: whether all cameras predict, and which do not, and why.

    Args:
        cameras: of the run.
    """
    failing = {name: reason for name, (figures, pulse) in cameras.items() if (reason := pulse.failing(figures))}
    if not failing:
        return {"ready": True}
    if len(cameras) == 1:
        return {"ready": False, "reason": next(iter(failing.values()))}
    return {"ready": False, "reason": f"{len(failing)} of {len(cameras)} cameras not ready", "cameras": failing}


def exposition(cameras: Cameras, viewers: int, accept: str) -> tuple[bytes, str]:
    """The figures for Prometheus, and their content type.

    Names follow https://prometheus.io/docs/practices/naming: base units, and ``_total`` for counters. Every series of a
    camera has the label ``camera``, also in a run of one, so that dashboards and alarms are the same for both.

    Args:
        cameras: of the run.
        viewers: the number of open pages.
        accept: the request's ``Accept``; it chooses between Prometheus' text format and OpenMetrics.
    """
    registry = CollectorRegistry()
    registry.register(_Figures(cameras, viewers))
    ProcessCollector(registry=registry)  # memory, descriptors, CPU time, start
    encode, kind = choose_encoder(accept)
    return encode(registry), kind


class _Figures(Collector):
    def __init__(self, cameras: Cameras, viewers: int) -> None:
        self._cameras, self._viewers = cameras, viewers

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for name, (figures, pulse) in self._cameras.items():
            for family in _camera(name, figures, pulse):
                if family.name in families:
                    families[family.name].samples.extend(family.samples)
                else:
                    families[family.name] = family
        yield from families.values()
        yield GaugeMetricFamily("framecast_viewers", "Open pages.", self._viewers)


def _camera(camera: str, figures: Mapping[str, Any], pulse: Pulse) -> Iterator[Metric]:
    """The families of one camera."""
    names = ("source", "model", "weights", "engine", "precision", "host")
    known = {name: str(figures[name]) for name in names if name in figures}
    version = str(figures.get("versions", {}).get("framecast", ""))
    info = InfoMetricFamily("framecast", "What runs.", labels=["camera"])
    info.add_metric([camera], known | {"version": version})
    yield info
    ready = float(pulse.failing(figures) is None)
    for name, text, value in (
        ("ready", "1 if a new frame has been predicted lately, as /ready says.", ready),
        ("frame_age_seconds", "Time since the newest frame was predicted.", pulse.age),
        ("staleness_seconds", "Time since the picture last changed.", pulse.staleness),
        ("last_frame_timestamp_seconds", "Time of the newest frame, since 1970.", pulse.time),
    ):
        unit = "seconds" if name.endswith("seconds") else ""
        gauge = GaugeMetricFamily(f"framecast_{name}", text, labels=["camera"], unit=unit)
        if value is not None:
            gauge.add_metric([camera], value)
        yield gauge
    counts = dict(figures.get("events", {}))
    for key, name, text in _COUNTS:
        if (count := counts.pop(key, figures.get(key))) is not None:
            yield _counter(name, text, camera, count)
    events = CounterMetricFamily("framecast_events", "What happened in the stream.", labels=["camera", "kind"])
    for kind, count in counts.items():
        events.add_metric([camera, kind], count)
    yield events
    yield from _outputs(camera, figures.get("outputs", ()))
    yield _latency(camera, pulse)
    yield _score(camera, pulse)


def _counter(name: str, text: str, camera: str, count: float) -> Metric:
    counter = CounterMetricFamily(f"framecast_{name}", text, labels=["camera"])
    counter.add_metric([camera], count)
    return counter


_COUNTS = (
    ("frames", "frames", "Frames predicted."),
    ("dropped", "dropped_frames", "Frames that came while the model was busy."),
    ("epochs", "epochs", "Streams begun."),
    ("resets", "resets", "Resets of the state after a prediction that was not finite."),
    ("reconnects", "reconnects", "Reconnections to the camera."),
)


def _latency(camera: str, pulse: Pulse) -> Metric:
    counts = [*accumulate(pulse.latencies)]
    edges = [*map(str, BUCKETS), "+Inf"]
    text = "From a frame's time to its prediction."
    latency = HistogramMetricFamily("framecast_latency_seconds", text, labels=["camera"], unit="seconds")
    latency.add_metric([camera], [*zip(edges, counts, strict=True)], pulse.latency)
    return latency


def _outputs(camera: str, outputs: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    out = GaugeMetricFamily("framecast_outputs_out", "Recordings and receivers that are lost now.", labels=["camera"])
    out.add_metric([camera], sum(output["trouble"] is not None for output in outputs))
    yield out
    for key, name, text in (
        ("lost", "outputs_lost", "Times that a recording or a receiver was lost."),
        ("missed", "missed_pictures", "Pictures that recordings and receivers did not get because they were lost."),
    ):
        yield _counter(name, text, camera, sum(output[key] for output in outputs))


def _score(camera: str, pulse: Pulse) -> Metric:
    # Sums, so that a mean over any time can be had. One over months would hide a bad hour.
    score = SummaryMetricFamily(
        "framecast_psnr_decibels", "PSNR of the scored frames.", labels=["camera", "of"], unit="decibels"
    )
    for name, total in (("prediction", pulse.psnr), ("copy_last", pulse.psnr_copy)):
        score.add_metric([camera, name], pulse.scored, total)
    return score
