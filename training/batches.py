"""Batches without end, prefetched; where they continue is a pair of numbers a stream, so that a run can be resumed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framecast.training.footage import Episode, Footage
from framecast.training.view import Picture

AHEAD = 3  # batches that are made while one is used

Position = tuple[tuple[int, int], ...]  # of each stream: number of the episode, and of the frame in it, that come next


@dataclass(frozen=True, eq=False)
class Batch:
    """What one update takes.

    Attributes:
        frames: uint8 [T, B, H, W, C].
        starts: [T, B], where an episode starts: nothing before it explains what follows.
        after: where the next batch begins.
    """

    frames: NDArray[np.uint8]
    starts: NDArray[np.bool_]
    after: Position


class _Stream:
    """Episodes one after the other: a pure function of its seed and of where it is."""

    def __init__(self, footage: Footage, seed: Sequence[int], length: int | None, place: tuple[int, int]) -> None:
        self.footage, self.seed, self.length = footage, seed, length
        self.number, self.age = place
        self.episode: Episode | None = None
        self.frame: Picture | None = None  # that of this place, if it was made

    def take(self, count: int) -> tuple[list[Picture], list[bool]]:
        """So many frames, each with whether it starts an episode.

        A stream goes on at the last of them, from which the first of the next ones is predicted; sequences go on with
        the next episode.
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

    def _here(self) -> Picture:
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
    """An endless iterator of :class:`Batch`; close it.

    Args:
        footage: where the frames come from.
        count: frames of a batch, T; of streams the first is the last one of the batch before.
        batch: streams or sequences, B.
        seed: of all that is drawn.
        carried: streams that go on from batch to batch; otherwise each batch is of sequences of its own.
        position: where to begin; at the beginning without.
    """

    def __init__(
        self, footage: Footage, count: int, batch: int, seed: int, *, carried: bool, position: Position | None = None
    ) -> None:
        self._count = count
        places = position or ((0, 0),) * batch
        length = None if carried else count
        self._streams = [_Stream(footage, (seed, b), length, place) for b, place in enumerate(places)]
        self._makers = ThreadPoolExecutor(min(batch, os.cpu_count() or 1))
        self._order = ThreadPoolExecutor(1)  # one batch after the other, each by all makers
        self._pending: deque[Future[Batch]] = deque(self._order.submit(self._make) for _ in range(AHEAD))

    def __next__(self) -> Batch:
        """The next batch.

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
        """End the threads; what was prefetched is lost."""
        self._order.shutdown(cancel_futures=True)
        self._makers.shutdown()
