"""``framecast quantize`` and ``prepare``: an artifact in another form, for a CPU."""

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
        Path | None, typer.Option("--output", "-o", help="The artifact to write; MODEL.int8.onnx.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames of each clip to calibrate on.")] = 32,
    ends: Annotated[
        bool,
        typer.Option("--ends", help="The first and last layers in int8 too: faster, and the check says at what cost."),
    ] = False,
    source: Annotated[str, typer.Option(help="A clip to check the result on, against float32.")] = "demo",
) -> None:
    """Write an artifact's int8 form, calibrated over clips with the state in the loop, and check what it costs."""
    from framecast import terminal
    from framecast.bench.steps import live_step, measure
    from framecast.bench.summary import ratio
    from framecast.evaluation.clips import find_clips
    from framecast.evaluation.parity import drift
    from framecast.files import check_writable
    from framecast.runtime.engines import open_engine
    from framecast.runtime.shipped import find

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
    seen = frames if source in clips else 0  # those that it was calibrated on
    if next(_frames(source, seen, 1), None) is None:
        more = f" after the {frames} to calibrate on: fewer --frames, or another --source" if seen else ": name another"
        raise SourceError(f"no frame to check on in {source}{more}")

    def told() -> Iterator[Iterator[Image]]:  # asked for the first clip once the model is known to be of use
        print(f"stepping {model} through {len(clips)} clip(s) of {frames} frames at most", file=sys.stderr)
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
    faster = ratio(times[0], times[1])
    rows = [
        ("layers in int8", f"{done} of {count}"),
        ("file", " → ".join(f"{size:.1f} MB" for size in sizes)),
        ("PSNR of the next frame", f"{found.psnr:.3f} dB, {found.psnr_change:+.3f} against float32"),
        ("error of what is predicted", f"mean {found.mean:.1e}, at most {found.max:.1e}"),
        ("a step in ONNX Runtime", f"{faster.median:.2f} times as fast ({faster.low:.2f} … {faster.high:.2f})"),
    ]
    terminal.table(f"{model} in int8, on {len(images)} frames of {source}", ("", ""), rows)
    print(f"wrote {output}")


def prepare(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The artifact to write, and beside it its other half.")
    ] = None,
) -> None:
    """Write an artifact in two halves: what needs no frame runs before it is there, and its prediction comes sooner."""
    from framecast.files import check_writable
    from framecast.runtime.shipped import find

    with needs_extra("prepare", "build"):
        from framecast.graph.split import split_artifact
    from framecast.graph.manifest import before_half

    output = output or Path(f"{Path(model).stem}.halves.onnx")
    _check_output(output)
    outputs = [output, before_half(output)]
    check_outputs(model, outputs)
    for path in outputs:
        check_writable(path)
    with artifact(model) as place:
        path = find(place)
        check_outputs(str(path), outputs)
        beside, manifest = split_artifact(path, output)
    print(f"wrote {output} and {beside}: keep them together ({len(manifest.precomputed)} tensors are ready beforehand)")


def _check_output(output: Path) -> None:
    if output.suffix.lower() != ".onnx":
        raise OptionError(f"{output}: an artifact ends in .onnx")


def _frames(clip: str, begin: int, count: int) -> Iterator[Image]:
    from framecast.camera import open_source

    with open_source(clip) as opened:
        for frame in islice(opened, begin, begin + count):
            yield frame.image
