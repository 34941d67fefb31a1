"""LPIPS, if torch, the lpips package and AlexNet's weights are already installed. It never downloads anything.

This is the only module of this folder that uses torch, and it imports torch only inside functions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Judge = Callable[[NDArray[Any], Sequence[NDArray[Any]]], list[float]]
WEIGHTS = "alexnet-owt-7be5be79.pth"  # torchvision's, on ImageNet; lpips brings its own linear layers


def find_lpips() -> Judge | str:
    """Return a function that computes LPIPS, or a message that says why it is missing and how to get it.

    The function takes the real frame, [h, w, C] with C = 1 or 3 (BGR), and predictions of the same shape. All are
    uint8, or floats in 0…1 (it clamps them). It returns each prediction's LPIPS (Zhang et al., "The unreasonable
    effectiveness of deep features as a perceptual metric", 2018; AlexNet, version 0.1).
    """
    try:
        import lpips
        import torch
        import torchvision  # noqa: F401 (lpips gets AlexNet from it)
    except ImportError as error:
        return f"LPIPS is left out: {error.name or error} is not installed (pip install lpips torchvision)"
    except RuntimeError as error:  # torchvision was built for another torch
        build = "cpu" if torch.version.cuda is None else f"cu{torch.version.cuda.replace('.', '')}"
        return (
            f"LPIPS is left out: torchvision does not fit torch {torch.__version__} ({error}; pip install torchvision "
            f"--index-url https://download.pytorch.org/whl/{build})"
        )
    weights = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
    if not weights.is_file():
        url = f"https://download.pytorch.org/models/{WEIGHTS}"
        return f"LPIPS is left out: AlexNet's weights are not in {weights.parent} (download {url} into that folder)"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips uses names that torchvision has deprecated
            network = lpips.LPIPS(net="alex", verbose=False).eval()
    except Exception as error:  # noqa: BLE001 (a damaged file fails in many ways)
        return f"LPIPS is left out: {weights} cannot be loaded ({type(error).__name__}; download it again)"

    def judge(truth: NDArray[Any], predictions: Sequence[NDArray[Any]]) -> list[float]:
        batch = torch.from_numpy(np.stack([_rgb(p) for p in predictions]))
        with torch.inference_mode():
            return [float(v) for v in network(batch, torch.from_numpy(_rgb(truth))[None]).flatten()]

    return judge


def _rgb(image: NDArray[Any]) -> NDArray[np.float32]:
    """Convert to [3, h, w], RGB, -1…1."""
    values = image.astype(np.float32) / (255 if image.dtype == np.uint8 else 1)
    colour = np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values[..., ::-1]
    return np.ascontiguousarray(np.clip(colour, 0, 1).transpose(2, 0, 1) * 2 - 1, np.float32)
