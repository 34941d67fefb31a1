"""``framecast import-checkpoint``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framecast.cli.checks import check_outputs
from framecast.cli.extras import needs_extra
from framecast.cli.model_ref import complete_models
from framecast.cli.settings import Settings


def import_checkpoint(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="FILE", help="A checkpoint as its authors, or OpenSTL, released it.")
    ],
    config: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="CONFIG",
            help="The configuration that it holds, as 'framecast models' lists it.",
            autocompletion=complete_models,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The weights to write (default: CONFIG.safetensors)."),
    ] = None,
    settings: Settings = None,
) -> None:
    """Convert a checkpoint that the authors released.

    It may be of STIP, STAU, MAU or TAU. The result is weights that 'framecast export --weights' takes. No code in the
    checkpoint is run.
    """
    from framecast.models.configs import find, parse

    find(config)  # said before torch is asked for
    with needs_extra("import-checkpoint"):
        from framecast.export import exporter

        changes = parse(config, settings or [])
    output = output or Path(f"{config}.safetensors")
    check_outputs(str(checkpoint), [output])
    found = exporter.import_checkpoint(checkpoint, config, output, changes)
    for key in found.unused:
        print(f"left out, the released network does not use it: {key}")
    count = sum(value.numel() for value in found.tensors.values())
    print(f"wrote {output} ({len(found.tensors)} tensors, {count:,} values; left out: {len(found.unused)})")
    print(f"next: framecast export {config} --weights {output}")
