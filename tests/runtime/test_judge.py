"""The judge: which prediction is scored against which frame, and how many extra predictions that needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from framecast.camera import Image
from framecast.runtime.judge import BUSY, SHARPNESS, Judge
from framecast.runtime.predictor import Predictor
from framecast.runtime.score import SETTLE, Scored, psnr
from framecast.runtime.telemetry import Telemetry
from framecast.testing import TrendEngine

from ..clips import moving_pictures  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

INTERVAL = 0.04
SIZE = (96, 64)
FRAMES = moving_pictures(SIZE, 60)


class Counted(Predictor):
    """A predictor that counts the requested moments."""

    asked = 0

    def at(self, time: float):  # type: ignore[no-untyped-def]
        self.asked += 1
        return super().at(time)


def judged(
    ahead: Callable[[int], float], *, busy: bool = False, count: int = 40
) -> tuple[Telemetry, Counted, list[Scored | None]]:
    """Step with every frame, and predict ``ahead`` seconds ahead."""
    telemetry, predictor = Telemetry(), Counted(TrendEngine(0.5, size=(SIZE[1], SIZE[0])), watch=False)
    judge, scored = Judge(telemetry, None), []
    for i in range(count):
        time = i * INTERVAL
        predictor.step(FRAMES[i], time, interval=INTERVAL)
        if i == 0:
            judge.restart()
        prediction = predictor.at(time + ahead(i))
        scored.append(judge.arrive(predictor.input, time, INTERVAL))
        judge.made(prediction, predictor.input, time, INTERVAL)
        judge.foresee(predictor, busy=busy)
    judge.close()
    return telemetry, predictor, scored


def test_a_whole_lookahead_is_scored_as_it_was_shown() -> None:
    telemetry, predictor, scored = judged(lambda i: 2 * INTERVAL)
    assert predictor.asked == 40  # no extra predictions for the score
    assert telemetry.snapshot().score.n == 40 - SETTLE
    assert [one is not None for one in scored] == [i >= SETTLE for i in range(40)]
    last = scored[-1]
    assert last is not None
    assert np.array_equal(last.last, FRAMES[37])
    assert last.psnr_copy == pytest.approx(psnr(FRAMES[37], FRAMES[39]))


@pytest.mark.parametrize(("ahead", "whole"), [(0.3, 1), (1.4, 1), (1.6, 2), (2.25, 2)])
def test_between_two_frames_the_nearest_whole_interval_is_scored_instead(ahead: float, whole: int) -> None:
    """The moment shown lies between two frames of the camera, so no frame can score it."""
    telemetry, predictor, scored = judged(lambda i: ahead * INTERVAL)
    assert predictor.asked == 80  # one extra prediction per frame, for the score
    scores = telemetry.snapshot().scores
    assert {round(at): score.n for at, score in scores.items()} == {40 * whole: 40 - SETTLE}
    other = Predictor(TrendEngine(0.5, size=(SIZE[1], SIZE[0])), watch=False)
    for frame in FRAMES[: 40 - whole]:
        other.step(frame)
    last = scored[-1]
    assert last is not None
    assert np.array_equal(last.image, other.rollout(whole)[-1].image)


def test_a_nearly_whole_interval_counts_as_whole() -> None:
    _, predictor, _ = judged(lambda i: INTERVAL * (1 + 0.09 * (-1) ** i))
    assert predictor.asked == 40


def test_while_a_frame_waits_only_some_extra_predictions_are_made() -> None:
    telemetry, predictor, _ = judged(lambda i: 1.5 * INTERVAL, busy=True)
    assert predictor.asked == 40 + 40 // BUSY
    assert 0 < telemetry.snapshot().score.n <= 40 // BUSY
    telemetry, predictor, _ = judged(lambda i: INTERVAL, busy=True)  # whole intervals need no extra predictions
    assert telemetry.snapshot().score.n == 40 - SETTLE


def test_frames_that_were_not_taken_score_if_needed() -> None:
    """Every second frame is taken, and predicted one frame ahead. Only the other frames can score the predictions."""
    telemetry, predictor = Telemetry(), Predictor(TrendEngine(0.5, size=(SIZE[1], SIZE[0])), watch=False)
    judge = Judge(telemetry, None)
    wanted = []
    for i in range(60):
        time = i * INTERVAL
        if i % 2:
            wanted.append(judge.wants(time, INTERVAL))
            judge.passed(FRAMES[i], time, INTERVAL)
            continue
        predictor.step(FRAMES[i], time, interval=INTERVAL)
        prediction = predictor.at(time + INTERVAL)
        assert judge.arrive(predictor.input, time, INTERVAL) is None
        judge.made(prediction, predictor.input, time, INTERVAL)
        judge.foresee(predictor, busy=False)
        assert not judge.wants(time + 3 * INTERVAL, INTERVAL)
    assert all(wanted)
    (at,) = telemetry.snapshot().scores
    assert at == pytest.approx(40)
    assert telemetry.snapshot().score.n == 30 - SETTLE + 1  # frames not taken score once SETTLE frames were taken


def test_a_new_stream_discards_pending_predictions() -> None:
    telemetry, predictor = Telemetry(), Predictor(TrendEngine(0.5, size=(SIZE[1], SIZE[0])), watch=False)
    judge = Judge(telemetry, None)
    for i in range(20):
        if i == 12:
            judge.restart()
        predictor.step(FRAMES[i], i * INTERVAL, interval=INTERVAL)
        found = judge.arrive(predictor.input, i * INTERVAL, INTERVAL)
        assert (found is not None) == (SETTLE <= i < 12)
        judge.made(predictor.at((i + 1) * INTERVAL), predictor.input, i * INTERVAL, INTERVAL)
        judge.foresee(predictor, busy=False)


def test_the_rival_is_offered_pending_predictions() -> None:
    offered: list[float] = []

    class Rival:
        def offer(self, expected: object, before: Image, elapsed: float) -> None:
            offered.append(elapsed)
            expected.rival = before  # type: ignore[attr-defined]

        def close(self) -> None:
            offered.append(-1.0)

    telemetry, predictor = Telemetry(), Predictor(TrendEngine(0.5, size=(SIZE[1], SIZE[0])), watch=False)
    judge = Judge(telemetry, None)
    judge._rival = Rival()  # type: ignore[assignment]
    for i in range(20):
        predictor.step(FRAMES[i], i * INTERVAL, interval=INTERVAL)
        judge.arrive(predictor.input, i * INTERVAL, INTERVAL)
        judge.made(predictor.at((i + 1) * INTERVAL), predictor.input, i * INTERVAL, INTERVAL)
        judge.foresee(predictor, busy=i == 15)  # no offer while busy
    judge.close()
    assert offered == pytest.approx([INTERVAL] * 18 + [-1.0])
    rival = telemetry.snapshot().rival
    assert rival.n == 20 - SETTLE - 1
    assert rival.rival is not None


def test_sharpness_is_relative_to_the_real_frame() -> None:
    telemetry, _, _ = judged(lambda i: INTERVAL, count=SETTLE + SHARPNESS)
    sharpness = telemetry.snapshot().sharpness
    assert sharpness is not None
    assert sharpness[1] == pytest.approx(1, abs=0.1)  # a copy is as sharp as the frame
    judge = Judge(telemetry := Telemetry(), None)
    picture = np.random.default_rng(2).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    soft = np.full_like(picture, 128) + (picture // 2 - 64)  # half the contrast has a quarter of the energy
    for _ in range(SHARPNESS):
        judge._record(Scored(INTERVAL, soft, picture, 30.0, 30.0), picture, INTERVAL)
    found = telemetry.snapshot().sharpness
    assert found is not None
    assert found == pytest.approx((0.25, 1.0), abs=0.03)
    flat = np.zeros_like(picture)
    for _ in range(SHARPNESS):
        judge._record(Scored(INTERVAL, soft, picture, 30.0, 30.0), flat, INTERVAL)  # nothing to compare with
    assert telemetry.snapshot().sharpness == found
