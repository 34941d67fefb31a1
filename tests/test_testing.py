"""The shipped fakes keep the contracts of what they replace."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from framecast import testing
from framecast.clock import Clock, SystemClock
from framecast.runtime.mailbox import Mailbox
from framecast.runtime.predictor import Predictor
from framecast.testing import DriftEngine, EmptyEngine, ListSource, ManualClock, TrendEngine, VirtualClock, shades

from .stepping import stepped  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


def test_every_public_name_exists_and_is_documented() -> None:
    for name in testing.__all__:
        assert getattr(testing, name).__doc__


# Each test creates its own: a virtual clock waits for every thread that is started after it.
CLOCKS: list[Callable[[], Clock]] = [SystemClock, VirtualClock]


@pytest.mark.parametrize("make", CLOCKS)
def test_clocks_keep_their_contract(make: Callable[[], Clock]) -> None:
    clock = make()
    begun = clock.now()
    clock.wait_until(begun + 0.02)
    assert clock.now() >= begun + 0.02
    clock.wait_until(begun)  # a time in the past
    assert clock.cpu() >= 0
    condition = clock.condition()
    with condition, condition:  # re-entrant, because a signal handler may interrupt
        assert not clock.wait(condition, clock.now() + 0.02)
        assert not clock.wait(condition, clock.now() - 1)


@pytest.mark.parametrize("make", CLOCKS)
def test_a_condition_is_notified_before_its_deadline(make: Callable[[], Clock]) -> None:
    clock = make()
    condition, done = clock.condition(), list[float]()

    def tell() -> None:
        clock.wait_until(clock.now() + 0.05)
        with condition:
            done.append(clock.now())
            condition.notify_all()

    thread = threading.Thread(target=tell)
    with condition:
        thread.start()
        while not done:
            assert clock.wait(condition, clock.now() + 60)
    thread.join()


@pytest.mark.parametrize("make", CLOCKS)
def test_a_join_ends_with_the_thread_or_at_its_deadline(make: Callable[[], Clock]) -> None:
    clock = make()
    go = threading.Event()

    def work() -> None:
        clock.wait_until(clock.now() + 0.5)
        go.wait()

    begun = clock.now()
    thread = threading.Thread(target=work)
    thread.start()
    clock.join(thread, begun + 0.02)
    assert thread.is_alive()
    assert clock.now() >= begun + 0.02
    go.set()
    clock.join(thread, begun + 600)
    assert not thread.is_alive()
    assert begun + 0.5 <= clock.now() < begun + 600


def test_virtual_time_stops_when_a_joined_thread_ends() -> None:
    clock = VirtualClock()
    begun, stop = clock.now(), threading.Event()

    def tick() -> None:  # with a second thread, which would run ahead of the clock
        while not stop.is_set():
            clock.wait_until(clock.now() + 1)

    ticking = threading.Thread(target=tick)
    worker = threading.Thread(target=clock.wait_until, args=(begun + 10.5,))
    ticking.start()
    worker.start()
    clock.join(worker)
    assert clock.now() - begun == 10.5
    stop.set()
    clock.join(ticking)


def test_virtual_time_passes_only_while_every_thread_waits() -> None:
    clock = VirtualClock()
    mailbox: Mailbox[float] = Mailbox(newest=False, clock=clock)
    begun = clock.now()

    def send() -> None:
        for _ in range(3):
            clock.wait_until(clock.now() + 100)
            mailbox.put(clock.now() - begun)
        mailbox.close()

    thread = threading.Thread(target=send)
    thread.start()
    got: list[float | None] = [mailbox.get(begun + 30), mailbox.get(begun + 130)]
    while not mailbox.ended:
        got.append(mailbox.get())
    thread.join()
    assert got[:4] == [None, 100, 200, 300]
    assert clock.now() - begun == 300


def test_a_manual_clock_moves_only_on_request() -> None:
    clock = ManualClock()
    clock.work(250)
    clock.wait_until(2.0)
    assert clock.now() == 2.0


def test_engines_predict_as_documented() -> None:
    image = np.full((12, 16, 3), 100, np.uint8)
    assert np.abs(stepped(Predictor(DriftEngine(), watch=False), image).image.astype(float) - 125.5).max() <= 0.5
    trend = Predictor(TrendEngine(1.0, outputs=2, size=(12, 16)), watch=False)
    trend.step(image)
    trend.step(image + 10)
    assert [int(p.image[0, 0, 0]) for p in trend.rollout(2)] == [120, 130]
    empty = Predictor(EmptyEngine(trend.manifest), watch=False)
    assert not stepped(empty, image).image.any()


def test_a_source_from_a_list() -> None:
    source = ListSource([*shades(2), ValueError("broken")])
    read = [source.read(), source.read()]
    assert [frame.index for frame in read if frame is not None] == [0, 1]
    with pytest.raises(ValueError, match="broken"):
        source.read()
    assert source.read() is None
