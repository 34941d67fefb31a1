"""Times that always run forward, whatever a camera's or file's time stamps do."""

from __future__ import annotations

from collections import Counter

_BACK = 1.0  # seconds: a step back by more is a clock that was set anew, not a wrong stamp
CATCH_UP = 0.5  # share of the stamps' advance by which times advance while they are ahead of the stamps


class Timeline:
    """Makes times increase strictly. Stamps that do are returned as they are.

    A stamp that repeats or runs back by up to a second is replaced by one interval after the frame before. The times
    then advance at half speed until the stamps have caught up. A stamp that runs back further begins a new epoch.

    Args:
        faults: counts the stamps that were replaced, as "times_mended".
    """

    def __init__(self, faults: Counter[str]) -> None:
        self._faults = faults
        self._stamp: float | None = None  # the newest, as given
        self._time = 0.0  # the newest, as returned

    def see(self, stamp: float, interval: float) -> float | None:
        """Take a frame's stamp in seconds, and the interval between frames.

        Returns:
            The frame's time in seconds, or None where a new epoch begins: its time is the stamp.
        """
        before, self._stamp = self._stamp, stamp
        if before is None:
            self._time = stamp
            return stamp
        if stamp < self._time - max(_BACK, 2 * interval):
            self._time = stamp
            return None
        if stamp <= before:
            self._faults["times_mended"] += 1
            self._time += interval
        else:
            self._time = max(stamp, self._time + CATCH_UP * (stamp - before))
        return self._time
