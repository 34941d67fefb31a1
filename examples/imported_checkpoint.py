"""Predict with an imported checkpoint: it gets the first ten frames of a clip and predicts the next ten.

framecast import-checkpoint mnist.ckpt --as mau-mnist        needs the extra 'models'
framecast export mau-mnist --weights mau-mnist.safetensors -o mau.onnx
python examples/imported_checkpoint.py mau.onnx frames/ out/
"""

import sys
from itertools import islice
from pathlib import Path

import cv2

import framecast
from framecast.camera import open_source

model, source, folder = sys.argv[1:]
Path(folder).mkdir(parents=True, exist_ok=True)
with framecast.load(model) as predictor, open_source(source) as frames:
    for frame in islice(frames, 10):
        predictor.step(frame.image, frame.time)
    for k, prediction in enumerate(predictor.rollout(10), start=1):
        cv2.imwrite(f"{folder}/{k:02d}.png", prediction.image)
