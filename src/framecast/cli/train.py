"""``framecast train``."""

from __future__ import annotations

import math
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framecast.cli.shared import Settings, check_outputs, needs_extra, on_signals, say
from framecast.errors import OptionError

if TYPE_CHECKING:
    from framecast.training import train as command

SAID = 30.0  # seconds between lines where there is no terminal


def train(
    config: Annotated[str, typer.Argument(help="A configuration's name (framecast models).")],
    data: Annotated[Path, typer.Argument(help="A folder of videos, or MNIST's train-images-idx3-ubyte(.gz).")],
    out: Annotated[Path, typer.Option(help="The run's folder: weights, checkpoint, log, samples.")],
    recipe: Annotated[str | None, typer.Option(help="How it is trained; the configuration's own without.")] = None,
    val: Annotated[Path | None, typer.Option(help="Other videos (or t10k-images-idx3-ubyte), to score on.")] = None,
    settings: Settings = None,
    updates: Annotated[int | None, typer.Option(help="Length of the run; the recipe's without.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Length of the run in wall time, in place of updates.")] = None,
    batch: Annotated[int | None, typer.Option(help="Streams or sequences side by side.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate at its height.")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights and the data's order.")] = 1,
    every: Annotated[float, typer.Option(help="Minutes between checkpoints (and scores).")] = 15,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, or fp16 (CUDA only).")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    weights: Annotated[Path | None, typer.Option(help="Weights to begin with, .safetensors.")] = None,
    licence: Annotated[str, typer.Option(help="Of the weights: what the videos allow.")] = "unknown",
    cache: Annotated[Path | None, typer.Option(help="Folder for decoded frames; frames/ beside the run's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run: the same command, and this.")] = False,
) -> None:
    """Train a network on a folder of videos, or on Moving MNIST. Ctrl-C saves; --resume goes on, bit for bit."""
    from framecast.models.configs import CONFIGS, find, parse

    if not find(config).data.is_picture:  # said before torch is asked for
        raise OptionError(f"{config} takes channels that are no picture: it cannot be trained on videos or digits")
    if updates is not None and minutes is not None:
        raise OptionError("give --updates or --minutes, not both")
    with needs_extra("train"):
        from framecast.files import sha256
        from framecast.training.recipes import choose
        from framecast.training.settings import Settings as Told
        from framecast.training.train import Training

        options = parse(config, settings or [])
    name, chosen = choose(config, recipe, updates=updates, batch=batch, lr=lr, precision=precision)
    for place in (data, *([val] if val else [])):
        check_outputs(str(place), [out / "weights.safetensors"])
    start = None
    if weights is not None:
        with needs_extra("train --weights"):
            from framecast.export.load_network import load_trained
        model, manifest = load_trained(config, weights, options)
        options = {k: v for k, v in manifest.options.items() if CONFIGS[config].options.get(k) != v}
        start = (weights.name, sha256(weights), model.state_dict())
    told = Told(
        config, data, out, options, name, chosen, cache or out.parent / "frames", val, minutes, every, seed, device,
        licence, resume, start, shlex.join(["framecast", *sys.argv[1:]]),
    )  # fmt: skip
    training = Training(told, say)
    stop = threading.Event()
    with on_signals(stop.set), _progress() as show:
        finished = training.go(show, stop.is_set)
    done = f"{training.trainer.updates} updates in {training.minutes:.1f} minutes"
    if not finished:
        again = told.command if resume else f"{told.command} --resume"
        print(f"stopped after {done}; go on with: {again}", file=sys.stderr)
        raise typer.Exit(130)
    artifact = out / f"{config}.onnx"
    print(f"trained: {done}; {out / 'weights.safetensors'}")
    print("next:")
    others = val if val and val.is_dir() else "OTHER_VIDEOS/" if data.is_dir() else "TEST.npy"
    for words in (
        ("export", config, "--weights", out / "weights.safetensors", "-o", artifact),
        ("run", 0, "--model", artifact),
        ("eval", artifact, others),
    ):
        print(" ", shlex.join(map(str, ("framecast", *words))))


@contextmanager
def _progress() -> Iterator[Callable[[command.Progress], None]]:
    """Yield what shows how far a run is: a bar on a terminal, or else a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    def words(at: command.Progress) -> str:
        left = f"{at.left:.0f} min left" if math.isfinite(at.left) else ""
        skipped = f"  {at.skipped} skipped" if at.skipped else ""
        return f"{at.updates} updates  loss {at.loss:.4g}  {at.fps:.1f} frames/s  {left}{skipped}"

    console = Console(stderr=True)
    if not console.is_terminal:
        said = -SAID

        def line(at: command.Progress) -> None:
            nonlocal said
            if time.monotonic() - said >= SAID:
                said = time.monotonic()
                say(f"{at.done:6.1%}  {words(at)}")

        yield line
        return
    with Progress(BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[words]}"), console=console) as bar:
        task = bar.add_task("", total=1.0, words="")
        yield lambda at: bar.update(task, completed=at.done, words=words(at))
