"""Draws the learning curves of Moving MNIST from the logs of ``framecast train``: ``python benchmarks/curves.py``.

It reads ``results/training/*-mnist.csv`` and writes ``docs/moving-mnist.png``; of the small networks, it reads
``*-mini.csv`` and writes ``docs/moving-mnist-mini.png``. Each has its own picture, because their budgets differ by far.
A kind without logs has no picture. It needs matplotlib.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt

LOGS = Path(__file__).parent / "results" / "training"
DOCS = Path(__file__).parents[1] / "docs"
PICTURES = {"*-mnist.csv": "moving-mnist.png", "*-mini.csv": "moving-mnist-mini.png"}  # by the names of the logs
COPYING = 282.7  # MSE of copying the last input frame, over the 64 sequences that training scores


def minutes(row: Mapping[str, str]) -> float:
    """Return the CPU minutes of a log's row. Older logs have only minutes; their runs had a core of their own."""
    return float(row.get("cpu_minutes") or row["minutes"])


def draw(logs: Sequence[Path], picture: Path) -> None:
    """Draw the training loss and the error on test sequences over time."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for path in logs:
        with path.open() as file:
            rows = list(csv.DictReader(file))
        left.plot([minutes(row) for row in rows], [float(row["loss"]) for row in rows], label=path.stem)
        scored = [row for row in rows if row["val_mse"]]
        errors = [float(row["val_mse"]) for row in scored]
        right.plot([minutes(row) for row in scored], errors, marker="o", label=path.stem)
    right.axhline(COPYING, color="grey", linestyle="--")
    left.set(xlabel="minutes of one CPU core", ylabel="training loss", yscale="log")
    right.set(xlabel="minutes of one CPU core", ylabel="MSE on 64 test sequences", ylim=(0, None))
    left.legend(loc="upper right", frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def main() -> None:
    """Draw a picture of each kind of network that has logs."""
    for pattern, picture in PICTURES.items():
        if logs := sorted(LOGS.glob(pattern)):
            draw(logs, DOCS / picture)


if __name__ == "__main__":
    main()
