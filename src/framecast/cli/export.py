"""``framecast export``, ``import-checkpoint`` and ``inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framecast.cli.shared import (
    MODEL_HELP,
    Settings,
    artifact,
    check_clips,
    check_numbers,
    check_outputs,
    needs_extra,
    say,
)


def export(
    config: Annotated[str, typer.Argument(help="A configuration's name (framecast models).")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The artifact to write; CONFIG.onnx.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Trained weights, .safetensors; random ones without.")] = None,
    settings: Settings = None,
    frames: Annotated[str, typer.Option(help="The source of real frames for the parity check.")] = "demo",
    steps: Annotated[int, typer.Option(help="Length of the parity check's rollout.")] = 20,
    seed: Annotated[int, typer.Option(help="Of random weights and frames.")] = 0,
) -> None:
    """Export a network's step to ONNX, and check that ONNX Runtime equals PyTorch."""
    from framecast import terminal
    from framecast.models.configs import find, parse

    find(config)  # said before torch is asked for
    check_numbers(steps=steps)
    with needs_extra("export"):
        from framecast.export.exporter import export_config

        changes = parse(config, settings or [])
    output = output or Path(f"{config}.onnx")
    for place in (frames, *([str(weights)] if weights else [])):
        check_outputs(place, [output])
    parity = export_config(config, output, weights, frames=frames, steps=steps, seed=seed, changes=changes, say=say)
    rows = [(name, str(p.steps), f"{p.max:.2e}", f"{p.mean:.2e}", f"{p.allowed:.0e}") for name, p in parity.items()]
    columns = ("frames", "steps", "max error", "mean error", "allowed")
    terminal.table(f"{config}: ONNX Runtime against PyTorch", columns, rows)
    kind = "trained" if weights else "random"
    print(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB, {kind} weights)")


def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint as the authors (or OpenSTL) released it.")],
    config: Annotated[str, typer.Option("--as", help="The configuration that it holds (framecast models).")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The weights to write; CONFIG.safetensors.")
    ] = None,
    settings: Settings = None,
) -> None:
    """Convert a released checkpoint of STIP, STAU, MAU or TAU to weights that export takes."""
    from framecast.models.configs import find, parse

    find(config)  # said before torch is asked for
    with needs_extra("import-checkpoint"):
        from framecast.export import exporter as command

        changes = parse(config, settings or [])
    output = output or Path(f"{config}.safetensors")
    check_outputs(str(checkpoint), [output])
    found = command.import_checkpoint(checkpoint, config, output, changes)
    for key in found.unused:
        print(f"left out, the released network does not use it: {key}")
    count = sum(value.numel() for name, value in found.tensors.items())
    print(f"wrote {output} ({len(found.tensors)} tensors, {count:,} values; left out: {len(found.unused)})")
    print(f"next: framecast export {config} --weights {output}")


def inspect(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    source: Annotated[str, typer.Argument(help="A clip, as for run: a file, a folder of images, demo, ….")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder for pictures and figures; made if it is not there.")
    ] = Path("inspect"),
    frames: Annotated[int, typer.Option(help="Look at so many frames of the source.")] = 40,
) -> None:
    """Draw what happens inside a model over a clip: gates, encoded features, attention."""
    check_numbers(frames=frames)
    with needs_extra("inspect"):
        from framecast.export import inspect as inside
    check_outputs(source, [output / name for name in inside.FILES])
    check_clips(source)
    with artifact(model) as path:
        print("\n".join(inside.inspect(path, source, output, frames)))
