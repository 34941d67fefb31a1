"""What STIP's losses do on real clips in colour: ``python benchmarks/stip_losses.py TRAIN VAL --out runs/stip-losses``.

TRAIN and VAL are folders of videos. A small STIP of 128×96 learns from TRAIN: four frames are given, six are predicted.
With the same seed, data and number of updates it is trained on the MSE alone, then with the adversarial term, then with
the learned perceptual term too (STIP, Algorithm 1; weights of the released code). All are scored on moments of VAL:

- PSNR and SSIM, which reward blur;
- sharpness: gradient energy of all frames, divided by that of the real ones (1 is equally sharp);
- LPIPS, if its packages and weights are installed (``lpips_weights.py``);
- the perceptual distance: the MSE of a discriminator's features (STIP's own term), divided by that of copying the last
  frame. The discriminator comes from the adversarial run of another seed, which judged none of the scored networks.

``--picture FILE.png`` draws one moment. Ctrl-C or SIGTERM saves the current run; the same command continues.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np
import torch
from _machine import header, script

from framecast.camera import Image
from framecast.cli.signals import on_signals
from framecast.evaluation.metrics import Truth
from framecast.evaluation.perceptual import Judge, find_lpips
from framecast.files import check_writable, write
from framecast.runtime.judge import Edges
from framecast.runtime.sinks.picture import beside, caption
from framecast.tables import Table, to_markdown
from framecast.training.discriminator import Discriminator
from framecast.training.footage import Videos
from framecast.training.losses import learned_perceptual
from framecast.training.recipes import Recipe, choose
from framecast.training.sampling import rollout, to_picture, to_tensor
from framecast.training.settings import Settings
from framecast.training.train import Training

GIVEN, PREDICTED = 4, 6  # STIP's protocol on real videos
SIZE = {"height": 96, "width": 128, "channels": 3, "patch": 2}  # 4×4 patches have more values than stip-mini channels
ADVERSARIAL, PERCEPTUAL = 0.001, 0.01  # the released code's weights
LOSSES: Mapping[str, Mapping[str, Any]] = {
    "MSE": {},
    "MSE + GAN": {"adversarial": ADVERSARIAL},
    "MSE + GAN + LP": {"adversarial": ADVERSARIAL, "perceptual": PERCEPTUAL},
}
JUDGING, COPY = "MSE + GAN", "copy-last"
COLUMNS = ("PSNR dB ↑", "SSIM ↑", "sharpness", "LPIPS ↓", "perceptual distance ↓", "the same, last frame ↓")
Moments = Sequence[Sequence[Image]]


def recipe(loss: str, args: argparse.Namespace) -> Recipe:
    """Return the recipe of stip-mini for videos, with the terms of a loss."""
    budget = {"updates": args.updates, "batch": args.batch}
    changes = {**budget, "given": GIVEN, "predicted": PREDICTED, **LOSSES[loss]}
    return choose("stip-mini", None, **changes)[1]


def opened(loss: str, seed: int, args: argparse.Namespace) -> Training:
    """Begin or continue a run."""
    out = args.out / f"{loss.replace(' + ', '-').lower()}-{seed}"
    return Training(
        Settings(
            config="stip-mini",
            data=args.train,
            out=out,
            options=SIZE,
            name="stip-mini",
            recipe=recipe(loss, args),
            cache=args.out / "frames",
            val=args.val,
            every=args.every,
            seed=seed,
            device="cpu",
            resume=(out / "run.json").is_file(),
            command=" ".join(["python", *sys.argv]),
        ),
        lambda line: None,
    )


def moments(footage: Videos, count: int) -> Moments:
    """Return ``count`` moments of each clip, evenly spread, of as many frames as are given and predicted."""
    length = GIVEN + PREDICTED
    return [
        list(footage.scored(clip[begin : begin + length]))
        for clip in footage.clips
        for begin in np.linspace(0, len(clip) - length, count).astype(int)
        if len(clip) >= length
    ]


def predictions(training: Training, found: Moments) -> Iterator[list[Image]]:
    """Yield each moment's predicted frames, of the averaged network."""
    model = training.trainer.average
    for frames in found:
        yield [to_picture(one) for one in rollout(model, to_tensor(model, list(frames[:GIVEN])), PREDICTED)[0]]


@torch.inference_mode()
def distances(judge: Discriminator, predicted: Sequence[Image], truth: Sequence[Image]) -> list[float]:
    """Return the MSE of the discriminator's features, frame by frame."""
    one, other = (judge(to_tensor(judge, [*frames]).transpose(0, 1))[1][0] for frames in (predicted, truth))
    return [float(learned_perceptual(a, b)) for a, b in zip(one, other, strict=True)]


