"""``framecast import-checkpoint``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framecast.cli.checks import check_outputs
from framecast.cli.complete import complete_configs
from framecast.cli.extras import needs_extra
from framecast.cli.settings import Settings


def import_checkpoint(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="FILE", help="A checkpoint as released by its authors or by OpenSTL.")
    ],
    config: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="CONFIG",
            help="The checkpoint's configuration, a name that 'framecast models' lists.",
            autocompletion=complete_configs,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The weights to write (default: CONFIG.safetensors)."),
    ] = None,
    settings: Settings = None,
) -> None:
    """Convert a checkpoint that the authors released.

    Supports STIP, STAU, MAU and TAU. 'framecast export --weights' takes the resulting file. Code in the checkpoint
    never runs.
    """
    from framecast.models.configs import find, parse

    find(config)  # a wrong name fails before a missing torch
    with needs_extra("import-checkpoint"):
        from framecast.export import exporter

        changes = parse(config, settings or [])
    output = output or Path(f"{config}.safetensors")
    check_outputs(str(checkpoint), [output])
    found = exporter.import_checkpoint(checkpoint, config, output, changes)
    for key in found.unused:
        print(f"left out, because the released network does not use it: {key}")
    count = sum(value.numel() for value in found.tensors.values())
    print(f"wrote {output} ({len(found.tensors)} tensors, {count:,} values; left out: {len(found.unused)})")
    print(f"next: framecast export {config} --weights {output}")
