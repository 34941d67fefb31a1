"""The contestants of ``now.py``, and the loop that scores them and measures their CPU time, alternating per frame."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from _now_clips import Clip
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.runtime.dis import DisFlow
from framecast.runtime.predictor import Predictor
from framecast.runtime.score import SETTLE, psnr

COPY, DIS = "copying", "DIS medium"


class Method(ABC):
    """Predicts a stream.

    Attributes:
        name: name in the tables.
    """

    name: str

    @abstractmethod
    def reset(self) -> None:
        """Forget the stream."""

    @abstractmethod
    def see(self, frame: Image, time: float) -> None:
        """Take the newest frame and its time in seconds."""

    @abstractmethod
    def at(self, ahead: float) -> Image:
        """Return the picture ``ahead`` seconds after the newest frame."""


class Copy(Method):
    """Shows the newest frame."""

    name = COPY

    def reset(self) -> None:
        """See :meth:`Method.reset`."""

    def see(self, frame: Image, time: float) -> None:
        """See :meth:`Method.see`."""
        self._frame = frame

    def at(self, ahead: float) -> Image:
        """See :meth:`Method.at`."""
        return self._frame


class Dis(Method):
    """OpenCV's DIS flow, medium preset, at constant velocity (:class:`framecast.runtime.dis.DisFlow`)."""

    name = DIS

    def __init__(self) -> None:
        self._dis = DisFlow()
        self.reset()

    def reset(self) -> None:
        """See :meth:`Method.reset`."""
        self._newest: tuple[Image, float] | None = None
        self._flow: NDArray[np.float32] | None = None

    def see(self, frame: Image, time: float) -> None:
        """See :meth:`Method.see`."""
        if self._newest is not None:
            self._flow, self._elapsed = self._dis.flow(frame, self._newest[0]), time - self._newest[1]
        self._newest = frame, time

    def at(self, ahead: float) -> Image:
        """See :meth:`Method.at`."""
        assert self._newest is not None
        frame, _ = self._newest
        return frame if self._flow is None else self._dis.pulled(frame, self._flow, ahead / self._elapsed)


class Ours(Method):
    """A framecast predictor.

    Args:
        name: name in the tables.
        predictor: its owner closes it.
    """

    def __init__(self, name: str, predictor: Predictor) -> None:
        self.name, self._predictor = name, predictor
        self._time = 0.0

    def reset(self) -> None:
        """See :meth:`Method.reset`."""
        self._predictor.reset()

    def see(self, frame: Image, time: float) -> None:
        """See :meth:`Method.see`."""
        self._predictor.step(frame, time)
        self._time = time

    def at(self, ahead: float) -> Image:
        """See :meth:`Method.at`."""
        return self._predictor.at(self._time + ahead).image


@dataclass
class Scores:
    """Results of a run over one clip.

    Attributes:
        db: PSNR in dB of each scored frame, by method and frames ahead.
        fresh: for each scored frame, whether it shows something new, by frames ahead.
        cpu: CPU seconds per frame of a step and the nearest picture, by method.
    """

    db: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    fresh: dict[int, list[bool]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def mean(self, method: str, k: int = 1, *, moving: bool = False) -> float:
        """Return the mean PSNR over the scored frames; with ``moving``, only over those that show something new."""
        values = [v for v, fresh in zip(self.db[method, k], self.fresh[k], strict=True) if fresh or not moving]
        return float(np.mean(values)) if values else float("nan")

    def ratio(self, method: str) -> float:
        """Return the median CPU time as a ratio to DIS flow's."""
        return float(np.median(self.cpu[method]) / np.median(self.cpu[DIS]))


def run(clip: Clip, methods: Sequence[Method], ahead: Sequence[int] = (1,)) -> Scores:
    """Run all methods on each frame of a clip, one after the other; every second frame reverses their order.

    The stream's first frames and exact repeats are not scored, as in :mod:`framecast.runtime.score`.

    Args:
        clip: frames of the size that the methods take.
        methods: must include copying and DIS flow.
        ahead: numbers of frames ahead, ascending.
    """
    found, interval = Scores(), clip.interval
    pending: list[tuple[float, int, dict[str, Image]]] = []  # due time, frames ahead, pictures by method
    for method in methods:
        method.reset()
    for number, (frame, moment) in enumerate(zip(clip.frames, clip.times, strict=True)):
        due = [one for one in pending if abs(one[0] - moment) <= interval / 2]
        pending = [one for one in pending if one[0] > moment + interval / 2]
        repeats = number > 0 and np.array_equal(frame, clip.frames[number - 1])
        for _, k, pictures in due if number >= SETTLE and not repeats else []:
            found.fresh[k].append(clip.fresh[number])
            for name, picture in pictures.items():
                found.db[name, k].append(psnr(picture, frame))
        made: dict[int, dict[str, Image]] = {k: {} for k in ahead}
        for method in methods if number % 2 == 0 else reversed(methods):
            begun = time.process_time()
            method.see(frame, moment)
            made[ahead[0]][method.name] = method.at(ahead[0] * interval)
            if number >= SETTLE // 2:
                found.cpu[method.name].append(time.process_time() - begun)
            for k in ahead[1:]:
                made[k][method.name] = method.at(k * interval)
        pending += [(moment + k * interval, k, pictures) for k, pictures in made.items()]
    return found
