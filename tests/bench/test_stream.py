"""The streaming benchmark itself: it must report the known latencies of simulated engines in virtual time."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from framecast.bench import stream
from framecast.bench.loop import LEAD, WARM_STEPS, FrameTimes, corrected
from framecast.bench.stream import StreamResult, bench_stream
from framecast.camera import Frame, Source
from framecast.clock import SYSTEM
from framecast.errors import EngineError, OptionError, SourceError
from framecast.runtime.convert import Tensor
from framecast.runtime.engines import State
from framecast.testing import STAMPS, PacedEngine, TrendEngine, VirtualClock

CLIP = "synthetic://?size=56x40&frames=8"
PERCENTILES = (50, 90, 95, 99)
FPS, STEP, STALL, EVERY = 30, 0.010, 0.995, 600  # a stall every 20 s that does not end when a frame is due


def bench(seconds_of: Callable[[int], float], seconds: float, fps: float | None = FPS) -> StreamResult:
    clock = VirtualClock()
    with PacedEngine(clock, seconds_of) as engine:
        return bench_stream(engine, CLIP, fps=fps, seconds=seconds, percentiles=PERCENTILES, clock=clock)


def stalled() -> StreamResult:
    """40 s of 10 ms steps, two of which stall for a second."""
    lead = WARM_STEPS + int(LEAD * FPS)
    stalls = {lead + 100, lead + 100 + EVERY - 29}  # there are no steps for the 29 frames dropped in the first stall
    return bench(lambda n: STALL if n in stalls else STEP, seconds=40)


def known_stalled() -> list[float]:
    """Latencies in milliseconds of 20 s of frames, computed by hand.

    In order: the stalled frame; the 29 frames that arrive meanwhile, which all end when the last of them has been
    predicted; the frame that arrives during that prediction; all others.
    """
    covered = [STALL + STEP - k / FPS for k in range(1, 30)]
    return [1e3 * s for s in (STALL, *covered, STALL + 2 * STEP - 30 / FPS, *[STEP] * (EVERY - 31))]


def test_a_stall_shows_in_the_corrected_p99_which_the_raw_one_hides() -> None:
    loop = stalled().loop
    assert (loop.frames, loop.dropped, loop.shown) == (1200, 56, 1144)
    known = known_stalled()
    for p in PERCENTILES:
        assert loop.corrected.percentiles[p] == pytest.approx(np.percentile(known * 2, p), rel=0.02)
    assert loop.corrected.mean == pytest.approx(np.mean(known), rel=0.02)
    assert loop.corrected.max == pytest.approx(1e3 * STALL, rel=0.02)
    assert loop.corrected.percentiles[99] > 800
    # raw and age leave out frames that were never shown, so only two of their 1144 samples are bad.
    for hidden in (loop.raw, loop.age):
        assert hidden.percentiles[99] < 45
        assert hidden.max == pytest.approx(1e3 * STALL, rel=0.02)
    assert loop.raw.percentiles[99] == pytest.approx(1e3 * STEP, rel=0.02)
    assert loop.tail == pytest.approx(loop.corrected.percentiles[99] / 10, rel=0.02)


def test_the_correction_matches_that_of_hdrhistogram() -> None:
    loop = stalled().loop
    filled = []
    for ms in (ms for ms in loop.samples["raw_ms"] if ms is not None):
        filled += list(np.arange(ms, 0, -1e3 / FPS))  # like recordValueWithExpectedInterval
    assert loop.corrected.percentiles[99] == pytest.approx(np.percentile(filled, 99), rel=0.02)


def test_known_latencies_are_reported_within_two_percent() -> None:
    drawn = 1e-3 * np.random.default_rng(6).gamma(4, 3, 2000).clip(1, 30)  # no step is longer than an interval
    loop = bench(lambda n: float(drawn[n]), seconds=30).loop
    counted = 1e3 * drawn[WARM_STEPS + FPS :][: 30 * FPS]
    for reported in (loop.corrected, loop.age, loop.raw, loop.stages["step"]):
        assert reported.n == 900
        assert reported.mean == pytest.approx(counted.mean(), rel=0.02)
        for p in PERCENTILES:
            assert reported.percentiles[p] == pytest.approx(np.percentile(counted, p), rel=0.02)
    assert loop.dropped == 0
    assert loop.load == pytest.approx(counted.mean() * FPS / 1e3, rel=0.02)
    assert loop.cores == pytest.approx(0.5)  # the virtual clock's fixed value
    assert loop.cpu_ms == pytest.approx(0.5e3 / FPS, rel=0.02)
    assert loop.gaps.mean == pytest.approx(1e3 / FPS, rel=0.02)
    assert loop.jitter == pytest.approx(np.diff(counted).std(), rel=0.02)


def test_an_overloaded_loop_drops_frames_and_is_always_busy() -> None:
    step, interval = 47, 1e3 / FPS  # milliseconds
    loop = bench(lambda n: step / 1e3, seconds=10).loop
    assert loop.frames == loop.shown + loop.dropped == 300
    assert loop.shown == pytest.approx(1e4 / step, abs=1)
    assert loop.load == pytest.approx(1)
    assert loop.gaps.min == pytest.approx(loop.gaps.max) == pytest.approx(step)
    assert 0 <= loop.stages["mailbox"].min <= loop.stages["mailbox"].max <= interval  # then it is replaced
    assert loop.raw.percentiles[99] == pytest.approx(step)
    assert step + 0.9 * interval < loop.age.percentiles[99] < step + interval
    assert step + 1.3 * interval < loop.corrected.percentiles[99] < step + 2 * interval


def test_stages_add_up_and_the_empty_loop_takes_no_time() -> None:
    result = bench(lambda n: 0.012, seconds=5, fps=None)
    assert result.fps == 30  # the clip's own rate
    assert result.source.startswith("synthetic://?size=56x40")
    assert list(result.loop.stages) == [
        "capture late",
        "mailbox",
        "picture in",
        "step",
        "picture out",
        "score, hand-over",
    ]
    assert sum(times.mean for times in result.loop.stages.values()) == pytest.approx(result.loop.age.mean)
    assert result.loop.stages["step"].median == pytest.approx(12)
    assert result.empty.corrected.max == 0
    assert result.empty.tail is None
    assert (result.empty.frames, result.empty.dropped) == (150, 0)


def test_the_result_is_reproducible_and_converts_to_json_and_rows() -> None:
    result, again = (bench(lambda n: 0.045 if n % 7 == 0 else 0.012, seconds=5) for _ in range(2))
    assert result == again
    report = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (report["source"], report["engine"]) == (result.source, "trend")
    assert (report["due"], report["fps"]) == ("schedule", 30)
    assert report["loop"]["corrected"]["percentiles"]["99"] == pytest.approx(result.loop.corrected.percentiles[99])
    samples = report["loop"]["samples"]
    assert {len(column) for column in samples.values()} == {150}
    assert samples["raw_ms"].count(None) == report["loop"]["dropped"]
    rows = dict(result.rows())
    assert "?" in rows["due → sink, every frame (corrected), ms"]  # 150 samples are too few for a p99
    assert "empty loop –" in rows["p99 / p50, corrected"]


def test_a_dropped_frame_is_late_until_the_next_hand_over() -> None:
    handed = [0.5, None, None, 3.25, None]
    frames = [
        FrameTimes(float(due), None if at is None else replace(STAMPS, due=float(due), handed=at))
        for due, at in enumerate(handed)
    ]
    assert corrected(frames) == [0.5, 2.25, 1.25, 0.25]  # the last frame has no known latency


class Camera(Source):
    """A camera that delivers a frame every 40 ms of virtual time. Consecutive frames differ."""

    live, name, fps = True, "a camera", None

    def __init__(self, clock: VirtualClock) -> None:
        self._clock, self._start, self._index = clock, clock.now(), 0

    def read(self) -> Frame:
        self._index += 1
        self._clock.wait_until(self._start + self._index / 25)
        return Frame(np.full((40, 56, 3), 40 + 10 * (self._index % 20), np.uint8), self._clock.now(), self._index)

    def close(self) -> None:
        pass


def test_a_cameras_frames_are_due_when_they_are_grabbed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualClock()
    monkeypatch.setattr(stream, "open_source", lambda *_, **__: Camera(clock))
    engine = PacedEngine(clock, lambda n: 0.010)
    result = bench_stream(engine, "0", fps=None, seconds=4, percentiles=PERCENTILES, clock=clock)
    assert (result.due, result.loop.frames) == ("grab", 100)
    assert result.fps == pytest.approx(25)
    assert result.loop.corrected.max == pytest.approx(10)
    with pytest.raises(OptionError, match="sets its own rate"):
        bench_stream(engine, "0", fps=30, seconds=4, clock=clock)


def test_bad_input() -> None:
    engine = TrendEngine(0.4)
    for fps, seconds in ((0, 1), (math.inf, 1), (30, 0), (30, -1), (30, math.nan)):
        with pytest.raises(OptionError, match="above 0"):
            bench_stream(engine, CLIP, fps=fps, seconds=seconds)
    with pytest.raises(OptionError, match="between 0 and 100"):
        bench_stream(engine, CLIP, fps=30, seconds=1, percentiles=(50, 100))
    with pytest.raises(OptionError, match="allow more seconds"):
        bench_stream(engine, CLIP, fps=200, seconds=0.005)
    with pytest.raises(SourceError, match="no such file"):
        bench_stream(engine, "missing.mp4", fps=30, seconds=1)


def test_a_failing_engine_ends_the_run_and_leaves_no_thread() -> None:
    class Broken(TrendEngine):
        def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
            if self.steps == WARM_STEPS + 5:
                raise EngineError("the network is gone")
            return super().step(frame, state_in, state_out)

    engine = Broken(0.4, "BGR", 1, 1, 0)
    with pytest.raises(EngineError, match="the network is gone"):
        bench_stream(engine, CLIP, fps=100, seconds=60)
    assert not [t for t in threading.enumerate() if t.name == "framecast-capture"]


def test_real_time() -> None:
    class Sleeping(TrendEngine):
        def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
            time.sleep(0.010)
            return super().step(frame, state_in, state_out)

    engine = Sleeping(0.4)
    result = bench_stream(engine, CLIP, fps=20, seconds=1, clock=SYSTEM)
    # However busy this machine is, a sleep never takes less than asked.
    assert result.loop.frames == result.empty.frames == 20
    assert result.loop.raw.min >= 10
    assert result.loop.corrected.min >= result.loop.stages["step"].min >= 10
    assert result.loop.cores > 0
