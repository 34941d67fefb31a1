"""The papers' ablations, our recipe's, and other sizes, at the compact size.

    python benchmarks/ablations.py DIGITS --out runs/ablations

DIGITS is a folder with MNIST's train-images-idx3-ubyte.gz and t10k-images-idx3-ubyte.gz. Each variant of a network is
trained from each seed by ``framecast train``'s own code, all with the same number of updates, and scored on the first
sequences of ``mnist://``'s test set. One seed of all variants comes first, then the next.

Two compact configurations limit what can be compared. ``stip-mini`` has one stage, so MGIR does nothing in it: STIP's
variants have ``patch=1`` and ``stages=2`` instead. ``stau-mini`` has three layers, so its theta of 5 acts as 3. There
are no variants with tau=1 and theta=1: attention to a single state returns that state, so they would be the networks
without TAM and without SAM.

It runs at the lowest priority, for as long as it takes. Ctrl-C or SIGTERM saves the current run; the same command
continues. Two processes may share FOLDER if they have different ``--networks``. ``--report`` only prints the tables of
what is finished: means over seeds, and for each claim of the papers whether its order holds here.
``--updates 2 --sequences 2`` tries everything in a minute or two.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from _machine import header, script

from framecast.camera.digits import FIXED
from framecast.cli.signals import on_signals
from framecast.files import sha256
from framecast.tables import Table, number, to_markdown
from framecast.training.footage import Digits
from framecast.training.recipes import choose
from framecast.training.sampling import moment, rollout, to_tensor
from framecast.training.settings import Settings
from framecast.training.train import Training

TRAIN, TEST = "train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"
RESULTS = "ablations.jsonl"  # in --out
SEEDS = 3  # fewer decide nothing
BATCH = 20  # sequences scored at once
FULL = "full"


@dataclass(frozen=True)
class Variant:
    """A network with something changed.

    Attributes:
        network: one of ``NETWORKS``.
        name: what is changed, in words.
        options: changed options of the configuration, as for ``--set``.
        recipe: changed fields of the recipe.
    """

    network: str
    name: str = FULL
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name of the folder of its runs."""
        return re.sub(r"[=,]", "", f"{self.network}-{self.name}".replace(" ", "-"))


@dataclass(frozen=True)
class Claim:
    """What a paper says, or our recipe assumes: one variant has a lower error than another.

    Attributes:
        network: one of ``NETWORKS``.
        better: name of the variant that should be better.
        worse: name of the other.
        source: who says so, and where.
    """

    network: str
    better: str
    worse: str
    source: str


NETWORKS = ("stau", "astm", "stip", "tau")  # each paper's; their compact configurations are NAME-mini
# Options that all variants of a network change. MGIR adds nothing in a decoder of one stage, as stip-mini's is.
CHANGED: Mapping[str, Mapping[str, Any]] = {"stip": {"patch": 1, "stages": 2}}
# Other sizes that fit into 1.5 MB as float16. STIP and MAU take STAU's.
SIZES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "stau": (
        {"patch": 4, "hidden": 48}, {"layers": 2, "hidden": 40}, {"layers": 4, "hidden": 24},
        {"kernel": 5, "hidden": 24}, {"stages": 2},
    ),
    "astm": ({"layers": 1, "hidden": 20}, {"layers": 3, "hidden": 11}, {"kernel": 5, "hidden": 10}),
    "tau": (
        {"translator_layers": 2, "hidden_temporal": 192}, {"translator_layers": 3, "hidden_temporal": 160},
        {"translator_layers": 6, "hidden_temporal": 96}, {"encoder_layers": 2},
    ),
}  # fmt: skip


def in_words(changed: Mapping[str, Any]) -> str:
    """Return changed options as words: the name of their variant."""
    return ", ".join(f"{name}={value}" for name, value in changed.items())


