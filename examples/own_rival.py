"""Score your own baseline in the same tables. It also works from the command line:

framecast eval edge clips/ --rival examples/own_rival.py:predict
"""

import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

import framecast


def predict(last: Any, before: Any, ahead: Sequence[float]) -> list[Any]:
    """Shift the whole picture, continuing its shift between the two newest frames.

    Args:
        last: the newest frame, uint8 [h, w, 3] BGR.
        before: the frame before it.
        ahead: moments to predict, in frames after the newest one.

    Returns:
        A picture for each moment.
    """
    grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.float32) for frame in (before, last)]
    (x, y), _ = cv2.phaseCorrelate(*grey)
    height, width = last.shape[:2]
    moves = [np.array([[1, 0, x * t], [0, 1, y * t]], np.float32) for t in ahead]
    return [cv2.warpAffine(last, move, (width, height), borderMode=cv2.BORDER_REPLICATE) for move in moves]


if __name__ == "__main__":
    results = framecast.evaluate("edge", sys.argv[1], rivals={"shift": predict}).to_dict()
    for name, scores in results["mean"].items():
        print(f"{name:10s} {scores['psnr'][0]:6.2f} dB, next frame")
