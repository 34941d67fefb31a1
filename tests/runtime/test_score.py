"""The rules of the score: what is compared, and what is skipped."""

from __future__ import annotations

import numpy as np
import pytest

from framecast.runtime.score import SETTLE, Score, Scorer, psnr


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def test_psnr_equals_float64() -> None:
    a, b = image(1), image(2)
    mse = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    assert psnr(a, b) == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-4)
    assert psnr(a, a) == pytest.approx(10 * np.log10(255**2 / 0.01))


def test_each_prediction_is_scored_by_the_frame_of_its_time() -> None:
    scorer = Scorer()
    frames = [image(i) for i in range(20)]
    for i, frame in enumerate(frames):
        scored = {round(s.ahead / 0.04): s for s in scorer.arrive(frame, i * 0.04, 0.04)}
        if i < SETTLE:
            assert not scored
        else:
            assert set(scored) == {1, 3}
            assert scored[1].psnr == pytest.approx(psnr(frame, frame))  # it was predicted exactly
            assert scored[1].psnr_copy == pytest.approx(psnr(frames[i - 1], frame))
            assert scored[3].last is frames[i - 3]
            assert scored[3].psnr_copy == pytest.approx(psnr(frames[i - 3], frame))
        for k in (1, 3):
            if i + k < len(frames):
                scorer.expect(frames[i + k], (i + k) * 0.04 + 0.01, k * 0.04 + 0.01, frame)


def test_means_are_over_scored_predictions() -> None:
    assert (Score().prediction, Score().copy_last) == (None, None)
    score = Score().plus(30.0, 20.0, 10.0).plus(40.0, 25.0, 12.0)
    assert (score.n, score.prediction, score.copy_last, score.rival) == (2, 35.0, 22.5, 11.0)


def test_a_prediction_for_another_time_is_not_scored() -> None:
    scorer = Scorer()
    for i in range(SETTLE):
        scorer.arrive(image(i), i * 0.04, 0.04)
    scorer.expect(image(50), SETTLE * 0.04 + 0.03, 0.07, image(0))
    assert not scorer.arrive(image(51), SETTLE * 0.04, 0.04)


def test_the_nearest_of_several_predictions_for_a_frame_is_scored() -> None:
    scorer = Scorer()
    for i in range(SETTLE):
        scorer.arrive(image(i), i * 0.04, 0.04)
    now = SETTLE * 0.04
    for offset, seed in ((0.015, 70), (0.001, 71), (-0.01, 72)):
        scorer.expect(image(seed), now + offset, 0.04 + offset, image(0))
    scored = scorer.arrive(image(80), now, 0.04)
    assert len(scored) == 1
    assert np.array_equal(scored[0].image, image(71))


def test_repeated_frames_and_interrupted_streams_are_not_scored() -> None:
    scorer = Scorer()
    for i in range(SETTLE + 1):
        scorer.arrive(image(i), i * 0.04, 0.04)
    scorer.expect(image(60), 9 * 0.04, 0.04, image(SETTLE))
    assert not scorer.arrive(image(SETTLE), 9 * 0.04, 0.04)  # the camera repeated a frame
    scorer.expect(image(61), 10 * 0.04, 0.04, image(SETTLE))
    scorer.restart()
    assert not scorer.arrive(image(62), 10 * 0.04, 0.04)


def test_a_frame_that_was_not_taken_scores_but_does_not_count_as_taken() -> None:
    scorer = Scorer()
    for i in range(SETTLE):
        assert not scorer.pass_by(image(i), i * 0.04, 0.04)  # before SETTLE
        scorer.arrive(image(i), i * 0.04, 0.04)
    now = SETTLE * 0.04
    scorer.expect(image(90), now, 0.04, image(91))
    scorer.expect(image(92), now + 0.04, 0.08, image(91))
    assert scorer.wants(now + 0.01, 0.04)
    assert not scorer.wants(now + 0.15, 0.04)
    (scored,) = scorer.pass_by(image(93), now, 0.04)
    assert scored.psnr == pytest.approx(psnr(image(90), image(93)))
    assert not scorer.pass_by(image(93), now, 0.04)  # a frame scores a prediction only once
    (scored,) = scorer.arrive(image(93), now + 0.04, 0.04)  # not a repeat, because the equal frame was not taken
    assert scored.ahead == 0.08
    assert not scorer.wants(now + 0.04, 0.04)


def test_a_rivals_picture_is_scored_if_it_came_in_time() -> None:
    scorer = Scorer()
    for i in range(SETTLE):
        scorer.arrive(image(i), i * 0.04, 0.04)
    first = scorer.expect(image(90), SETTLE * 0.04, 0.04, image(91))
    scorer.expect(image(92), SETTLE * 0.04 + 0.04, 0.08, image(91))
    first.rival = image(94)
    (scored,) = scorer.arrive(image(93), SETTLE * 0.04, 0.04)
    assert scored.rival == pytest.approx(psnr(image(94), image(93)))
    (scored,) = scorer.arrive(image(95), SETTLE * 0.04 + 0.04, 0.04)
    assert scored.rival is None
