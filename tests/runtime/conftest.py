"""An engine and a source whose behaviour is known exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from framecast.camera import Frame
from framecast.testing import DriftEngine, ListSource, shades


@pytest.fixture
def engine() -> DriftEngine:
    return DriftEngine()


@pytest.fixture
def list_source() -> type[ListSource]:
    return ListSource


@pytest.fixture
def make_frames() -> Callable[..., list[Frame | Exception]]:
    return shades
