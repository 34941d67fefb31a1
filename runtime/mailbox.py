"""A mailbox between the thread that captures and the one that predicts."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """For a live source it holds the newest item and counts those it replaces; for a file it makes the sender wait."""

    def __init__(self, *, newest: bool, capacity: int = 2) -> None:
        self.dropped = 0
        self._newest = newest
        self._items: deque[T] = deque()
        self._capacity = 1 if newest else capacity
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T) -> bool:
        """Leave an item. False when the mailbox is closed and nobody will take it."""
        with self._changed:
            if self._newest and not self._closed:
                self.dropped += len(self._items)
                self._items.clear()
            while len(self._items) >= self._capacity and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self) -> T | None:
        """Wait for the next item; None once the mailbox is closed and empty."""
        with self._changed:
            while not self._items and not self._closed:
                self._changed.wait()
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """No more items; what is there can still be taken. Safe in a signal handler: the lock is re-entrant."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
