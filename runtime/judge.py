"""The judge of a run: scores each prediction when its real frame comes. Baselines: copying and, at times, DIS flow."""

from __future__ import annotations

import cv2
import numpy as np

from framecast.camera import Image
from framecast.clock import Clock
from framecast.runtime.dis import LiveRival
from framecast.runtime.predictor import Prediction, Predictor
from framecast.runtime.score import Scored, Scorer
from framecast.runtime.telemetry import Telemetry

NEAR = 0.1  # intervals: a prediction this near to a frame's time needs no second one for its score
BUSY = 4  # when frames are waiting, only every fourth prediction is made for its score alone
SHARPNESS = 8  # sharpness is measured on every eighth scored prediction


class Judge:
    """Scores one run. The loop calls it; only :meth:`wants` may be called from any thread.

    Real frames come at whole intervals of the camera, but the moment shown may lie between two of them. Then, after
    the hand-over, a second prediction is made for the nearest whole interval, for the score alone.

    Args:
        telemetry: receives the scores.
        clock: for the thread that computes DIS flow; None to omit DIS flow.
    """

    def __init__(self, telemetry: Telemetry, clock: Clock | None) -> None:
        self._telemetry = telemetry
        self._scorer = Scorer()
        self._edges = Edges()
        self._rival = LiveRival(clock) if clock is not None else None
        self._before: tuple[Image, float] | None = None  # the frame before the newest, and its time
        # The newest prediction, with its frame, that frame's time, and the interval.
        self._made: tuple[Prediction, Image, float, float] | None = None
        self._count = 0

    def wants(self, time: float, interval: float) -> bool:
        """Whether a frame of this time (seconds) would score a prediction."""
        return self._scorer.wants(time, interval)

    def restart(self) -> None:
        """Start a new stream."""
        self._scorer.restart()
        self._before = self._made = None

    def passed(self, frame: Image, time: float, interval: float) -> None:
        """Score the predictions for a dropped frame, which has the model's size."""
        for scored in self._scorer.pass_by(frame, time, interval):
            self._record(scored, frame, interval)

    def arrive(self, frame: Image, time: float, interval: float, *, repeated: bool = False) -> Scored | None:
        """Score the predictions for the newest frame, at the model's size. Returns the one that looked furthest."""
        found = self._scorer.arrive(frame, time, interval, repeated=repeated)
        for scored in found:
            self._record(scored, frame, interval)
        return max(found, key=lambda scored: scored.ahead, default=None)

    def made(self, prediction: Prediction, frame: Image, time: float, interval: float) -> None:
        """Remember the prediction that is shown, and the newest frame that it was made from."""
        if self._made is not None:
            self._before = self._made[1], self._made[2]
        self._made = prediction, frame, time, interval

    def foresee(self, predictor: Predictor, *, busy: bool) -> None:
        """After the hand-over, keep the newest prediction, or one for the nearest whole interval, to be scored.

        Args:
            predictor: its newest frame must be the one that the prediction was made from.
            busy: whether a newer frame is waiting.
        """
        if self._made is None or predictor.steps < predictor.manifest.warmup:
            return
        prediction, frame, time, interval = self._made
        moment = time + interval * max(1, round(prediction.ahead / interval))
        if abs(moment - prediction.time) > NEAR * interval:
            self._count += 1
            if busy and self._count % BUSY:
                return
            prediction = predictor.at(moment)
        expected = self._scorer.expect(prediction.image, prediction.time, prediction.ahead, frame)
        if self._rival is not None and self._before is not None and not busy:
            self._rival.offer(expected, self._before[0], time - self._before[1])

    def close(self) -> None:
        """End the thread that computes DIS flow."""
        if self._rival is not None:
            self._rival.close()

    def _record(self, scored: Scored, frame: Image, interval: float) -> None:
        self._telemetry.score(scored, interval)
        if self._telemetry.scored % SHARPNESS == 0:
            energy = self._edges.energy
            if (true := energy(frame)) > 0:
                self._telemetry.sharpness(energy(scored.image) / true, energy(scored.last) / true)


class Edges:
    """Measures the edges in a picture. It reuses its buffers, so it allocates nothing per frame."""

    def __init__(self) -> None:
        self._grey = np.empty((0, 0), np.uint8)
        self._slope = np.empty((0, 0), np.int16)

    def energy(self, image: Image) -> float:
        """Mean energy of the brightness gradient, in squared grey levels per pixel."""
        if self._grey.shape != image.shape[:2]:
            self._grey = np.empty(image.shape[:2], np.uint8)
            self._slope = np.empty(image.shape[:2], np.int16)
        cv2.cvtColor(image, cv2.COLOR_BGR2GRAY, self._grey)
        total = 0.0
        for axis in ((1, 0), (0, 1)):
            cv2.Sobel(self._grey, cv2.CV_16S, *axis, self._slope, ksize=1)
            total += float(cv2.norm(self._slope, cv2.NORM_L2SQR))
        return total / self._grey.size