VARIANTS = (
    Variant("stau"),
    *(Variant("stau", in_words(changed), changed) for changed in ({"tau": 3}, {"theta": 2})),
    Variant("stau", "without TAM", {"temporal_attention": False}),
    Variant("stau", "without SAM", {"spatial_attention": False}),
    Variant("stau", "without TAM and SAM", {"temporal_attention": False, "spatial_attention": False}),
    # The recipe's choices. Sampling is in the recipe's number of updates, and scaled to the run's.
    Variant("stau", "constant rate of 0.001", recipe={"schedule": "constant", "lr": 1e-3}),
    Variant("stau", "last weights", recipe={"ema": 0.0}),
    Variant("stau", "true frames as inputs", recipe={"sampling_rate": 0.0}),
    Variant("stau", "true frames to the end", recipe={"sampling_rate": 1 / 12_000, "sampling_stop": 12_000}),
    Variant("stau", "predicted frames as inputs", recipe={"sampling_stop": 0}),
    Variant("stau", "longer and longer sequences", recipe={"curriculum": 0.5}),
    Variant("astm"),
    Variant("astm", "tau=2", {"tau": 2}),
    Variant("astm", "without EIFAG", {"eifag": False}),
    Variant("stip"),
    Variant("stip", "without STED", {"sted": False}),
    Variant("stip", "without MGIR", {"mgir": False}),
    Variant("tau"),
    Variant("tau", "without SA", {"spatial_attention": False}),
    Variant("tau", "without DA", {"dynamical_attention": False}),
    Variant("tau", "without SA and DA", {"spatial_attention": False, "dynamical_attention": False}),
    *(Variant("tau", f"alpha={alpha:g}", recipe={"ddr": alpha}) for alpha in (0.0, 0.01, 1.0)),
    *(Variant(network, in_words(size), size) for network, sizes in SIZES.items() for size in sizes),
)
_STAU = "STAU, ablations (Tables 6 to 8)"
CLAIMS = (
    Claim("stau", FULL, "tau=3", _STAU),
    Claim("stau", "tau=3", "without TAM", f"{_STAU}: tau=1"),
    Claim("stau", FULL, "theta=2", _STAU),
    Claim("stau", "theta=2", "without SAM", f"{_STAU}: theta=1"),
    Claim("stau", FULL, "without TAM", _STAU),
    Claim("stau", FULL, "without SAM", _STAU),
    Claim("stau", "without SAM", "without TAM and SAM", _STAU),
    Claim("stau", "without TAM", "without TAM and SAM", _STAU),
    *(Claim("stau", FULL, one.name, "our recipe") for one in VARIANTS if one.network == "stau" and one.recipe),
    Claim("astm", FULL, "without EIFAG", "ASTM, ablation of EIFAG"),
    Claim("astm", FULL, "tau=2", "ASTM, choice of tau"),
    Claim("stip", FULL, "without STED", "STIP, ablation of STED"),
    Claim("stip", FULL, "without MGIR", "STIP, ablation of MGIR"),
    Claim("tau", FULL, "without SA", "TAU, ablation (Table 6)"),
    Claim("tau", FULL, "without DA", "TAU, ablation (Table 6)"),
    Claim("tau", FULL, "alpha=0", "TAU, ablation (Table 6): without DDR"),
    Claim("tau", FULL, "alpha=0.01", "TAU, choice of alpha"),
    Claim("tau", FULL, "alpha=1", "TAU, choice of alpha"),
    *(Claim(network, FULL, in_words(size), "our sizes") for network, sizes in SIZES.items() for size in sizes),
)

Row = dict[str, Any]


def base(network: str) -> tuple[str, dict[str, Any]]:
    """Return the configuration of a network's variants, and the options that they share."""
    return f"{network}-mini", dict(CHANGED.get(network, {}))


