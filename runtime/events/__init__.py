"""Classifies each frame of a stream, in one place, before any model sees it.

A :class:`Watch` classifies each frame (new, a repeat, a cut, after a gap), measures how much motion lies between two
pictures and how much to predict for a moment, and removes flicker. A :class:`Guard` compares predictions with copying
the newest frame, and falls back to copying where that is better.
"""

from framecast.runtime.events.guard import Guard
from framecast.runtime.events.watch import Event, Kind, Watch

__all__ = ["Event", "Guard", "Kind", "Watch"]