def score(
    predicted: Sequence[Sequence[Image]], found: Moments, judge: Discriminator, lpips: Judge | None = None
) -> tuple[float, ...]:
    """Return PSNR, SSIM, sharpness, LPIPS and perceptual distances: of all predicted frames, and of the last ones.

    Without ``lpips``, LPIPS is NaN.
    """
    edges = Edges()
    psnr, ssim, learnt, far, last = [], [], [], [], []
    drawn = wanted = 0.0  # sums, because a single real frame may be black
    for guess, frames in zip(predicted, found, strict=True):
        truth = frames[GIVEN:]
        for one, real in zip(guess, truth, strict=True):
            compared = Truth(real).compare(one)
            psnr.append(compared.psnr)
            ssim.append(compared.ssim(data_range=1))
            drawn += edges.energy(one)
            wanted += edges.energy(real)
            learnt += [math.nan] if lpips is None else lpips(real, [one])
        apart = distances(judge, guess, truth)
        far += apart
        last.append(apart[-1])
    return mean(psnr), mean(ssim), drawn / wanted, mean(learnt), mean(far), mean(last)


def table(scores: Mapping[str, Sequence[Sequence[float]]]) -> Table:
    """Return the table: means over the seeds, and from the least to the most."""
    rows = []
    for name, runs in scores.items():
        cells = []
        for at, digits in enumerate((2, 4, 2, 4, 3, 3)):
            values = [run[at] for run in runs]
            spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if name != COPY else ""
            cells.append(f"{mean(values):.{digits}f}{spread}")
        rows.append((name, *cells))
    return Table(f"six frames after four, means over {len(scores['MSE'])} seeds", ("loss", *COLUMNS), rows)


def picture(drawn: Mapping[str, Sequence[Image]]) -> Image:
    """Draw rows of frames [H, W, 3] with their names."""
    rows = []
    for name, frames in drawn.items():
        row = beside([cv2.resize(one, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for one in frames])  # type: ignore[misc]
        rows += [caption(row.shape[1], name), row]
    return np.vstack(rows)


def main() -> None:
    """Train what is not finished yet, score everything, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, metavar="TRAIN")
    parser.add_argument("val", type=Path, metavar="VAL")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--updates", type=int, default=2400, metavar="N", help="of each run (default: 2400)")
    parser.add_argument("--batch", type=int, default=2, metavar="N", help="sequences of an update (default: 2)")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="two or more (default: 2)")
    parser.add_argument("--moments", type=int, default=12, metavar="N", help="of each clip (default: 12)")
    parser.add_argument("--every", type=float, default=15, metavar="M", help="minutes between checkpoints")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error("--seeds must be 2 or more: the judge is of another seed")
    if args.picture:
        check_writable(args.picture)
    os.nice(19)
    torch.set_num_threads(args.threads)
    stop, runs = threading.Event(), dict[tuple[str, int], Training]()
    with on_signals(stop.set):
        for seed in range(1, args.seeds + 1):
            for loss in LOSSES:
                training = opened(loss, seed, args)
                if stop.is_set() or not training.go(lambda at: None, stop.is_set):
                    sys.exit("stopped: the same command continues")
                print(f"{loss}, seed {seed}: {training.cpu_minutes:.0f} CPU minutes", flush=True)
                runs[loss, seed] = training
    footage = runs[JUDGING, 1].scored
    assert isinstance(footage, Videos)
    found, learnt = moments(footage, args.moments), find_lpips()
    if isinstance(learnt, str):
        print(learnt, file=sys.stderr)
    lpips = None if isinstance(learnt, str) else learnt
    copied = [[frames[GIVEN - 1]] * PREDICTED for frames in found]
    scores: dict[str, list[Sequence[float]]] = {COPY: [], **{loss: [] for loss in LOSSES}}
    for seed in range(1, args.seeds + 1):
        judge = runs[JUDGING, seed % args.seeds + 1].trainer.discriminator
        assert judge is not None
        *usual, far, last = score(copied, found, judge, lpips)
        scores[COPY].append((*usual, 1.0, 1.0))
        for loss in LOSSES:
            *own, own_far, own_last = score(list(predictions(runs[loss, seed], found)), found, judge, lpips)
            scores[loss].append((*own, own_far / far, own_last / last))
    if args.picture:
        moment = found[len(found) // 2]
        drawn = {"truth": moment[GIVEN:]} | {loss: next(predictions(runs[loss, 1], [moment])) for loss in LOSSES}
        write(args.picture, cv2.imencode(".png", picture(drawn))[1].tobytes())
    print(f"{header()}\n\n{args.updates} updates of {args.batch} sequences; {len(found)} moments of {footage.kind}\n")
    print(to_markdown(table(scores)))


if __name__ == "__main__":
    script(main)
