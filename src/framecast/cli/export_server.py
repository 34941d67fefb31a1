"""``framecast export-server``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framecast.cli.checks import period
from framecast.cli.complete import complete_models
from framecast.cli.extras import needs_extra
from framecast.cli.model_ref import MODEL_HELP, ModelRef


def export_server(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, autocompletion=complete_models)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="The model repository; may hold other models.")
    ] = Path("repository"),
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="onnxruntime, tensorrt or python (default: onnxruntime; for a model of motion, such as edge: python).",
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(metavar="N", help="Predict N steps ahead. A model of motion renders any moment instead.")
    ] = 1,
    max_cameras: Annotated[int, typer.Option(metavar="N", help="The most cameras at a time; others wait.")] = 64,
    batch: Annotated[int, typer.Option(metavar="N", help="The largest batch. The Python backend takes 1.")] = 8,
    idle: Annotated[str, typer.Option(metavar="TIME", help="Drop the state of a camera that is silent so long.")] = (
        "60s"
    ),
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name on the server (default: MODEL's).")
    ] = None,
) -> None:
    """Write a model repository for a Triton server.

    NVIDIA Triton Inference Server then steps many cameras, and keeps their states.
    Watch one with 'run --engine server://HOST:8001/MODEL'.
    """
    from framecast.graph.manifest import GRAPHLESS
    from framecast.graph.repository import Serving, write_repository

    ref = ModelRef.resolve(model)
    graphless = ref.path is not None and ref.path.suffix == GRAPHLESS
    backend = backend or ("python" if graphless else "onnxruntime")
    serving = Serving(backend, steps, max_cameras, batch, period("--idle", idle))
    serving.check()
    with ref.artifact() as path, needs_extra("export-server", "build"):
        version, manifest = write_repository(path, output, serving, name)
    print(f"wrote {version}: {manifest.config} for the {backend} backend ({version.parent}/README.md: how to serve it)")
    if not graphless:
        from framecast.graph.serve import state_bytes

        print(f"each camera's state takes {state_bytes(manifest) / 1e6:.1f} MB there")
