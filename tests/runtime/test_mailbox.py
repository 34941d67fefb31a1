"""The mailbox: the newest frame of a camera, every frame of a file."""

from __future__ import annotations

import threading

from framecast.runtime.mailbox import Mailbox
from framecast.testing import ManualClock


def test_newest_frame_wins_and_drops_are_counted() -> None:
    box: Mailbox[int] = Mailbox(newest=True)
    assert all(box.put(i) for i in range(5))
    assert (box.get(), box.dropped) == (4, 4)


def test_a_file_waits_for_its_reader() -> None:
    box: Mailbox[int] = Mailbox(newest=False)

    def send() -> None:
        for i in range(100):
            box.put(i)
        box.close()

    sender = threading.Thread(target=send)
    sender.start()
    assert list(iter(box.get, None)) == list(range(100))
    sender.join()
    assert box.dropped == 0


def test_close_wakes_both_sides() -> None:
    box: Mailbox[int] = Mailbox(newest=False, capacity=1)
    assert box.put(1)
    results: list[bool] = []
    sender = threading.Thread(target=lambda: results.append(box.put(2)))
    sender.start()
    sender.join(0.2)
    assert sender.is_alive()  # put() waits for room
    box.close()
    sender.join(120)
    assert results == [False]
    assert (box.get(), box.get()) == (1, None)


def test_a_deadline_ends_the_wait_for_an_item() -> None:
    clock = ManualClock()
    box: Mailbox[int] = Mailbox(newest=True, clock=clock)
    assert box.get(clock.now() - 1) is None
    assert not box.ended
    box.put(7)
    assert box.get(clock.now() - 1) == 7  # an item in the mailbox is returned even after the deadline
    box.put(8)
    box.close()
    assert not box.ended
    assert (box.get(), box.ended) == (8, True)
