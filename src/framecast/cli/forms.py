"""``framecast quantize`` and ``prepare``: other forms of an artifact, for CPUs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framecast.cli.shared import MODEL_HELP, artifact, check_clips, check_numbers, check_outputs, needs_extra
from framecast.errors import OptionError, SourceError

if TYPE_CHECKING:
    from framecast.camera import Image

CHECKED = 100  # frames of the check


def quantize(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    calibration: Annotated[
        list[str],
        typer.Option(metavar="CLIP", help="A clip to calibrate on, or a folder of them, as for eval; repeatable."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The artifact to write (default: MODEL.int8.onnx).")
    ] = None,
    frames: Annotated[int, typer.Option(help="Calibrate on up to this many frames of each clip.")] = 32,
    ends: Annotated[
        bool,
        typer.Option("--ends", help="Quantize the first and last layers too: faster; the check shows the cost."),
    ] = False,
    source: Annotated[str, typer.Option(help="A clip to compare the result with float32 on.")] = "demo",
) -> None:
    """Write an artifact's int8 form, calibrated over clips with the state in the loop, and compare it with float32."""
    from framecast import terminal
    from framecast.evaluation.clips import find_clips
    from framecast.evaluation.latency.steps import live_step, measure
    from framecast.evaluation.latency.summary import ratio
    from framecast.evaluation.parity import drift
    from framecast.runtime.cpu import int8
    from framecast.runtime.engines import open_engine
    from framecast.runtime.manifest import LARGEST_SUM
    from framecast.runtime.shipped import find
    from framecast.runtime.sinks.files import check_writable

    check_numbers(frames=frames)
    with needs_extra("quantize", "build"):
        from framecast.export.quantize import quantize as write_int8
    clips = find_clips(calibration)
    output = output or Path(f"{Path(model).stem}.int8.onnx")
    _check_output(output)
    for place in (model, source, *clips):
        check_outputs(place, [output])
    check_writable(output)
    check_clips(*clips, source)
    seen = frames if source in clips else 0  # the calibration frames: the check leaves them out
    if next(_frames(source, seen, 1), None) is None:
        more = f" after the {frames} to calibrate on: fewer --frames, or another --source" if seen else ": name another"
        raise SourceError(f"no frame to check on in {source}{more}")

    def told() -> Iterator[Iterator[Image]]:  # quantize asks for the first clip once it has accepted the model
        print(f"stepping {model} through {len(clips)} clip(s), up to {frames} frames each", file=sys.stderr)
        yield from (_frames(clip, 0, frames) for clip in clips)

    with artifact(model) as place:
        path = find(place)
        check_outputs(str(path), [output])
        done, count = write_int8(path, output, told(), ", ".join(clips), ends=ends)
        sizes = [file.stat().st_size / 1e6 for file in (path, output)]
        images = list(_frames(source, seen, CHECKED))
        with open_engine(path, "onnxruntime") as whole, open_engine(output, "onnxruntime") as small:
            found = drift(whole, small, images)
            cases = [live_step("float32", whole, images), live_step("int8", small, images)]
            times = [series.by_round() for series in measure(cases)]
            largest = small.manifest.pair_sum
    faster = ratio(times[0], times[1])
    rows = [
        ("layers in int8", f"{done} of {count}"),
        ("file", " → ".join(f"{size:.1f} MB" for size in sizes)),
        ("PSNR of the next frame", f"{found.psnr:.3f} dB, {found.psnr_change:+.3f} against float32"),
        ("error of what is predicted", f"mean {found.mean:.1e}, at most {found.max:.1e}"),
        ("checked on", f"{int8().instructions}, in ONNX Runtime"),
        ("on other CPUs", f"the same sums: two products come to {largest:,} at most, and 16 bits hold {LARGEST_SUM:,}"),
        ("a step in ONNX Runtime", f"{faster.median:.2f} times as fast ({faster.low:.2f} … {faster.high:.2f})"),
    ]
    terminal.table(f"{model} in int8, on {len(images)} frames of {source}", ("", ""), rows)
    print(f"wrote {output}")


def prepare(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The artifact to write; the other half goes beside it.")
    ] = None,
) -> None:
    """Split an artifact into two halves: the one that needs no frame runs early, and the prediction comes sooner."""
    from framecast.runtime.shipped import find
    from framecast.runtime.sinks.files import check_writable

    with needs_extra("prepare", "build"):
        from framecast.export.prepare import prepare as write_halves
    from framecast.runtime.manifest import other_half

    output = output or Path(f"{Path(model).stem}.halves.onnx")
    _check_output(output)
    outputs = [output, other_half(output)]
    check_outputs(model, outputs)
    for path in outputs:
        check_writable(path)
    with artifact(model) as place:
        path = find(place)
        check_outputs(str(path), outputs)
        beside, manifest = write_halves(path, output)
    print(f"wrote {output} and {beside}: keep them together ({len(manifest.ready)} tensors are computed early)")


def _check_output(output: Path) -> None:
    if output.suffix.lower() != ".onnx":
        raise OptionError(f"{output}: an artifact ends in .onnx")


def _frames(clip: str, begin: int, count: int) -> Iterator[Image]:
    from framecast.camera import open_source

    with open_source(clip) as opened:
        for frame in islice(opened, begin, begin + count):
            yield frame.image
