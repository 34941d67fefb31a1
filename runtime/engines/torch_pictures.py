"""Moves pictures to PyTorch's device and back: page-locked memory, colours, value ranges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.camera.pool import Pool
from framecast.graph.manifest import Manifest

Tensor = Any  # a torch.Tensor; importing this module must not need torch
# Convert a picture's channels (BGR, the last axis) to the network's, and back. They use no index
# list, because torch would upload it each time.
_TAKE: Mapping[str, Callable[[Any], Any]] = {
    "BGR": lambda picture: picture,
    "RGB": lambda picture: picture.flip(-1),
    "GRAY": lambda picture: picture[..., :1],
}
_GIVE: Mapping[str, Callable[[Any], Any]] = {
    **_TAKE,
    "GRAY": lambda picture: picture.expand(*picture.shape[:-1], 3),
}


class Input:
    """A device tensor for host arrays of one shape, uploaded through page-locked memory."""

    def __init__(self, array: NDArray[Any], device: Any) -> None:
        import torch

        self.host = torch.empty(array.shape, dtype=getattr(torch, str(array.dtype)), pin_memory=device.type == "cuda")
        self.device = self.host.to(device)
        self._uploaded = torch.cuda.Event() if device.type == "cuda" else None

    def put(self, array: NDArray[Any]) -> Any:
        """Copy an array to the device. On CUDA this does not wait for the copy."""
        if self._uploaded is None:
            np.copyto(self.device.numpy(), array)
        else:
            if not self._uploaded.query():  # never waits in a live stream: a prediction has been read since
                self._uploaded.synchronize()
            np.copyto(self.host.numpy(), array)
            self.device.copy_(self.host, non_blocking=True)
            self._uploaded.record()
        return self.device


class Pictures:
    """A state's predictions as pictures, with a flag for each row, in one tensor, so that one transfer is enough.

    Attributes:
        finite: [B] uint8, 1 if all of a row's predictions are finite.
        shown: [B, K, h, w, 3] uint8 BGR.
    """

    def __init__(self, batch: int, manifest: Manifest, device: Any) -> None:
        import torch

        width, height = manifest.size
        shape = (batch, manifest.outputs, height, width, 3)
        on_gpu = device.type == "cuda"
        self._manifest, self._batch, self._pool = manifest, batch, Pool()
        self._all = torch.zeros(batch + math.prod(shape), dtype=torch.uint8, device=device)
        self.finite, self.shown = self._all[:batch], self._all[batch:].view(shape)
        # Page-locked, because the driver copies to other memory in pieces and waits for each.
        self._host = torch.empty(self._all.shape, dtype=torch.uint8, pin_memory=True) if on_gpu else self._all
        self._arrived = torch.cuda.Event() if on_gpu else None

    def show(self, prediction: Tensor) -> None:
        """Write predictions, [B, K, C, H, W], as pictures, like :func:`framecast.runtime.convert.to_image`."""
        low, high = self._manifest.value_range
        width, height = self._manifest.size
        values = prediction[..., :height, :width]
        values = ((values - low if low else values) * np.float32(255 / (high - low)).item()).round_().clamp_(0, 255)
        self.shown.copy_(_GIVE[self._manifest.channel_order](values.permute(0, 1, 3, 4, 2)))
        self.finite.copy_(prediction.isfinite().flatten(1).all(1))

    def fetch(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Wait for ``finite`` and ``shown``, and return copies. This is a frame's only wait."""
        if self._arrived is not None:
            self._host.copy_(self._all, non_blocking=True)
            self._arrived.record()
            self._arrived.synchronize()
        import torch

        copied = self._pool.take(tuple(self._all.shape))
        torch.from_numpy(copied).copy_(self._host)  # torch copies large pictures with several threads
        return copied[: self._batch], copied[self._batch :].reshape(tuple(self.shown.shape))


def to_frame(manifest: Manifest, picture: Tensor) -> Tensor:
    """Convert [B, h, w, 3] uint8 BGR to [B, C, H, W], like :func:`framecast.runtime.convert.to_frame`."""
    from torch.nn import functional

    low, high = manifest.value_range
    (width, height), (_, rows, columns) = manifest.size, manifest.frame
    frame = _TAKE[manifest.channel_order](picture).permute(0, 3, 1, 2).float()
    frame = frame * np.float32((high - low) / 255).item()
    frame = frame + low if low else frame  # saves a pass over the frame if low is 0
    return functional.pad(frame, (0, columns - width, 0, rows - height), value=low)
