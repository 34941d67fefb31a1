"""``framecast split``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framecast.cli.checks import check_ending, check_outputs
from framecast.cli.complete import complete_models
from framecast.cli.extras import needs_extra
from framecast.cli.model_ref import MODEL_HELP, ModelRef


def split(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, autocompletion=complete_models)],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The artifact to write. Its other half goes next to it (default: MODEL.halves.onnx).",
        ),
    ] = None,
) -> None:
    """Split an artifact in two, for lower latency.

    One half needs no frame, and runs while framecast waits for the camera. The other half runs when the frame arrives.
    The predictions stay the same. For onnxruntime and openvino.
    """
    from framecast.files import check_writable

    with needs_extra("split", "build"):
        from framecast.graph.split import split_artifact
    from framecast.graph.manifest import other_half

    output = output or Path(f"{Path(model).stem}.halves.onnx")
    check_ending("--output", output, ".onnx")
    ref = ModelRef.resolve(model)
    outputs = [output, other_half(output)]
    check_outputs(str(ref.path or model), outputs)
    for path in outputs:
        check_writable(path)
    with ref.artifact() as path:
        beside, manifest = split_artifact(path, output)
    print(f"wrote {output} and {beside}: keep them together ({len(manifest.precomputed)} tensors are precomputed)")
