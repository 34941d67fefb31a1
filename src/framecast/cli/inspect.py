"""``framecast inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framecast.cli.checks import check_clips, check_numbers, check_outputs
from framecast.cli.extras import needs_extra
from framecast.cli.model_ref import MODEL_HELP, ModelRef, complete_models


def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, autocompletion=complete_models)],
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A clip, as for 'run': a file, a folder of images, demo.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the pictures and figures go.")
    ] = Path("inspect"),
    frames: Annotated[int, typer.Option(metavar="N", help="Look at the first N frames.")] = 40,
) -> None:
    """Draw what happens inside a model over a clip.

    Writes pictures of its gates, encoded features and attention, and inspect.json with the numbers.
    """
    check_numbers(frames=frames)
    with needs_extra("inspect"):
        from framecast.export import inspect as inside
    check_outputs(source, [output / name for name in inside.FILES])
    ref = ModelRef.resolve(model)
    check_clips(source)
    with ref.artifact() as path:
        print("\n".join(inside.inspect(str(path), source, output, frames)))
