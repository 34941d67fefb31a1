"""A cache of what a step binds: two alternating states have few arrangements of their buffers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from framecast.errors import EngineError
from framecast.runtime.engines.engine import Moment, State

T = TypeVar("T")


class Phases(Generic[T]):
    """Caches one binding for each arrangement of two states' buffers, such as a set of bound addresses.

    Two alternating states have as many arrangements as their ring has phases, and a few more after resets. The cache
    drops a state's entries together with the state, so a binding must not hold the states.
    """

    def __init__(self) -> None:
        self._kept: weakref.WeakKeyDictionary[
            State, weakref.WeakKeyDictionary[State, dict[tuple[Hashable, ...], T]]
        ] = weakref.WeakKeyDictionary()

    def at(self, state_in: State, state_out: State, make: Callable[[Moment], T], *of: Hashable) -> T:
        """Advance ``state_out`` and return the cached binding, creating it on first use.

        Args:
            state_in: the state that the step reads.
            state_out: becomes the state after it.
            make: makes the binding, given the moment that the step writes.
            of: anything else that the binding depends on.

        Raises:
            EngineError: both states are the same.
        """
        if state_in is state_out:
            raise EngineError("a step cannot read and write the same state: pass two")
        phases = self._kept.setdefault(state_in, weakref.WeakKeyDictionary()).setdefault(state_out, {})
        moment = state_out.follow(state_in)
        phase = (*of, moment, *state_in.past)
        if phase not in phases:
            phases[phase] = make(moment)
        return phases[phase]

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
