"""``framecast inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framecast.cli.checks import check_clips, check_numbers, check_outputs
from framecast.cli.complete import complete_models
from framecast.cli.extras import needs_extra
from framecast.cli.model_ref import MODEL_HELP, ModelRef


def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, autocompletion=complete_models)],
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A clip, as for 'run': a file, a folder of images, demo.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the pictures and figures.")
    ] = Path("inspect"),
    frames: Annotated[
        int | None, typer.Option(metavar="N", help="Use the first N frames (default: 40; for edge, 200).")
    ] = None,
) -> None:
    """Draw what happens inside a model over a clip.

    Writes pictures, and inspect.json with the numbers. For a network: its gates, encoded features and attention. For
    edge: the motion, the weights of its guesses, and the gain of each guess.
    """
    from framecast.graph.manifest import GRAPHLESS

    check_numbers(frames=frames)
    ref = ModelRef.resolve(model)
    if ref.path is not None and ref.path.suffix == GRAPHLESS:
        from framecast.export import inspect_motion

        check_outputs(source, [output / name for name in inspect_motion.FILES])
        check_clips(source)
        print("\n".join(inspect_motion.inspect(ref.path, source, output, frames or 200)))
        return
    with needs_extra("inspect"):
        from framecast.export import inspect as inside
    check_outputs(source, [output / name for name in inside.FILES])
    check_clips(source)
    with ref.artifact() as path:
        print("\n".join(inside.inspect(str(path), source, output, frames or 40)))
