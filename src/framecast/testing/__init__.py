"""Fakes for tests of code that uses framecast: engines and sources whose behaviour is known exactly, and a clock.

    from framecast.testing import DriftEngine, ListSource, shades

    pipeline = Pipeline(ListSource(shades(20)), Predictor(DriftEngine()))

Each fake keeps its contract (:class:`framecast.runtime.engines.Engine`, :class:`framecast.Source`,
:class:`framecast.clock.Clock`), so code that works with one works with the real thing.
"""

from framecast.runtime.telemetry import Stamps
from framecast.testing.clock import ManualClock, VirtualClock
from framecast.testing.engines import DriftEngine, EmptyEngine, PacedEngine, TrendEngine, manifest
from framecast.testing.sources import ListSource, shades

__all__ = [
    "STAMPS",
    "DriftEngine",
    "EmptyEngine",
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
