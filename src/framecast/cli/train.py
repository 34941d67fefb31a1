"""``framecast train``."""

from __future__ import annotations

import math
import shlex
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framecast.cli.checks import check_outputs
from framecast.cli.complete import LAYOUTS_HELP, complete_configs, complete_layouts
from framecast.cli.extras import needs_extra
from framecast.cli.progress import progress, say
from framecast.cli.settings import Settings
from framecast.cli.signals import on_signals
from framecast.errors import OptionError

if TYPE_CHECKING:
    from framecast.training.train import Progress


def train(
    config: Annotated[
        str,
        typer.Argument(metavar="CONFIG", help="A name that 'framecast models' lists.", autocompletion=complete_configs),
    ],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A video, a folder of videos, MNIST's train-images-idx3-ubyte(.gz), or for tau-taxibj TaxiBJ's "
            "dataset.npz.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Folder for the weights, the checkpoint, the log and the samples."
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Training recipe; mini is ours for two cores (default: the network's)."),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Validate on these videos, on t10k-images-idx3-ubyte(.gz), or on the test sequences of dataset.npz.",
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"DATA, and --val, hold this data set: train on its clips for training, validate on those for tests. "
            f"{LAYOUTS_HELP}",
            autocompletion=complete_layouts,
        ),
    ] = None,
    settings: Settings = None,
    updates: Annotated[int | None, typer.Option(metavar="N", help="Number of updates (default: the recipe's).")] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="M", help="Train for M minutes, including validation, instead of --updates.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="N", help="Batch size: streams or sequences (default: the recipe's).")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(metavar="RATE", help="Peak learning rate (default: the recipe's).")
    ] = None,
    perceptual: Annotated[
        float | None, typer.Option(metavar="W", help="Weight of STIP's perceptual loss; 0 leaves it out.")
    ] = None,
    adversarial: Annotated[
        float | None, typer.Option(metavar="W", help="Weight of STIP's adversarial loss; 0 leaves it out.")
    ] = None,
    ddr: Annotated[
        float | None, typer.Option(metavar="W", help="Weight of TAU's differential divergence; 0 leaves it out.")
    ] = None,
    augment: Annotated[
        bool | None, typer.Option("--augment/--no-augment", help="Augment videos (default: the recipe's).")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the initial weights and of the data order.")] = 1,
    every: Annotated[float, typer.Option(metavar="M", help="Save and validate every M minutes.")] = 15,
    precision: Annotated[
        str | None, typer.Option(metavar="NAME", help="fp32, bf16, or fp16 (CUDA only) (default: the recipe's).")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")] = "auto",
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Start from these weights, .safetensors.")
    ] = None,
    licence: Annotated[str, typer.Option(metavar="NAME", help="Licence of the weights.")] = "unknown",
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for decoded frames (default: frames/ next to --output)."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run: repeat its command and add this option.")
    ] = False,
) -> None:
    """Train a network on videos, digits or TaxiBJ.

    Ctrl-C saves the run, and the same command with --resume continues it. On the CPU, the result equals that of an
    uninterrupted run bit for bit.
    """
    from framecast.models.configs import CONFIGS, find_network, parse

    find_network(config)  # a wrong name fails before a missing torch
    if updates is not None and minutes is not None:
        raise OptionError("give --updates or --minutes, not both")
    with needs_extra("train"):
        from framecast.files import sha256
        from framecast.training.footage import Flows, Videos
        from framecast.training.recipes import choose
        from framecast.training.settings import Settings as RunSettings
        from framecast.training.settings import Start
        from framecast.training.train import Training

        options = parse(config, settings or [])
    name, chosen = choose(
        config, recipe, updates=updates, batch=batch, lr=lr, precision=precision, perceptual=perceptual,
        adversarial=adversarial, ddr=ddr, augment=augment,
    )  # fmt: skip
    for place in (data, *([val] if val else [])):
        check_outputs(str(place), [output / "weights.safetensors"])
    start = None
    if weights is not None:
        with needs_extra("train --weights"):
            from framecast.export.load_network import load_trained
        model, manifest = load_trained(config, weights, options)
        options = {k: v for k, v in manifest.options.items() if CONFIGS[config].options.get(k) != v}
        start = Start(weights.name, sha256(weights), manifest.weights, model.state_dict())
    run = RunSettings(
        config, data, output, options, name, chosen, cache or output.parent / "frames", val, minutes, every, seed,
        layout, device, licence, resume, start, shlex.join(["framecast", *sys.argv[1:]]),
    )  # fmt: skip
    training = Training(run, say)
    before = training.trainer.updates
    stop = threading.Event()
    with on_signals(stop.set), progress(silent=0) as show:
        finished = training.go(lambda at: show(at.done, _words(at)), stop.is_set)
    done = f"{training.trainer.updates} updates in {training.minutes:.1f} minutes"
    if not finished:
        again = run.command if resume else f"{run.command} --resume"
        print(f"stopped after {done}; continue with: {again}", file=sys.stderr)
        raise typer.Exit(130)
    artifact = output / f"{config}.onnx"
    said = "trained" if training.trainer.updates > before else "nothing left to train"
    print(f"{said}: {done}; {output / 'weights.safetensors'}")
    print("next:")
    flows = isinstance(training.footage, Flows)
    watched: tuple[object, ...] = ("mnist://?seed=1", "--horizon", chosen.predicted)
    others: object = f"mnist://{val or 't10k-images-idx3-ubyte.gz'}?seed=0"
    if flows:
        others = val or data
    elif isinstance(training.footage, Videos):
        watched, others = (0,), val or "OTHER_VIDEOS/"
    # As in training, all frames are predicted at once.
    outputs = ("--set", f"outputs={training.trainer.model.outputs}") if flows else ()
    for words in (
        ("export", config, "--weights", output / "weights.safetensors", "-o", artifact, *outputs),
        *([] if flows else [("run", *watched, "--model", artifact)]),
        ("eval", artifact, others, *(("--layout", layout) if layout else ())),
    ):
        print(" ", shlex.join(map(str, ("framecast", *words))))


def _words(at: Progress) -> str:
    if at.scoring:
        return f"validating on --val: {at.scoring}"
    left = f"  {at.left:.0f} min left" if math.isfinite(at.left) else ""
    skipped = f"  {at.skipped} skipped" if at.skipped else ""
    return f"{at.updates} updates  loss {at.loss:.4g}  {at.fps:.1f} frames/s{left}{skipped}"
