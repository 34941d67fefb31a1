"""All errors that framecast raises on purpose. Each message is one line: what is wrong, and what to do.

FramecastError
├── SourceError     a camera, stream, file or folder cannot be opened, or was lost
│   └── SourceUnavailableError  a camera does not answer now, but may later
├── FrameError      the predictor cannot take a frame, or the frame's size changed mid-stream
├── ArtifactError   there is no such model, or the file is not a usable artifact
├── EngineError     an engine is not available, or failed
├── ExportError     a network cannot be exported
├── SinkError       an output cannot be written or served
│   └── SinkUnavailableError    an output cannot take pictures now, but may later
└── OptionError     an argument is out of range
"""

from __future__ import annotations


class FramecastError(Exception):
    """Base of all errors that framecast raises on purpose."""


class SourceError(FramecastError):
    """A camera, stream, file or folder cannot be opened, or was lost."""


class SourceUnavailableError(SourceError):
    """A camera does not answer now. It may later: it is off or starting, or the network is down."""


class FrameError(FramecastError):
    """The predictor cannot take a frame, or the frame's size or type changed mid-stream."""


class ArtifactError(FramecastError):
    """There is no such model, or the file is not a usable artifact."""


class EngineError(FramecastError):
    """An engine is not available on this machine, or failed."""


class ExportError(FramecastError):
    """A network cannot be exported, or its export gives other results."""


class SinkError(FramecastError):
    """An output cannot be written or served."""


class SinkUnavailableError(SinkError):
    """An output cannot take pictures now. It may later: its disk is full, or what receives them is off."""


class OptionError(FramecastError):
    """An argument is out of range."""


def first_line(error: Exception) -> str:
    """The first line of a library's error, to quote in our own message."""
    return one_line((str(error).strip() or type(error).__name__).splitlines()[0])


def one_line(text: str) -> str:
    """A library's text as one line of up to 300 characters. Others may have written parts of it, such as a file's."""
    visible = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(visible.split())[:300].rstrip(".: ")
