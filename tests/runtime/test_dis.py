"""DIS flow as a rival: its predictions; and in a live run it takes little time and blocks nobody."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from framecast.camera import Image
from framecast.runtime.dis import SHARE, DisFlow, LiveRival
from framecast.runtime.score import Expected, psnr
from framecast.testing import ManualClock

from ..clips import moving_pictures  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


def pictures(count: int = 8) -> list[Image]:
    return moving_pictures((96, 64), count)


def test_motion_continues_at_whole_and_fractional_steps() -> None:
    frames = pictures()
    dis = DisFlow()
    one, three = dis.predict(frames[1], frames[0], [1, 3])
    inner = (slice(8, -8), slice(12, -12))
    assert psnr(one[inner].copy(), frames[2][inner].copy()) > psnr(frames[1][inner].copy(), frames[2][inner].copy()) + 6
    assert (
        psnr(three[inner].copy(), frames[4][inner].copy()) > psnr(frames[1][inner].copy(), frames[4][inner].copy()) + 4
    )
    (half,) = dis.predict(frames[2], frames[0], [0.5])  # the flow spans two frames, so half of it is one frame
    assert (
        psnr(half[inner].copy(), frames[3][inner].copy()) > psnr(frames[2][inner].copy(), frames[3][inner].copy()) + 6
    )
    (still,) = dis.predict(frames[2], frames[0], [0])
    assert np.array_equal(still, frames[2])


def test_grey_pictures_keep_their_axis() -> None:
    frames = [frame[..., :1].copy() for frame in pictures(2)]
    (ahead,) = DisFlow().predict(frames[1], frames[0], [1])
    assert ahead.shape == frames[0].shape


def expected(last: Image, ahead: float = 0.04) -> Expected:
    return Expected(1.0, ahead, last, last)


def test_it_fills_in_the_picture_and_then_pauses() -> None:
    class Timed(ManualClock):
        def now(self) -> float:
            if threading.current_thread().name == "framecast-rival":
                self.time += 0.05  # a computation reads the clock twice, so it seems to take 50 ms
            return self.time

    clock = Timed()
    rival = LiveRival(clock)
    frames = pictures()
    first, second, third = expected(frames[1]), expected(frames[2]), expected(frames[3])
    rival.offer(first, frames[0], 0.04)
    rival.close()
    (own,) = DisFlow().predict(frames[1], frames[0], [1])
    assert first.rival is not None
    assert np.array_equal(first.rival, own)
    begun = clock.time - 0.05
    rival.offer(second, frames[1], 0.04)
    rival.close()
    assert second.rival is None  # the rival has used up its share of the time
    clock.time = begun + 0.05 / SHARE + 0.06
    rival.offer(third, frames[2], 0.04)
    rival.close()
    assert third.rival is not None


def test_pictures_that_cannot_be_compared_are_skipped() -> None:
    rival = LiveRival(ManualClock())
    frames = pictures()
    tiny = np.zeros((8, 8, 3), np.uint8)
    for one, before, elapsed in (
        (expected(frames[1]), frames[0], 0.0),
        (expected(frames[1]), frames[0][:32], 0.04),
        (expected(tiny), tiny, 0.04),
    ):
        rival.offer(one, before, elapsed)
        rival.close()
        assert one.rival is None


def test_nobody_waits_for_a_slow_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    go, inside = threading.Event(), threading.Event()

    def slow(self: DisFlow, last: Image, before: Image, steps: list[float]) -> list[Image]:
        inside.set()
        go.wait(60)
        return [last for _ in steps]

    monkeypatch.setattr(DisFlow, "predict", slow)
    rival = LiveRival(ManualClock())
    frames = pictures()
    first, second = expected(frames[1]), expected(frames[2])
    rival.offer(first, frames[0], 0.04)
    assert inside.wait(60)
    rival.offer(second, frames[1], 0.04)  # returns at once
    go.set()
    rival.close()
    assert first.rival is not None
    assert second.rival is None
