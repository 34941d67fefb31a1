"""Optional dependencies of some commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from framecast.errors import FramecastError


@contextmanager
def needs_extra(command: str, extra: str = "models") -> Iterator[None]:
    """Turn a failed import inside the ``with`` into an error that names the ``extra`` to install.

    Raises:
        FramecastError: a module is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        cure = f"pip install 'framecast[{extra}]', or in a clone pip install -e '.[{extra}]'"
        raise FramecastError(f"{command} needs {error.name}: {cure}") from error
