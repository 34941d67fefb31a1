"""Run a detector on predicted frames: where will things be when your action takes effect?

python examples/detect_ahead.py markers.mp4 5        ArUco markers, 5 frames ahead

The detector is OpenCV's own for ArUco markers (4×4, 50): it needs no weights. Any function of a picture will do.
"""

import sys
from collections import deque

import cv2
import numpy as np

import framecast
from framecast.camera import Image, open_source

Places = dict[int, np.ndarray]
detector = cv2.aruco.ArucoDetector(cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50))


def detect(image: Image) -> Places:
    """Return the centre of each marker in a picture: x and y in pixels, by the marker's number."""
    corners, numbers, _ = detector.detectMarkers(image)
    found = () if numbers is None else numbers.ravel()
    return {int(number): quad[0].mean(axis=0) for number, quad in zip(found, corners, strict=False)}


source, ahead = sys.argv[1], int(sys.argv[2])
waiting: deque[tuple[Places, Places]] = deque()  # the markers of earlier frames, and of their predictions
errors: dict[str, list[float]] = {"late picture": [], "prediction": []}
seen = 0
with framecast.load() as predictor, open_source(source) as frames:
    for frame in frames:
        truth = detect(frame.image)
        if len(waiting) == ahead:
            for name, found in zip(errors, waiting.popleft(), strict=True):
                errors[name] += [float(np.linalg.norm(found[n] - truth[n])) for n in found.keys() & truth.keys()]
            seen += len(truth)
        predictor.step(frame.image, frame.time)
        waiting.append((truth, detect(predictor.rollout(ahead)[-1].image)))
for name, distances in errors.items():
    print(f"{name}: {len(distances)} of {seen} markers found, {np.mean(distances):.1f} pixels off on average")
