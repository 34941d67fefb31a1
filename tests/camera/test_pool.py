"""The pool: an array comes back when the last who holds it forgets it, however it is held, and not before."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from framecast.camera import pool as pools
from framecast.camera.pool import Pool

SHAPE = (12, 16, 3)


def address(array: np.ndarray) -> int:
    place: int = array.__array_interface__["data"][0]
    return place


def test_what_nobody_holds_is_handed_out_again() -> None:
    pool = Pool()
    addresses = {address(pool.take(SHAPE)) for _ in range(10_000)}  # often, so that the interpreter specialises it
    assert len(addresses) == 1


HOLDS: dict[str, Callable[[np.ndarray], Any]] = {
    "itself": lambda a: a,
    "a view": lambda a: a.view(),
    "a slice": lambda a: a[2:5, ::2],
    "a slice of a slice": lambda a: a[2:5][:, ::2, 1],
    "another shape": lambda a: a.reshape(-1),
    "a transposed view": lambda a: a.transpose(2, 0, 1),
    "other channels": lambda a: a[..., ::-1],
    "another type": lambda a: a.view(np.int8),
    "a subclass": lambda a: a.view(np.recarray),
    "a memoryview": lambda a: a.data[1:],
    "a buffer's array": lambda a: np.frombuffer(a, np.uint8)[7:],
    "its base": lambda a: a.base,
    "an iterator": lambda a: a.flat,
    "a plane": lambda a: next(iter(a)),
    "a structure": lambda a: {"deep": [(a,)]},
}


@pytest.mark.parametrize("hold", HOLDS.values(), ids=HOLDS)
def test_what_is_held_is_not_handed_out_and_then_it_is(hold: Callable[[np.ndarray], Any]) -> None:
    pool = Pool()
    array = pool.take(SHAPE)
    where, held = address(array), hold(array)
    del array
    assert where not in {address(other) for other in [pool.take(SHAPE) for _ in range(20)]}
    assert held is not None
    del held
    assert where in {address(other) for other in [pool.take(SHAPE) for _ in range(21)]}  # one more is free


def test_what_opencv_wrote_into_is_held() -> None:
    pool = Pool()
    image = np.random.default_rng().integers(0, 256, (24, 32, 3), dtype=np.uint8)
    expected = cv2.resize(image, SHAPE[1::-1])
    resized = [cv2.resize(image, SHAPE[1::-1], dst=pool.take(SHAPE)) for _ in range(3)]
    assert len({address(array) for array in resized}) == 3
    pool.take(SHAPE)[:] = 0
    assert all(np.array_equal(array, expected) for array in resized)


def test_what_another_thread_holds_is_not_handed_out() -> None:
    pool, holds, forget = Pool(), threading.Event(), threading.Event()
    where = []

    def hold() -> None:
        array = pool.take(SHAPE)
        where.append(address(array))
        part = array[3:]
        del array
        holds.set()
        forget.wait(10)
        assert part.size

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(10)
    assert address(pool.take(SHAPE)) != where[0]
    forget.set()
    thread.join()
    assert where[0] in {address(array) for array in [pool.take(SHAPE) for _ in range(3)]}


def test_threads_that_take_at_once_never_share_an_array() -> None:
    pool = Pool()
    mixed: list[np.ndarray] = []

    def work(mark: int) -> None:
        kept: deque[np.ndarray] = deque(maxlen=3)
        for _ in range(2000):
            kept.append(pool.take((64,)))
            kept[-1][:] = mark
            mixed.extend(array for array in kept if (array != mark).any())

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not mixed
    assert len(pool._arrays) <= 4 * 4


def test_shapes_and_types_are_kept_apart_and_a_holders_flags_are_its_own() -> None:
    pool = Pool()
    array = pool.take(SHAPE)
    where = address(array)
    array.flags.writeable = False
    del array
    assert address(pool.take(SHAPE, np.int8)) != where
    assert address(pool.take((16, 12, 3))) != where
    again = pool.take(SHAPE)
    assert address(again) == where
    assert again.flags.writeable
    assert again.flags.c_contiguous
    assert again.shape == SHAPE
    assert again.dtype == np.uint8


@pytest.mark.parametrize(("name", "value"), [("KEPT", 5), ("KEPT_BYTES", 5 * 576)])
def test_no_more_are_kept_than_may_be(name: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, name, value)
    pool = Pool()
    held = [pool.take(SHAPE) for _ in range(20)]
    assert len({address(array) for array in held}) == 20
    assert len(pool._arrays) == 5
    last = {address(array) for array in held[-5:]}  # the others belong to who holds them
    del held
    assert {address(array) for array in [pool.take(SHAPE) for _ in range(5)]} == last


def test_an_array_larger_than_all_that_may_be_kept_is_given_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "KEPT_BYTES", 10)
    pool = Pool()
    assert pool.take(SHAPE).shape == SHAPE
    assert not pool._arrays
    assert pool._bytes == 0


def test_what_a_burst_needed_is_let_go_after_a_while() -> None:
    pool = Pool()
    held = [pool.take(SHAPE) for _ in range(100)]
    held.clear()
    for _ in range(2 * pools.PERIOD):
        held = [pool.take(SHAPE), *held[:2]]  # three at a time, and a fourth while it is taken
    assert len(pool._arrays) == 4
    assert pool._bytes == 4 * 576
