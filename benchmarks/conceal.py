"""Measures concealment (``framecast run --conceal``): frames are taken out of clips, and a live run conceals them.

``python benchmarks/conceal.py [CLIP …]`` prints Markdown. Clips are videos or folders of videos (default: the
evaluation clips, if ``../shared`` has them, else the demo clip).

A clip plays as a camera with capture times, in virtual time, through the pipeline and the default model on one thread,
at 256×192. Gaps begin at planted places, with ``RECOVERY`` frames or more between them. The picture on the screen in
the k-th missing frame's place shows the moment one frame later, as without a gap, so it looks k + 1 frames ahead. It is
compared with the true frame of that moment; so are the last real frame (freezing) and the last picture before the gap.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from _machine import header, script
from _now_clips import Clip, load

import framecast
from framecast.camera import Frame, Source
from framecast.camera.source import Times
from framecast.evaluation.clips import find_clips
from framecast.runtime.conceal import LONGEST
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.score import psnr
from framecast.runtime.sinks.sink import Result
from framecast.tables import Table, to_markdown
from framecast.testing import VirtualClock

CLIPS = Path(__file__).parents[1] / ".." / "shared" / "clips" / "val"
SIZE = (256, 192)
FRAMES, START = 103, 40  # of each clip
GAPS = (1, 3, 5, 8, 15)  # frames
FIRST, RECOVERY = 24, 24  # frames before the first gap, and between two
LIMIT = 0.5  # seconds, as the documents give --conceal
NEAR = 0.1  # dB: a prediction after a gap counts as recovered if it and the mean of the later ones lose less
AFTER = (1, 2, 3, 5, 8, 16)  # frames after a gap


class Camera(Source):
    """A camera that shows a clip and loses some frames.

    Args:
        clip: what it shows.
        lost: numbers of the frames that never come.
        clock: the run's clock.
    """

    live = True
    name = "a camera that loses frames"

    def __init__(self, clip: Clip, lost: set[int], clock: VirtualClock) -> None:
        self._clip, self._clock = clip, clock
        self.fps = 1 / clip.interval
        self._numbers = iter([i for i in range(len(clip.frames)) if i not in lost])
        self._begun = clock.now()

    @property
    def times(self) -> Times:
        """See :attr:`Source.times`."""
        return "capture"

    def read(self) -> Frame | None:
        """See :meth:`Source.read`."""
        if (number := next(self._numbers, None)) is None:
            return None
        moment = self._begun + number * self._clip.interval
        self._clock.wait_until(moment)
        return Frame(self._clip.frames[number], moment, number)

    def close(self) -> None:
        """See :meth:`Source.close`."""


def places(length: int, frames: int) -> list[int]:
    """Return the first lost frame of each gap of ``length`` frames that a clip of ``frames`` has room for."""
    return [*range(FIRST, frames - length - RECOVERY, length + RECOVERY)]


def played(clip: Clip, predictor: Predictor, length: int, limit: float | None) -> dict[int, Result]:
    """Run a clip with gaps of ``length`` frames. Returns the results by the number of the frame in whose place."""
    clock = VirtualClock()
    lost = {i + k for i in places(length, len(clip.frames)) for k in range(length)}
    predictor.reset()
    results: dict[int, Result] = {}
    begun: float | None = None
    for result in Pipeline(Camera(clip, lost, clock), predictor, rival=False, conceal=limit, clock=clock):
        begun = result.frame.time if begun is None else begun
        number = round((result.frame.time - begun) / clip.interval)
        assert result.concealed == (number in lost), number
        assert number not in results, number
        results[number] = result
    return results


def in_gap(clip: Clip, results: dict[int, Result], length: int) -> dict[str, list[list[float]]]:
    """PSNR in the gaps, dB: for each way a list per gap, one value for each of its frames."""
    found: dict[str, list[list[float]]] = {"freezing": [], "last picture": [], "concealed": []}
    for first in places(length, len(clip.frames)):
        before = results[first - 1]
        truths = [clip.frames[first + k + 1] for k in range(length)]
        found["freezing"].append([psnr(before.input, truth) for truth in truths])
        found["last picture"].append([psnr(before.prediction.image, truth) for truth in truths])
        shown = [results[first + k].prediction.image if first + k in results else None for k in range(length)]
        rest = before.input if any(picture is not None for picture in shown) else before.prediction.image
        found["concealed"].append(
            [psnr(rest if picture is None else picture, truth) for picture, truth in zip(shown, truths, strict=True)]
        )
    return found


def after(clip: Clip, results: dict[int, Result], whole: dict[int, Result], length: int) -> list[list[float]]:
    """For each gap, the PSNR of the predictions from each real frame after it, minus those of a run without gaps."""
    losses = []
    for first in places(length, len(clip.frames)):
        row = []
        for number in range(first + length, first + length + RECOVERY - 1):
            truth = clip.frames[number + 1]
            row.append(psnr(results[number].prediction.image, truth) - psnr(whole[number].prediction.image, truth))
        losses.append(row)
    return losses


def tables(clips: Sequence[Clip], model: str) -> Iterator[Table]:
    """Yield the tables."""
    ways = ("freezing", "last picture", "no fade", "concealed")
    longest = max(GAPS)
    by_way: dict[str, list[list[float]]] = {way: [] for way in ways}  # a row per clip, a column per missing frame
    losses: dict[int, list[list[float]]] = {length: [] for length in GAPS}
    count = 0
    with framecast.load(model, threads=1) as predictor:
        for clip in clips:
            whole = played(clip, predictor, 0, LIMIT)
            for length in GAPS:
                results = played(clip, predictor, length, LIMIT)
                losses[length].append(np.mean(after(clip, results, whole, length), axis=0).tolist())
            found = in_gap(clip, results, longest)
            faded = found.pop("concealed")
            found |= {"concealed": faded}
            found |= {"no fade": in_gap(clip, played(clip, predictor, longest, LONGEST), longest)["concealed"]}
            for way, rows in found.items():
                by_way[way].append(np.mean(rows, axis=0).tolist())
            count += len(faded)
    figures = {way: np.array(rows) for way, rows in by_way.items()}  # [clips, missing frames]

    def row(label: str, by_clip: dict[str, np.ndarray]) -> tuple[str, ...]:
        gains = by_clip["concealed"] - by_clip["freezing"]
        values = [f"{by_clip[way].mean():.2f}" for way in ways]
        return (label, *values, f"{gains.mean():+.2f}", f"{gains.min():+.2f}")

    columns = ("freezing", "last picture stays", "predicted, no fade", f"--conceal {1e3 * LIMIT:g}ms")
    ends = ("gain over freezing", "worst clip")
    what = f"{len(clips)} clips, {count} gaps of {longest} frames, PSNR in dB"
    yield Table(
        f"By the missing frame's place in the gap: {what}",
        ("missing frame", *columns, *ends),
        [row(str(k + 1), {way: rows[:, k] for way, rows in figures.items()}) for k in range(longest)],
    )
    yield Table(
        f"Mean over a gap, by its length: {what}",
        ("frames lost", *columns, *ends),
        [row(str(n), {way: rows[:, :n].mean(axis=1) for way, rows in figures.items()}) for n in range(1, longest + 1)],
    )
    recovery = []
    for length, by_clip in losses.items():
        mean = np.mean(by_clip, axis=0)
        recovered = next((k + 1 for k in range(len(mean)) if min(mean[k], mean[k:].mean()) > -NEAR), None)
        cells = [f"{mean[k - 1]:+.2f}" for k in AFTER]
        recovery.append((str(length), *cells, "not within " + str(len(mean)) if recovered is None else str(recovered)))
    yield Table(
        "Predictions from the real frames after a gap, minus the same without gaps, dB",
        ("frames lost", *(f"frame {k}" for k in AFTER), f"less than {NEAR} dB from frame"),
        recovery,
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", metavar="CLIP")
    parser.add_argument("--model", default="edge")
    args = parser.parse_args()
    given = args.clips or [str(CLIPS) if CLIPS.is_dir() else "demo"]
    print(header(), flush=True)
    clips = [load(str(place), SIZE, START, FRAMES) for place in find_clips(given)]
    for table in tables(clips, args.model):
        print(f"\n{to_markdown(table)}", flush=True)


if __name__ == "__main__":
    script(main)
