"""``framecast export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framecast.cli.checks import check_numbers, check_outputs
from framecast.cli.complete import complete_configs
from framecast.cli.extras import needs_extra
from framecast.cli.progress import say
from framecast.cli.settings import Settings


def export(
    config: Annotated[
        str,
        typer.Argument(metavar="CONFIG", help="A name that 'framecast models' lists.", autocompletion=complete_configs),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The artifact to write (default: CONFIG.onnx)."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Trained weights, .safetensors (default: random weights).")
    ] = None,
    settings: Settings = None,
    source: Annotated[
        str, typer.Option(metavar="SOURCE", help="A clip to check the artifact on, as for 'run'.")
    ] = "demo",
    frames: Annotated[int, typer.Option(metavar="N", help="Check up to N frames.")] = 20,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of random weights and random frames.")] = 0,
    tolerance: Annotated[
        float | None,
        typer.Option(metavar="X", help="Allow this error, in units of the value range (default: the configuration's)."),
    ] = None,
    store: Annotated[
        str, typer.Option(metavar="FORMAT", help="Weights in the file: fp32, or fp16 for half the size.")
    ] = "fp32",
) -> None:
    """Export a network to ONNX, and check it against PyTorch.

    The artifact is written only if ONNX Runtime matches PyTorch on real and on random frames. Where PyTorch's float32
    itself rounds more than is allowed, ONNX Runtime may be up to four times as far from float64.

    With --store fp16 the weights are rounded, and every step still computes in float32. The table then shows the drift
    that the rounding causes, against the float32 network. The drift has no limit.
    """
    from framecast import terminal
    from framecast.graph.manifest import RENDER, other_half
    from framecast.models.configs import find, parse
    from framecast.runtime.shipped import shipped

    find(config)  # a wrong name fails before a missing torch
    check_numbers(frames=frames)
    with needs_extra("export"):
        from framecast.export.exporter import export_config

        changes = parse(config, settings or [])
    output = output or Path(f"{config}.onnx")
    for place in (source, *([str(weights)] if weights else [])):
        check_outputs(place, [output])
    parity = export_config(
        config,
        output,
        weights,
        source=source,
        frames=frames,
        seed=seed,
        changes=changes,
        tolerance=tolerance,
        store=store,
        say=say,
    )
    limits = {name: "any drift" if p.allowed == float("inf") else f"{p.allowed:.0e}" for name, p in parity.items()}
    rows = [
        (name, str(p.steps), p.reference, f"{p.max:.2e}", f"{p.mean:.2e}", limits[name]) for name, p in parity.items()
    ]
    columns = ("frames", "count", "PyTorch in", "max error", "mean error", "allowed")
    terminal.table(f"{config}: ONNX Runtime against PyTorch", columns, rows)
    kind = "trained" if weights else "random" if find(config).parameters else "no"
    print(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB, {kind} weights{' as fp16' * (store == 'fp16')})")
    if kind == "random" and config in shipped():
        print(f"the trained weights that ship are not in it: use them by name (--model {config})")
    if (render := other_half(output, RENDER)).exists():
        print(f"wrote {render} ({render.stat().st_size / 1e6:.1f} MB); keep both files together")
