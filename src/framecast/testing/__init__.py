"""Fakes for tests of code that uses framecast: engines and sources whose behaviour is known exactly, and a clock.

    import framecast
    from framecast.testing import DriftEngine, ListSource, VirtualClock, shades

    framecast.run(ListSource(shades(20, size=(192, 256))), sinks=[print])      # a source whose frames are known
    framecast.Predictor(DriftEngine()).step(shades(1)[0].image)                # an engine that adds 0.1 to each frame

- ``ListSource`` returns the frames of a list and raises its exceptions; ``shades`` makes frames for it.
- ``DriftEngine`` predicts each frame a little brighter. It can be slow, or predict NaN, if a test asks for it.
- ``TrendEngine`` predicts that each pixel keeps changing as before, K frames a step.
- ``PacedEngine`` is a ``TrendEngine`` with a set duration for each step.
- ``FadeEngine`` is like ``TrendEngine``, but renders any moment at any size, as a model of motion does.
- ``EmptyEngine`` does nothing, at no cost. It shows how much time a loop itself takes.
- ``VirtualClock`` is a clock for several threads on which only waiting takes time; ``ManualClock`` is for one thread.
- ``STAMPS`` are time stamps that are all zero, for making a ``Result``.

Each fake keeps its contract (:class:`framecast.runtime.engines.Engine`, :class:`framecast.Source`,
:class:`framecast.clock.Clock`), so code that works with one works with the real thing.
"""

from framecast.runtime.telemetry import Stamps
from framecast.testing.clock import ManualClock, VirtualClock
from framecast.testing.engines import DriftEngine, EmptyEngine, FadeEngine, PacedEngine, TrendEngine, manifest
from framecast.testing.sources import ListSource, shades

__all__ = [
    "STAMPS",
    "DriftEngine",
    "EmptyEngine",
    "FadeEngine",
    "ListSource",
    "ManualClock",
    "PacedEngine",
    "TrendEngine",
    "VirtualClock",
    "manifest",
    "shades",
]

STAMPS = Stamps(due=0.0, grabbed=0.0, taken=0.0, stepped=0.0, handed=0.0, step=0.0, picture_out=0.0)
"""The time stamps of a result that took no time."""
