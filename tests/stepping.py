"""The call that most tests of a predictor make: take a frame, then predict the next one."""

from __future__ import annotations

from framecast.camera import Image
from framecast.runtime.predictor import Prediction, Predictor


def stepped(predictor: Predictor, frame: Image, time: float | None = None) -> Prediction:
    """Step with a real frame, and return the prediction of the camera's next frame."""
    predictor.step(frame, time)
    return predictor.rollout(1)[0]
