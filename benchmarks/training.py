"""Sequences that the small networks train on in a second: ``python benchmarks/training.py DIGITS [NETWORK…]``.

DIGITS is MNIST's train-images-idx3-ubyte.gz. Each way of training makes one update in turn, ``--rounds`` times, with
the batch of the recipe. The figures are medians: sequences a second of wall time and of CPU time, and the ratio of wall
times to the first way. Between two figures of one way lie all the others, so a slow minute of the machine hits all.

``--compile`` adds torch.compile; it takes minutes before the first update. ``--parts`` prints instead what takes an
update's CPU time, by the recipe and with one thread. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _machine import header, script

from framecast.models.configs import build
from framecast.models.step import StepModel
from framecast.tables import Table, to_markdown
from framecast.training.batches import Batches
from framecast.training.footage import open_footage
from framecast.training.recipes import Recipe, choose
from framecast.training.trainer import Trainer
from framecast.training.view import View

NETWORKS = ("stip-mini", "stau-mini", "mau-mini", "astm-mini", "tau-mini")
WARM = 2  # updates before the first that counts
PARTS = {"forward": "_objective", "backward": "_backward", "optimiser and average": "_step"}  # methods of the trainer


@dataclass
class Way:
    """A way of training.

    Attributes:
        name: what differs.
        precision: of the recipe.
        threads: of torch.
        channels_last: whether convolutions keep their weights, and so their results, in that order.
        compiled: whether torch.compile makes the step.
    """

    name: str
    precision: str
    threads: int = 1
    channels_last: bool = False
    compiled: bool = False
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def trainer(self, network: str, model: StepModel) -> Trainer:
        """Return a trainer of a copy of the network."""
        model = copy.deepcopy(model)
        if self.channels_last:
            for parameter in model.parameters():
                if parameter.dim() == 4:  # the weights of a convolution
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        _, recipe = choose(network, "mini", precision=self.precision)
        trainer = Trainer(model, recipe)
        if self.compiled:
            for name in ("encode", "predict") if hasattr(model, "encode") else ("step",):
                setattr(model, name, torch.compile(getattr(model, name)))
        return trainer


def ways(*, compiled: bool) -> list[Way]:
    """Return the ways to compare; the first is the plain one."""
    found = [
        Way("float32", "fp32"),
        Way("bfloat16 (the recipe)", "bf16"),
        Way("bfloat16, channels-last", "bf16", channels_last=True),
        Way("bfloat16, two threads", "bf16", threads=2),
    ]
    return [*found, Way("bfloat16, torch.compile", "bf16", compiled=True)] if compiled else found


def opened(network: str, digits: Path, cache: Path) -> tuple[StepModel, Recipe, Batches]:
    """Return an untrained network, its recipe and its batches."""
    torch.manual_seed(0)
    model, (_, recipe) = build(network), choose(network, "mini")
    view = View.of(network, model.frame_shape)
    footage = open_footage(digits, view, cache, recipe.frames, print, scored=False, layout=None, augment=recipe.augment)
    return model, recipe, Batches(footage, recipe.frames, recipe.batch, 0, carried=False, position=None)


def parts(network: str, digits: Path, cache: Path, rounds: int) -> Sequence[str]:
    """Return a row: what takes an update's CPU time, as shares. The data are made alone, before the updates."""
    torch.set_num_threads(1)
    model, recipe, batches = opened(network, digits, cache)
    trainer, spent = Trainer(model, recipe), defaultdict[str, float](float)

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any) -> Any:
            begun = time.process_time()
            result = call(*arguments)
            spent[name] += time.process_time() - begun
            return result

        return measured

    made = timed("data", lambda: [next(batches) for _ in range(WARM + rounds)])()
    batches.close()
    spent["data"] *= rounds / len(made)
    whole = timed("all", trainer.update)
    for number, batch in enumerate(made):
        if number == WARM:
            for name, method in PARTS.items():
                setattr(trainer, method, timed(name, getattr(trainer, method)))
        (whole if number >= WARM else trainer.update)(batch, 0.3)
    total = spent["all"] + spent["data"]
    known = [spent["data"], *(spent[name] for name in PARTS)]
    shares = [100 * value / total for value in (*known, total - sum(known))]
    return f"`{network}`", str(recipe.batch), f"{total / rounds:.2f}", *(f"{share:.1f} %" for share in shares)


def measure(network: str, digits: Path, cache: Path, rounds: int, *, compiled: bool) -> Table:
    """Return the table of one network."""
    found = ways(compiled=compiled)
    model, recipe, batches = opened(network, digits, cache)
    trainers = [way.trainer(network, model) for way in found]
    for number in range(WARM + rounds):
        batch = next(batches)
        for way, trainer in zip(found, trainers, strict=True):
            torch.set_num_threads(way.threads)
            wall, cpu = time.perf_counter(), time.process_time()
            trainer.update(batch, 0.3)
            if number >= WARM:
                way.wall.append(time.perf_counter() - wall)
                way.cpu.append(time.process_time() - cpu)
    batches.close()
    rows = [row(way, found[0], recipe.batch) for way in found]
    columns = ("way", "sequences a second", "a second of CPU time", "wall time, as a share of the first's")
    return Table(f"{network}, batch {recipe.batch}, {rounds} updates each", columns, rows)


def row(way: Way, first: Way, batch: int) -> Sequence[str]:
    """Return a row of the table."""
    ratio = median(ours / theirs for ours, theirs in zip(way.wall, first.wall, strict=True))
    return way.name, f"{batch / median(way.wall):.1f}", f"{batch / median(way.cpu):.1f}", f"{ratio:.2f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path, metavar="DIGITS")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"default: {', '.join(NETWORKS)}")
    parser.add_argument("--rounds", type=int, default=9, metavar="N")
    parser.add_argument("--cache", type=Path, default=Path("frames"), metavar="FOLDER")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--parts", action="store_true")
    args = parser.parse_args()
    print(header())
    networks = args.networks or NETWORKS
    if args.parts:
        columns = ("network", "batch", "CPU seconds of an update", "data", *PARTS, "the rest")
        rows = [parts(network, args.digits, args.cache, args.rounds) for network in networks]
        print(f"\n{to_markdown(Table(f'an update, mean of {args.rounds}', columns, rows))}")
        return
    for network in networks:
        table = measure(network, args.digits, args.cache, args.rounds, compiled=args.compile)
        print(f"\n{to_markdown(table)}", flush=True)


if __name__ == "__main__":
    script(main)
