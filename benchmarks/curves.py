"""Draws the learning curves of Moving MNIST from the logs of ``framecast train``: ``python benchmarks/curves.py``.

It reads ``results/training/*-mnist.csv`` and writes ``docs/moving-mnist.png``. It needs matplotlib.
"""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib.pyplot as plt

LOGS = Path(__file__).parent / "results" / "training"
PICTURE = Path(__file__).parents[1] / "docs" / "moving-mnist.png"
COPYING = 282.7  # MSE of copying the last input frame, over the 64 sequences that training scores


def main() -> None:
    """Draw the training loss and the error on test sequences over time."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for path in sorted(LOGS.glob("*-mnist.csv")):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        left.plot([float(row["minutes"]) for row in rows], [float(row["loss"]) for row in rows], label=path.stem)
        scored = [row for row in rows if row["val_mse"]]
        minutes = [float(row["minutes"]) for row in scored]
        right.plot(minutes, [float(row["val_mse"]) for row in scored], marker="o", label=path.stem)
    right.axhline(COPYING, color="grey", linestyle="--")
    left.set(xlabel="minutes of one CPU core", ylabel="training loss", yscale="log")
    right.set(xlabel="minutes of one CPU core", ylabel="MSE on 64 test sequences", ylim=(0, None))
    left.legend(loc="upper right", frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
