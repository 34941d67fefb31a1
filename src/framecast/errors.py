"""Everything framecast raises on purpose. Each message says in one line what is wrong and what to do.

FramecastError
├── SourceError     a camera, stream, file or folder cannot be opened or was lost
├── FrameError      a frame is not what the predictor takes, or changed in mid-stream
├── ArtifactError   no such model, or a file that is not a usable artifact
├── EngineError     an engine cannot be had, or failed
├── ExportError     a network cannot be exported
├── SinkError       an output cannot be written or served
└── OptionError     an argument is out of its range
"""

from __future__ import annotations


class FramecastError(Exception):
    """Base of all errors that framecast raises on purpose."""


class SourceError(FramecastError):
    """A camera, stream, file or folder cannot be opened, or was lost."""


class FrameError(FramecastError):
    """A frame is not what the predictor takes, or changed size or type in mid-stream."""


class ArtifactError(FramecastError):
    """There is no such model, or the file is not an artifact that can be run."""


class EngineError(FramecastError):
    """An engine cannot be had here, or failed."""


class ExportError(FramecastError):
    """A network cannot be exported, or its export does not equal it."""


class SinkError(FramecastError):
    """An output cannot be written or served."""


class OptionError(FramecastError):
    """An argument is out of its range."""


def first_line(error: Exception) -> str:
    """What a library's error says, in one line, for a message of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
