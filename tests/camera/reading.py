"""How tests read a source."""

from __future__ import annotations

from collections import deque

import pytest

from framecast.camera import Frame, Source
from framecast.errors import SourceError


def read(source: Source) -> Frame:
    """The next frame, where there must be one."""
    frame = source.read()
    assert frame is not None
    return frame


def lost(source: Source) -> str:
    """The message with which a source is lost."""
    with pytest.raises(SourceError) as caught:
        deque(iter(source.read, None), maxlen=0)
    assert str(caught.value).isprintable()
    return str(caught.value)
