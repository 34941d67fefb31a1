"""Fakes for tests of code that uses framecast: engines and sources whose behaviour is known exactly, and a clock.

    import framecast
    from framecast.testing import DriftEngine, ListSource, VirtualClock, shades

    framecast.run(ListSource(shades(20, size=(192, 256))), sinks=[print])      # a source whose frames are known
    framecast.Predictor(DriftEngine()).step(shades(1)[0].image)                # an engine that adds 0.1 to each frame

- ``ListSource`` gives the frames, and raises the exceptions, of a list; ``shades`` makes such frames.
- ``DriftEngine`` predicts each frame a little brighter; it can be told to be slow, or to predict NaN.
- ``TrendEngine`` predicts that each pixel goes on changing, K frames a step.
- ``PacedEngine`` does the same, each step taking the time that it is given.
- ``FadeEngine`` does the same at any moment and in any size, as a model of motion.
- ``EmptyEngine`` does nothing, at no cost: what a loop takes with it, the loop takes.
- ``VirtualClock`` is time in which only waiting takes time, for several threads; ``ManualClock`` for one.
- ``STAMPS`` are the stamps of a result that took no time, to make a ``Result`` with.

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
"""The stamps of a result that took no time."""