def prepare(variant: Variant, seed: int, args: argparse.Namespace) -> Settings:
    """Return the settings of one run. All variants of a network have the same, but for what they change."""
    config, options = base(variant.network)
    changes = {"given": FIXED // 2, "predicted": FIXED // 2, "batch": args.batch, "updates": args.updates}
    if variant.network == "stip":  # only the network is compared: without its discriminator
        changes |= {"perceptual": 0.0, "adversarial": 0.0}
    name, recipe = choose(config, None, **{**changes, **variant.recipe})
    out = args.out / f"{variant.key}-{args.updates}x{args.batch}-{seed}"
    return Settings(
        config=config,
        data=args.digits / TRAIN,
        out=out,
        options={**options, **variant.options},
        name=name,
        recipe=recipe,
        cache=args.out / "frames",
        val=args.digits / TEST,
        every=args.every,
        seed=seed,
        device="cpu",
        licence="CC-BY-SA-3.0",
        resume=(out / "run.json").is_file(),
        command=" ".join(["python", *sys.argv]),
    )


@torch.inference_mode()
def score(training: Training, sequences: int) -> list[float]:
    """Return the MSE of each predicted frame on the first test sequences: a frame's squared errors, summed."""
    recipe, model = training.recipe, training.trainer.average
    total = torch.zeros(recipe.predicted, dtype=torch.float64)
    if not isinstance(training.scored, Digits):
        raise TypeError("a run without test digits has no score")
    for first in range(0, sequences, BATCH):
        indices = range(first, min(first + BATCH, sequences))
        moments = [moment(training.scored, recipe.given + recipe.predicted, index) for index in indices]
        frames = torch.cat([to_tensor(model, frames) for frames in moments], dim=1)  # [T, B, 1, H, W]
        guesses = rollout(model, frames[: recipe.given], recipe.predicted)  # [B, K, 1, H, W]
        wrong = guesses - frames[recipe.given :].transpose(0, 1)
        total += wrong.double().square().sum((0, 2, 3, 4)).cpu()
    return [float(value) / sequences for value in total]


def run(variant: Variant, seed: int, args: argparse.Namespace, stop: threading.Event) -> Row | None:
    """Train or continue one run, and score it; None if it was stopped."""
    settings = prepare(variant, seed, args)
    print(f"{variant.network}, {variant.name}, seed {seed}: {settings.out}", flush=True)
    training = Training(settings, lambda line: None)
    if not training.go(lambda at: None, stop.is_set):
        return None
    mse = score(training, args.sequences)
    return {
        "network": variant.network,
        "variant": variant.name,
        "seed": seed,
        "config": settings.config,
        "digits": digits(args),
        "updates": args.updates,
        "batch": args.batch,
        "sequences": args.sequences,
        "parameters": sum(parameter.numel() for parameter in training.trainer.average.parameters()),
        "cpu_minutes": round(training.cpu_minutes, 2),
        "mse": mse,
    }


def verdict(better: Sequence[float], worse: Sequence[float]) -> str:
    """Say whether ``better`` has the lower errors. Both have one error per seed, of the same seeds.

    The order holds if every seed shows it. A difference of means that the seeds do not agree on may be chance, and so
    may be what fewer than three seeds agree on: neither decides.
    """
    pairs = list(zip(better, worse, strict=True))
    lower, higher, count = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs), len(pairs)
    decided = count >= SEEDS and count in (lower, higher)
    return f"{('holds' if lower else 'does not hold') if decided else 'not decided'} ({lower} of {count} seeds)"


def report(rows: Sequence[Row]) -> str:
    """Return the tables: each variant's error over the seeds, and the verdict on each claim."""
    found: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        found.setdefault((row["network"], row["variant"]), {})[row["seed"]] = row
    return f"{to_markdown(_errors(found))}\n{to_markdown(_claims(found))}"


