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

from framecast.cli.checks import check_clips, check_ending, check_numbers, check_outputs
from framecast.cli.complete import complete_engines, complete_models
from framecast.cli.extras import needs_extra
from framecast.cli.model_ref import MODEL_HELP, ModelRef
from framecast.errors import ArtifactError, EngineError, OptionError, SourceError

if TYPE_CHECKING:
    from framecast.runtime.engines import Engine

ALL = "all"


def parity(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, autocompletion=complete_models)],
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME[:PRECISION],…",
            autocompletion=complete_engines,
            help="Engines to compare. all: every engine that works here. onnxruntime:fp16 runs the graph of 'build' on "
            "the CPU.",
        ),
    ] = ALL,
    source: Annotated[
        str, typer.Option(metavar="SOURCE", help="A clip to take the frames from, as for 'run'.")
    ] = "demo",
    frames: Annotated[int, typer.Option(metavar="N", help="Compare up to N frames.")] = 100,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures as JSON.")] = None,
) -> None:
    """Compare engines with the reference, frame by frame.

    The reference is ONNX Runtime on the CPU in float32. Every engine gets the same frames and carries its own state.
    The figure that matters is the change in PSNR.
    """
    from framecast import terminal
    from framecast.camera import open_source
    from framecast.evaluation.parity import drift
    from framecast.files import check_writable, write
    from framecast.runtime.engines import ENGINES, MIXED, choose, open_engine
    from framecast.runtime.report import to_json
    from framecast.tables import number

    check_numbers(frames=frames)
    every = engine == ALL
    names = [*[name for name in ENGINES if name != "onnxruntime"], MIXED] if every else engine.split(",")
    for name in names:
        if name.partition(":")[0] not in ENGINES:
            raise OptionError(
                f"--engine {engine}: use {', '.join(ENGINES)}, with or without a precision, such as tensorrt:fp16"
            )
        if name != MIXED:
            choose(name)
    check_ending("--json", json, ".json")
    if json is not None:
        check_outputs(source, [json])
        check_writable(json)
    ref = ModelRef.resolve(model)
    check_clips(source)
    found: dict[str, dict[str, object]] = {}
    rows = []
    with ref.artifact() as path:
        with open_source(source) as opened:
            images = [frame.image for frame in islice(opened, frames)]
        if not images:
            raise SourceError(f"no frame in {source}: give another clip")
        with open_engine(path, "onnxruntime") as reference:
            for name in names:
                try:
                    with _opened(path, name) as other:
                        print(f"{name}: {len(images)} frames", file=sys.stderr)
                        one = drift(reference, other, images)
                        device = f"{other.device}, {other.version}"
                except (EngineError, ArtifactError) as error:
                    if not every:  # the user asked for this engine by name
                        raise
                    found[name] = {"not run": str(error)}
                    continue
                found[name] = {"device": device, **dataclasses.asdict(one)}
                change = (
                    "–" if math.isnan(one.psnr_change) else number(one.psnr_change, "+.3f")
                )  # too few frames to score
                rows.append((name, f"{one.max:.2e}", f"{one.mean:.2e}", change, device))
    missing = [f"{name}: not run: {row['not run']}" for name, row in found.items() if "not run" in row]
    title = f"{model} on {len(images)} frames of {source}, against ONNX Runtime on the CPU (float32)"
    terminal.table(title, ("engine", "max error", "mean error", "PSNR change, dB", "device"), rows)
    for line in missing:
        print(line)
    if json is not None:
        write(json, f"{to_json({'model': model, 'source': source, 'engines': found}, indent=2)}\n".encode())
        print(f"wrote {json}")


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Engine]:
    from framecast.graph.manifest import RENDER, other_half
    from framecast.runtime.engines import MIXED, open_engine

    if name != MIXED:
        with open_engine(path, name) as engine:
            yield engine
        return
    with needs_extra(MIXED, "build"):
        import onnx

        from framecast.graph.artifact import load
        from framecast.graph.mixed_precision import to_half
    with tempfile.TemporaryDirectory() as folder:
        mixed = Path(folder) / path.name
        for graph in (path, other_half(path, RENDER)):  # a model of motion has both
            if graph.exists():
                onnx.save(to_half(load(graph)), str(mixed.with_name(graph.name)))
        with open_engine(mixed, "onnxruntime") as engine:
            yield engine
