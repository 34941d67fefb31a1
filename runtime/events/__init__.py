"""What each frame of a stream is, decided in one place, before any model sees it.

A :class:`Watch` names each frame (new, a repeat, a cut, after a gap), says how much motion lies between two pictures
and how much to predict for a moment, and takes out brightness that flickers. A :class:`Guard` compares predictions with
copying the newest frame, and falls back to copying where that does better.
"""

from framecast.runtime.events.guard import Guard
from framecast.runtime.events.watch import Event, Kind, Watch

__all__ = ["Event", "Guard", "Kind", "Watch"]
