"""What a command needs beyond framecast's own dependencies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from framecast.errors import FramecastError


@contextmanager
def needs_extra(command: str, extra: str = "models") -> Iterator[None]:
    """Say how to install what the imports inside are missing: which ``extra`` of the package brings it.

    Raises:
        FramecastError: a module is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        cure = f"pip install 'framecast[{extra}]', or in a clone pip install -e '.[{extra}]'"
        raise FramecastError(f"{command} needs {error.name}: {cure}") from error
