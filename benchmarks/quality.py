"""Quality of a model on whole clips, as a live run scores it: ``python benchmarks/quality.py [CLIPS] [--model NAME]``.

For each clip the mean PSNR of the next frame, predicted and copied, and the share of frames on which the prediction is
worse than copying. Clips count alike in the mean, whatever their length.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _machine import header

from framecast.camera import open_source
from framecast.runtime import Pipeline, load

CLIPS = Path(__file__).parents[1] / ".." / "shared" / "clips" / "val"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="?", type=Path, default=CLIPS, help="a folder of videos")
    parser.add_argument("--model", default="stip-edge")
    args = parser.parse_args()
    print(header())
    videos = sorted(args.clips.glob("*.mp4")) if args.clips.is_dir() else []
    if not videos:
        print(f"\nnot run: no videos in {args.clips}")
        return
    print(f"\n{args.model}, next frame, dB")
    print(f"{'clip':14s} {'frames':>6} {'copying':>8} {'predicted':>9} {'gain':>6}  worse than copying")
    rows = []
    with load(args.model) as predictor:
        for video in [*videos, "demo"]:
            with open_source(video) as source:
                pairs = [(e.psnr, e.psnr_copy) for e in Pipeline(source, predictor) if e.due is not None]
            scores = np.array(pairs)
            predicted, copied = scores.mean(axis=0)
            worse = np.mean(scores[:, 0] < scores[:, 1])
            if video == "demo":
                print(_line("mean", *np.mean(rows, axis=0)))
            else:
                rows.append((len(scores), copied, predicted, worse))
            print(_line(Path(video).stem, len(scores), copied, predicted, worse))


def _line(name: str, count: float, copied: float, predicted: float, worse: float) -> str:
    return f"{name:14s} {count:6.0f} {copied:8.2f} {predicted:9.2f} {predicted - copied:+6.2f}  {100 * worse:5.1f} %"


if __name__ == "__main__":
    main()
