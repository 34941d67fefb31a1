"""Quality of a model on whole clips, as a live run scores it: ``python benchmarks/quality.py [CLIPS] [--model NAME]``.

For each clip the mean PSNR of the next frame, predicted and copied, and the share of frames on which the prediction is
worse than copying; then the means for each step further ahead. Clips count alike in a mean, whatever their length.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _machine import header

from framecast.camera import open_source
from framecast.runtime import Pipeline, Predictor, load

CLIPS = Path(__file__).parents[1] / ".." / "shared" / "clips" / "val"
HORIZON = 5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="?", type=Path, default=CLIPS, help="a folder of videos")
    parser.add_argument("--model", default="stip-edge")
    args = parser.parse_args()
    print(header())
    videos = sorted(args.clips.glob("*.mp4")) if args.clips.is_dir() else []
    with load(args.model) as predictor:
        print(f"\n{args.model}, next frame, dB")
        print(f"{'clip':14s} {'frames':>6} {'copying':>8} {'predicted':>9} {'gain':>6}  worse than copying")
        print(_line("demo", *next_frame("demo", predictor)))
        if not videos:
            print(f"on other clips: not run, there are none in {args.clips}")
            return
        rows = [next_frame(video, predictor) for video in videos]
        for video, row in zip(videos, rows, strict=True):
            print(_line(video.stem, *row))
        print(_line("their mean", *np.mean(rows, axis=0)))
        print(f"\n{args.model}, mean over the {len(videos)} clips by steps ahead, dB")
        print(f"{'ahead':>5} {'copying':>8} {'predicted':>9} {'gain':>6}")
        for k, (copied, predicted) in enumerate(np.mean([ahead(v, predictor) for v in videos], axis=0), start=1):
            print(f"{k:5d} {copied:8.2f} {predicted:9.2f} {predicted - copied:+6.2f}")


def next_frame(uri: str | Path, predictor: Predictor) -> tuple[int, float, float, float]:
    """Frames scored, PSNR of copying and of predicting, and the share of frames where copying is better."""
    with open_source(uri) as source:
        scores = np.array([(e.psnr, e.psnr_copy) for e in Pipeline(source, predictor) if e.due is not None])
    predicted, copied = scores.mean(axis=0)
    return len(scores), copied, predicted, float(np.mean(scores[:, 0] < scores[:, 1]))


def ahead(uri: str | Path, predictor: Predictor) -> list[tuple[float, float]]:
    """PSNR of copying and of predicting at each step up to ``HORIZON``."""
    with open_source(uri) as source:
        pipeline = Pipeline(source, predictor, horizon=HORIZON)
        for _ in pipeline:
            pass
    return [(q["copy_last"] or np.nan, q["prediction"] or np.nan) for q in pipeline.report()["psnr_db_by_horizon"]]


def _line(name: str, count: float, copied: float, predicted: float, worse: float) -> str:
    return f"{name:14s} {count:6.0f} {copied:8.2f} {predicted:9.2f} {predicted - copied:+6.2f}  {100 * worse:5.1f} %"


if __name__ == "__main__":
    main()
