"""How tests read a source."""

from __future__ import annotations

from framecast.camera import Frame, Source


def read(source: Source) -> Frame:
    """The next frame, where there must be one."""
    frame = source.read()
    assert frame is not None
    return frame
