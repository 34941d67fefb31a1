"""Endless, prefetched batches. A pair of numbers per stream says where they continue, so that a run can resume."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from framecast.training.footage import Episode, Footage
from framecast.training.view import Frame

AHEAD = 3  # batches to prepare while one is used

Position = tuple[tuple[int, int], ...]  # for each stream: number of the next episode, and of the next frame in it


@dataclass(frozen=True, eq=False)
class Batch:
    """The data of one update.

    Attributes:
        frames: [T, B, H, W, C], uint8 or, of traffic, float32; on the host, or as a tensor on the device that needs it.
        starts: [T, B], true where an episode starts. Earlier frames then show another scene.
        after: position of the next batch.
    """

    frames: Frame | Tensor
    starts: NDArray[np.bool_]
    after: Position


class _Stream:
    """Episodes one after the other. They depend only on the seed and the position."""

    def __init__(self, footage: Footage, seed: Sequence[int], length: int | None, place: tuple[int, int]) -> None:
        self.footage, self.seed, self.length = footage, seed, length
        self.number, self.age = place
        self.episode: Episode | None = None
        self.frame: Frame | None = None  # the frame at this position; None until it is made

    def take(self, count: int) -> tuple[list[Frame], list[bool]]:
        """Return ``count`` frames, and for each whether it starts an episode.

        The next call on a stream starts with the last of these frames, so that its successor is predicted too. The next
        call on sequences starts a new episode.
        """
        taken, starts = [], []
        for index in range(count):
            if index:
                self._go_on()
            taken.append(self._here())
            starts.append(self.age == 0)
        if self.length is not None:
            self._next_episode()
        return taken, starts

    def _here(self) -> Frame:
        if self.episode is None:
            self.episode = self.footage.episode([*self.seed, self.number], self.length)
        if self.frame is None:
            self.frame = self.episode.frame(self.age)
        return self.frame

    def _go_on(self) -> None:
        if self.episode is not None and self.age + 1 < len(self.episode):
            self.age, self.frame = self.age + 1, None
        else:
            self._next_episode()

    def _next_episode(self) -> None:
        self.number, self.age, self.episode, self.frame = self.number + 1, 0, None, None


class Batches:
    """An endless iterator of :class:`Batch`. The caller must close it.

    Args:
        footage: source of the frames.
        count: frames per batch, T; in streams the first frame is the last one of the previous batch.
        batch: number of streams or sequences, B.
        seed: seed of all random draws.
        carried: True for streams that continue from batch to batch; False for new sequences in each batch.
        position: where to begin (default: at the start).
    """

    def __init__(
        self, footage: Footage, count: int, batch: int, seed: int, *, carried: bool, position: Position | None = None
    ) -> None:
        self._count = count
        places = position or ((0, 0),) * batch
        length = None if carried else count
        self._streams = [_Stream(footage, (seed, b), length, place) for b, place in enumerate(places)]
        self._makers = ThreadPoolExecutor(min(batch, os.cpu_count() or 1))
        self._order = ThreadPoolExecutor(1)  # one thread: batches are made one at a time, each by all makers
        self._pending: deque[Future[Batch]] = deque(self._order.submit(self._make) for _ in range(AHEAD))

    def __next__(self) -> Batch:
        """Return the next batch.

        Raises:
            FramecastError: the footage was lost.
        """
        batch = self._pending.popleft().result()
        self._pending.append(self._order.submit(self._make))
        return batch

    def _make(self) -> Batch:
        taken = list(self._makers.map(lambda stream: stream.take(self._count), self._streams))
        frames = np.stack([np.stack(frames) for frames, _ in taken], axis=1)
        starts = np.array([starts for _, starts in taken]).T
        return Batch(frames, starts, tuple((stream.number, stream.age) for stream in self._streams))

    def close(self) -> None:
        """End the threads, and discard the prefetched batches."""
        self._order.shutdown(cancel_futures=True)
        self._makers.shutdown()
