"""A mailbox between the capture thread and the prediction loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from framecast.clock import SYSTEM, Clock

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Passes items from one thread to another.

    For a live source it keeps only the newest item and counts the dropped ones. For a file it makes the sender wait.

    Args:
        newest: whether a new item replaces one that is still waiting, as for a live source.
        capacity: how many items may wait otherwise (default: 2).
        replaced: called in the sender's thread with each item that was replaced.
        clock: for waiting.

    Attributes:
        dropped: items that were replaced.
    """

    def __init__(
        self,
        *,
        newest: bool,
        capacity: int = 2,
        replaced: Callable[[T], object] = lambda item: None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.dropped = 0
        self._newest = newest
        self._replaced = replaced
        self._items: deque[T] = deque()
        self._capacity = 1 if newest else capacity
        self._clock = clock
        self._changed = clock.condition()
        self._closed = False

    @property
    def ended(self) -> bool:
        """Whether the mailbox is closed and empty."""
        with self._changed:
            return self._closed and not self._items

    @property
    def waiting(self) -> bool:
        """Whether an item waits to be taken."""
        with self._changed:
            return bool(self._items)

    def put(self, item: T, deadline: float | None = None) -> bool:
        """Put an item in. Returns False if the mailbox is closed, or still full at ``deadline`` (seconds)."""
        with self._changed:
            if self._newest and not self._closed:
                for old in self._items:
                    self.dropped += 1
                    self._replaced(old)
                self._items.clear()
            while len(self._items) >= self._capacity and not self._closed:
                if not self._clock.wait(self._changed, deadline) and len(self._items) >= self._capacity:
                    return False
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self, deadline: float | None = None) -> T | None:
        """Wait for the next item. Returns None if the mailbox has :attr:`ended`, or at ``deadline`` (seconds)."""
        with self._changed:
            while not self._items and not self._closed:
                if not self._clock.wait(self._changed, deadline) and not self._items:
                    return None
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Accept no more items. Those inside can still be taken. Safe in a signal handler: the lock is re-entrant."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
