"""``framecast parity``."""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framecast.cli.shared import artifact, check_clips, check_numbers, check_outputs, needs_extra
from framecast.errors import ArtifactError, EngineError, OptionError, SourceError

if TYPE_CHECKING:
    from framecast.runtime.engines import Engine


def parity(
    model: Annotated[str, typer.Argument(help="An artifact's path, or a name (framecast models).")],
    engines: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:PRECISION],…",
            help="What to compare, such as torch,tensorrt:fp16,onnxruntime:fp16; all without.",
        ),
    ] = None,
    source: Annotated[str, typer.Option(help="Where the frames come from: a clip, as for run.")] = "demo",
    steps: Annotated[int, typer.Option(help="How many frames.")] = 100,
    json: Annotated[Path | None, typer.Option(help="Write the figures.")] = None,
) -> None:
    """Hold every engine against the float32 reference, ONNX Runtime on the CPU, over a stream of real frames."""
    from framecast import terminal
    from framecast.camera import open_source
    from framecast.evaluation.parity import drift
    from framecast.files import check_writable, write
    from framecast.runtime.engines import ENGINES, MIXED, choose, open_engine
    from framecast.runtime.report import to_json
    from framecast.runtime.shipped import find

    check_numbers(steps=steps)
    names = engines.split(",") if engines else [*ENGINES[1:], MIXED]
    for name in names:
        if name.partition(":")[0] not in ENGINES:
            raise OptionError(
                f"--engines {engines}: there are {', '.join(ENGINES)}; with a precision, as tensorrt:fp16"
            )
        if name != MIXED:
            choose(name)
    if json is not None:
        check_outputs(source, [json])
        check_writable(json)
    check_clips(source)
    found: dict[str, dict[str, object]] = {}
    rows = []
    with artifact(model) as place:
        path = find(place)
        with open_source(source) as opened:
            images = [frame.image for frame in islice(opened, steps)]
        if not images:
            raise SourceError(f"no frame in {source}: name a clip that has some")
        with open_engine(path, "onnxruntime") as reference:
            for name in names:
                try:
                    with _opened(path, name) as engine:
                        print(f"{name}: {len(images)} frames", file=sys.stderr)
                        one = drift(reference, engine, images)
                        device = f"{engine.device}, {engine.version}"
                except (EngineError, ArtifactError) as error:
                    if engines:  # it was asked for
                        raise
                    found[name] = {"not run": str(error)}
                    continue
                found[name] = {"device": device, **dataclasses.asdict(one)}
                change = "–" if math.isnan(one.psnr_change) else f"{one.psnr_change:+.3f}"  # too few frames to score
                rows.append((name, f"{one.max:.2e}", f"{one.mean:.2e}", change, device))
    missing = [f"{name}: not run: {row['not run']}" for name, row in found.items() if "not run" in row]
    title = f"{model} on {len(images)} frames of {source}, against ONNX Runtime on the CPU (float32)"
    terminal.table(title, ("engine", "max error", "mean error", "PSNR change, dB", "device"), rows)
    for line in missing:
        print(line)
    if json is not None:
        write(json, f"{to_json({'model': model, 'source': source, 'engines': found}, indent=2)}\n".encode())


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Engine]:
    from framecast.runtime.engines import MIXED, open_engine

    if name != MIXED:
        with open_engine(path, name) as engine:
            yield engine
        return
    with needs_extra(MIXED, "build"):
        import onnx

        from framecast.graph.mixed_precision import to_half
    with tempfile.TemporaryDirectory() as folder:
        mixed = Path(folder) / path.name
        onnx.save(to_half(onnx.load(str(path))), str(mixed))
        with open_engine(mixed, "onnxruntime") as engine:
            yield engine