def _errors(found: Mapping[tuple[str, str], Mapping[int, Row]]) -> Table:
    rows = []
    for variant in VARIANTS:
        if seeds := found.get((variant.network, variant.name)):
            every = [mean(row["mse"]) for row in seeds.values()]
            first, last = (mean(row["mse"][at] for row in seeds.values()) for at in (0, -1))
            spread = f"{mean(every):.1f} ({min(every):.1f} to {max(every):.1f})"
            size = f"{next(iter(seeds.values()))['parameters']:,d}"
            minutes = mean(row["cpu_minutes"] for row in seeds.values())
            cells = (size, str(len(seeds)), spread, f"{first:.1f}", f"{last:.1f}", f"{minutes:.1f}")
            rows.append((f"{variant.network}, {variant.name}", *cells))
    columns = ("network", "parameters", "seeds", "MSE", "first frame", "last frame", "CPU minutes")
    return Table("MSE: mean over the seeds, and from the least to the most", columns, rows)


def _claims(found: Mapping[tuple[str, str], Mapping[int, Row]]) -> Table:
    rows = []
    for claim in CLAIMS:
        one, other = (found.get((claim.network, name), {}) for name in (claim.better, claim.worse))
        if shared := sorted(one.keys() & other.keys()):
            a, b = ([mean(of[seed]["mse"]) for seed in shared] for of in (one, other))
            gain = f"{number(100 * (1 - mean(a) / mean(b)), '+.1f')} %"
            what = f"{claim.network}: {claim.better} is better than {claim.worse}"
            rows.append((what, verdict(a, b), gain, claim.source))
    return Table("what the papers claim, and our choices assume", ("claim", "here", "MSE lower by", "source"), rows)


def finished(args: argparse.Namespace) -> list[Row]:
    """Return the rows of earlier calls with the same digits and the same budget."""
    path = args.out / RESULTS
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    same = {"digits": digits(args), "updates": args.updates, "batch": args.batch, "sequences": args.sequences}
    return [row for row in rows if same.items() <= row.items()]


def digits(args: argparse.Namespace) -> list[str]:
    """Return the SHA-256 of the digits to train and to score on: results of others do not count."""
    return [sha256(args.digits / name) for name in (TRAIN, TEST)]


def keep(row: Row, args: argparse.Namespace) -> None:
    """Add a row to those of earlier calls, whatever their budget. Another process may do the same."""
    with (args.out / RESULTS).open("a") as file:
        file.write(f"{json.dumps(row)}\n")


def main() -> None:
    """Train what is not finished yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path, metavar="DIGITS")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="folder of the runs and their results"
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N")
    parser.add_argument("--updates", type=int, default=20_000, metavar="N", help="of each run (default: 20000)")
    parser.add_argument("--batch", type=int, default=8, metavar="N")
    parser.add_argument(
        "--sequences", type=int, default=500, metavar="N", help="test sequences to score (default: 500)"
    )
    parser.add_argument("--every", type=float, default=15, metavar="M", help="minutes between checkpoints")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args()
    if args.sequences < 1:
        parser.error(f"--sequences must be 1 or more, not {args.sequences}")
    for name in (TRAIN, TEST):
        if not (args.digits / name).is_file():
            parser.error(f"no {name} in {args.digits}: give the folder of MNIST's files")
    os.nice(19)
    torch.set_num_threads(args.threads)
    rows, stop = finished(args), threading.Event()
    done = {(row["network"], row["variant"], row["seed"]) for row in rows}
    with on_signals(stop.set):
        for seed in range(1, 1 if args.report else args.seeds + 1):
            for variant in VARIANTS:
                if variant.network not in args.networks or (variant.network, variant.name, seed) in done:
                    continue
                row = None if stop.is_set() else run(variant, seed, args, stop)
                if row is None:
                    sys.exit("stopped: the same command continues")
                rows.append(row)
                keep(row, args)
    print(f"{header()}\n\n{args.updates} updates of {args.batch} sequences; MSE on {args.sequences} test sequences\n")
    print(report(rows))


if __name__ == "__main__":
    script(main)
