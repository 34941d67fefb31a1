"""Moving MNIST rendered on the training device: the same frames as from :class:`Batches`, bit for bit.

Only a few numbers per sequence are random. The host draws them with the same generators, so they do not depend on the
device. The device then gathers the pictures from the digits, which it keeps in its memory.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from framecast.camera.moving_mnist import DIGIT, MovingMNIST
from framecast.training.batches import Batch, Position
from framecast.training.footage import Digits

# For the CPU, the threads of Batches are three times as fast as this class.
DEVICES = frozenset({"cuda"})


class Rendered:
    """An endless iterator of batches of new sequences, equal to those of ``Batches(…, carried=False)``.

    Args:
        footage: the digits.
        count: frames of a sequence, T.
        batch: number of sequences, B.
        seed: seed of all random draws.
        device: device that makes the frames.
        position: where to begin (default: at the start).
    """

    def __init__(
        self,
        footage: Digits,
        count: int,
        batch: int,
        seed: int,
        device: torch.device,
        *,
        position: Position | None = None,
    ) -> None:
        self._source = MovingMNIST(footage.digits, size=footage.view.shape[1], length=count)
        self._seed, self._device = seed, device
        self._numbers = [number for number, _ in position or ((0, 0),) * batch]
        # An extra row and column of zeros, for the pixels outside a digit.
        self._digits = functional.pad(torch.from_numpy(footage.digits.copy()).to(device), (0, 1, 0, 1))
        self._starts = np.zeros((count, batch), np.bool_)
        self._starts[0] = True

    def __next__(self) -> Batch:
        """Return the next batch."""
        rngs = [np.random.default_rng([self._seed, b, number]) for b, number in enumerate(self._numbers)]
        corners, digits = self._source.scenes(rngs)
        self._numbers = [number + 1 for number in self._numbers]
        host = torch.from_numpy(np.concatenate([corners.ravel(), digits.ravel()]))  # one upload for both
        sent = host.to(self._device, non_blocking=True)
        places, chosen = sent[: corners.size].view(corners.shape), sent[corners.size :].view(digits.shape)
        return Batch(self._render(places, chosen), self._starts, tuple((number, 0) for number in self._numbers))

    def _render(self, corners: Tensor, digits: Tensor) -> Tensor:
        """Return frames, uint8 [T, B, H, W, 1], of corners [B, count, T, 2] and digits [B, count]."""
        frames: Tensor | None = None
        for which in range(digits.shape[1]):
            rows, columns = (self._offsets(corners[:, which, :, axis]) for axis in (0, 1))  # [T, B, H], [T, B, W]
            digit = self._digits[digits[:, which][None, :, None, None], rows[..., :, None], columns[..., None, :]]
            frames = digit if frames is None else torch.maximum(frames, digit)
        assert frames is not None  # noqa: S101 (there is at least one digit)
        return frames.unsqueeze(-1)

    def _offsets(self, corner: Tensor) -> Tensor:
        """Return the row of the digit that each row of the picture shows, [T, B, H]; ``DIGIT`` for none."""
        offsets = torch.arange(self._source.size, device=self._device) - corner.T[..., None]
        return offsets.where((offsets >= 0) & (offsets < DIGIT), DIGIT)

    def close(self) -> None:
        """Do nothing: nothing is prefetched."""
