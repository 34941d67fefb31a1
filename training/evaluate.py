"""Quality of a network on whole clips, by the same score as a live run reports.

``python -m framecast.training.evaluate WEIGHTS CLIPS`` scores weights on a folder of videos that they were not trained
on, and writes the figures into the weights' own metadata, from where ``framecast export`` takes them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file

from framecast.camera import Image, open_source
from framecast.errors import FramecastError
from framecast.models.configs import build
from framecast.models.step import StepModel
from framecast.runtime.convert import resize
from framecast.runtime.manifest import Quality
from framecast.runtime.score import Scorer
from framecast.training.data import videos


@torch.inference_mode()
def evaluate(model: StepModel, frames: Iterable[Image]) -> tuple[float, float]:
    """Mean PSNR in dB of each next frame, predicted and copied; NaN where no frame could be scored.

    Args:
        model: its state is carried over the whole clip.
        frames: [H, W, 3] BGR, at the model's size.
    """
    state = model.init_state()
    device = next(model.parameters()).device
    scorer = Scorer()
    for index, frame in enumerate(frames):
        scorer.arrive(frame, index, 1)
        tensor = torch.from_numpy(frame).to(device).permute(2, 0, 1)[None].float() / 255
        prediction, state = model.step(tensor, state)
        guess = (prediction[0, 0] * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        if index + 1 >= model.warmup:
            scorer.expect(guess, index + 1, 1, frame)
    _, predicted, copied = scorer.mean(1)
    return (float("nan"), float("nan")) if predicted is None or copied is None else (predicted, copied)


def evaluate_folder(model: StepModel, folder: Path) -> Quality:
    """Every video of a folder, each clip's mean counting the same; clips too short to be scored are left out.

    Raises:
        FramecastError: nothing in the folder can be scored.
    """
    _, height, width = model.frame_shape
    scores = {video.stem: evaluate(model, _resized(video, width, height)) for video in videos(folder)}
    clips = {name: score for name, score in scores.items() if np.isfinite(score).all()}
    if not clips:
        raise FramecastError(f"no video in {folder} can be scored: give a folder of clips of 10 frames or more")
    predicted, copied = np.mean(list(clips.values()), axis=0)
    rounded = {name: (round(a, 2), round(b, 2)) for name, (a, b) in clips.items()}
    return Quality(
        f"{len(clips)} clip{'s' * (len(clips) != 1)} it never saw",
        round(float(predicted), 2),
        round(float(copied), 2),
        rounded,
    )


def _resized(video: Path, width: int, height: int) -> Iterator[Image]:
    with open_source(video) as source:
        while (frame := source.read()) is not None:
            yield resize(frame.image, (width, height))


def main() -> None:
    """Score weights, print the figures, and write them into the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--model", default="stip-edge")
    args = parser.parse_args()
    if not args.weights.is_file() or not args.clips.is_dir():
        parser.error(f"{args.weights} must be a file, and {args.clips} a folder of videos")
    model = build(args.model).eval()
    load_model(model, str(args.weights))
    quality = evaluate_folder(model, args.clips)
    for name, (predicted, copied) in {**quality.clips, "mean": (quality.prediction, quality.copy_last)}.items():
        print(f"{name:16s} {predicted:6.2f} dB, copying {copied:6.2f} dB ({predicted - copied:+.2f})")
    with safe_open(str(args.weights), "pt") as file:
        metadata = file.metadata() or {}
    metadata["quality"] = json.dumps(dataclasses.asdict(quality))
    save_file(load_file(args.weights), args.weights, metadata)


if __name__ == "__main__":
    main()
