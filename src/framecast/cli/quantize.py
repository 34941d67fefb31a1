"""``framecast quantize``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framecast.cli.checks import check_clips, check_ending, check_numbers, check_outputs
from framecast.cli.complete import complete_models
from framecast.cli.extras import needs_extra
from framecast.cli.model_ref import MODEL_HELP, ModelRef
from framecast.errors import SourceError

if TYPE_CHECKING:
    from framecast.camera import Image

CHECKED = 100  # frames to check on


def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, autocompletion=complete_models)],
    calibration: Annotated[
        list[str],
        typer.Option(metavar="CLIP", help="A clip, or a folder of clips, to calibrate on, as for 'eval'. Repeatable."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The artifact to write (default: MODEL.int8.onnx)."),
    ] = None,
    frames: Annotated[int, typer.Option(metavar="N", help="Calibrate on up to N frames of each clip.")] = 32,
    ends: Annotated[
        bool, typer.Option("--ends", help="Also quantize the first and last layers: faster, but less exact.")
    ] = False,
    source: Annotated[
        str, typer.Option(metavar="SOURCE", help="A clip on which the result is checked against float32.")
    ] = "demo",
) -> None:
    """Quantize an artifact to int8, and check the loss.

    Calibration runs over whole streams and carries the state from frame to frame. For onnxruntime and openvino.
    """
    from framecast import terminal
    from framecast.bench.steps import live_step, measure
    from framecast.bench.summary import ratio
    from framecast.evaluation.clips import find_clips
    from framecast.evaluation.parity import drift
    from framecast.files import check_writable
    from framecast.graph.manifest import LARGEST_SUM
    from framecast.runtime.cpu import int8
    from framecast.runtime.engines import open_engine
    from framecast.tables import number

    check_numbers(frames=frames)
    with needs_extra("quantize", "build"):
        from framecast.export.quantize import quantize as write_int8
    clips = find_clips(calibration)
    output = output or Path(f"{Path(model).stem}.int8.onnx")
    check_ending("--output", output, ".onnx")
    ref = ModelRef.resolve(model)
    for place in (str(ref.path or model), source, *clips):
        check_outputs(place, [output])
    check_writable(output)
    check_clips(*clips, source)
    seen = frames if source in clips else 0  # the check skips the frames used for calibration
    if next(_frames(source, seen, 1), None) is None:
        more = (
            f" after the {frames} to calibrate on: use fewer --frames or another --source" if seen else ": give another"
        )
        raise SourceError(f"no frame to check on in {source}{more}")

    def streams() -> Iterator[Iterator[Image]]:  # read only after the model is accepted
        print(f"stepping {model} through {len(clips)} clip(s), up to {frames} frames each", file=sys.stderr)
        yield from (_frames(clip, 0, frames) for clip in clips)

    with ref.artifact() as path:
        done, count = write_int8(path, output, streams(), ", ".join(clips), ends=ends)
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
        ("PSNR of the next frame", f"{found.psnr:.3f} dB, {number(found.psnr_change, '+.3f')} against float32"),
        ("error of the prediction", f"mean {found.mean:.1e}, at most {found.max:.1e}"),
        ("checked on", f"{int8().instructions}, in ONNX Runtime"),
        ("on other CPUs", f"the same sums: two products add up to at most {largest:,}; 16 bits hold {LARGEST_SUM:,}"),
        ("a step in ONNX Runtime", f"{faster.median:.2f} times as fast ({faster.low:.2f} … {faster.high:.2f})"),
    ]
    terminal.table(f"{model} in int8, on {len(images)} frames of {source}", ("", ""), rows)
    print(f"wrote {output}")


def _frames(clip: str, begin: int, count: int) -> Iterator[Image]:
    from framecast.camera import open_source

    with open_source(clip) as opened:
        for frame in islice(opened, begin, begin + count):
            yield frame.image
