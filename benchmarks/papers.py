"""Our compact networks beside the papers' figures on Moving MNIST: ``python benchmarks/papers.py DIGITS ARTIFACT…``.

DIGITS is MNIST's t10k-images-idx3-ubyte.gz. All artifacts and copying are scored on the same 10,000 sequences of
``mnist://`` (``--sequences 100`` for a quick look): ten frames are given, ten are predicted. The first table sets them
beside what the papers published for the full size and the full budget; the others are those of ``framecast eval``.

``--picture FILE.png`` also draws one sequence: the truth, and each artifact's ten predictions.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _machine import header, script
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.evaluation.made import TEST_SET, open_made
from framecast.evaluation.metrics import METRICS, WORSE
from framecast.evaluation.results import COPY, Contender, Results
from framecast.evaluation.sequences import evaluate_sequences, forecast
from framecast.evaluation.tables import notes, provenance, tables
from framecast.files import check_writable, write
from framecast.runtime.predictor import load
from framecast.runtime.report import to_json
from framecast.runtime.shipped import find, labels
from framecast.runtime.sinks.picture import CAPTION, GAP, beside, caption, enlarged
from framecast.tables import Table, to_markdown

GIVEN = 10
TILE = 64  # least width of a picture, pixels
LABEL = 96  # width of the names of the rows, pixels

# Mean MSE and SSIM (data_range 2) over ten frames after ten. The numbers of updates and epochs are the authors'.
PUBLISHED: Mapping[str, Sequence[tuple[float, float | None, str]]] = {
    "astm": [(37.2, 0.944, "paper")],
    "stau": [(27.1, 0.939, "paper")],
    "mau": [
        (29.5, 0.931, "paper"),
        (26.86, 0.9398, "OpenSTL, 200 epochs"),
        (22.25, 0.9511, "OpenSTL, 2000 epochs"),
    ],
    "tau": [
        (19.8, 0.957, "paper"),
        (24.60, 0.9454, "OpenSTL, 200 epochs"),
        (15.69, 0.9661, "OpenSTL, 2000 epochs"),
    ],
}


def published(config: str) -> str:
    """Return the published figures of a configuration's network, in words."""
    figures = PUBLISHED.get(config.partition("-")[0], ())
    shown = (f"{mse:g} / {'–' if ssim is None else f'{ssim:g}'} ({source})" for mse, ssim, source in figures)
    return "; ".join(shown) or "–"


def table(results: Results, sizes: Mapping[str, int]) -> Table:
    """Return the table of copying, our networks, and the papers' figures.

    Args:
        results: of all artifacts on the same sequences.
        sizes: bytes of each artifact, by its name.
    """
    metrics = [name for name in results.metrics if name != WORSE]
    overall = results.to_dict()["overall"]
    configs = {one.name: one.manifest.config for one in results.contenders}
    rows = []
    for method, name in zip((COPY, *configs), (COPY, *(one.title for one in results.contenders)), strict=True):
        mse = results.of(results.mean, method, "mse")
        size = f"{sizes[method] / 1e6:.2f} MB" if method in sizes else "–"
        means = [f"{overall[method][metric]:.{METRICS[metric].digits}f}" for metric in metrics]
        figures = published(configs[method]) if method in configs else "–"
        rows.append((name, size, *means, f"{mse[0]:.1f}", f"{mse[-1]:.1f}", figures))
    count = sum(clip.frames for clip in results.clips)
    title = f"Moving MNIST, mean over {len(results.ahead)} frames after {results.given}, {count:,} sequences"
    shown = (METRICS[metric].title for metric in metrics)
    columns = ("method", "artifact", *shown, "MSE, first frame", "MSE, last frame")
    return Table(title, (*columns, "papers, full size and budget: MSE / SSIM as published"), rows)


def picture(contenders: Sequence[Contender], frames: Image, given: int = GIVEN) -> Image:
    """Draw a sequence: the given frames, the truth, and below it the predictions of each network.

    Args:
        contenders: the networks.
        frames: uint8 [T, h, w] with ``given`` frames and the truth.
        given: number of frames to give.

    Returns:
        uint8 [H, W, 3] BGR.
    """
    horizon = len(frames) - given
    rows: list[tuple[str, Image]] = [("given", frames[max(0, given - horizon) : given]), ("truth", frames[given:])]
    for contender in contenders:
        predicted = forecast(contender.engine, frames[:given, ..., None], horizon)[..., 0]
        rows.append((contender.name, np.clip(np.rint(predicted * 255), 0, 255).astype(np.uint8)))
    tile = enlarged(_colour(frames[0]), TILE).shape[0]
    ahead = [caption(tile, f"+{at}", soft=True) for at in range(1, horizon + 1)]
    drawn = []
    for name, row in rows:
        tiles = [enlarged(_colour(one), TILE) for one in row]
        tiles = [np.zeros_like(tiles[0])] * (horizon - len(tiles)) + tiles  # fewer are given than predicted
        drawn.append(beside([_label(name, tile), *tiles]))
    drawn.insert(1, beside([caption(LABEL, "", soft=True), *ahead]))  # the given frames lie before +1
    gap = np.full((GAP, drawn[0].shape[1], 3), drawn[1][0, 0], np.uint8)
    return np.vstack([part for row in drawn for part in (row, gap)][:-1])


def _label(text: str, height: int) -> Image:
    above = (height - CAPTION) // 2
    rows = (("", above), (text, CAPTION), ("", height - CAPTION - above))
    return np.vstack([caption(LABEL, line, height=tall) for line, tall in rows])


def _colour(grey: NDArray[np.uint8]) -> Image:
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)  # type: ignore[return-value]


def main() -> None:
    """Print the tables, and write the picture and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path, metavar="DIGITS")
    parser.add_argument("artifacts", nargs="+", metavar="ARTIFACT", help="artifacts, or names of shipped models")
    parser.add_argument("--sequences", type=int, default=None, metavar="N", help="default: all 10,000")
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    parser.add_argument("--sequence", type=int, default=0, metavar="N", help="to draw (default: the first)")
    parser.add_argument("--json", type=Path, metavar="FILE.json")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    args = parser.parse_args()
    if args.sequences is not None and args.sequences < 1:
        parser.error(f"--sequences must be 1 or more, not {args.sequences}")
    if not 0 <= args.sequence < (args.sequences or TEST_SET):
        parser.error(f"--sequence must be one of those scored, from 0 to {(args.sequences or TEST_SET) - 1}")
    if len({*args.artifacts}) < len(args.artifacts):
        parser.error("an artifact is given twice")
    for path in filter(None, (args.picture, args.json)):
        check_writable(path)
    place = f"mnist://{args.digits}"
    names = labels(args.artifacts, {COPY, "linear"})
    contenders = [
        Contender(name, given, load(given, threads=args.threads))
        for name, given in zip(names, args.artifacts, strict=True)
    ]
    if args.picture:
        made = cv2.imencode(".png", picture(contenders, open_made(place)[:, args.sequence]))[1]
        write(args.picture, made.tobytes())
    results = evaluate_sequences(contenders, [place], given=GIVEN, limit=args.sequences)
    if args.json:
        found: dict[str, Any] = results.to_dict()
        write(args.json, f"{to_json(found, indent=1)}\n".encode())
    sizes = {one.name: find(one.given).stat().st_size for one in contenders}
    print(header())
    for one in (table(results, sizes), *tables(results)):
        print(f"\n{to_markdown(one)}")
    print(*provenance(results), *notes(results), sep="\n")


if __name__ == "__main__":
    script(main)
