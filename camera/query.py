"""The options of a source's URI, such as ``synthetic://?size=640x480&fps=30``."""

from __future__ import annotations

from urllib.parse import parse_qsl

from framecast.errors import SourceError
from framecast.redact import redact


def parse_options(query: str) -> dict[str, str]:
    """Parse what follows the ``?`` of a URI.

    Raises:
        SourceError: an option is given twice.
    """
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in options:
            raise SourceError(f"the source has {redact(name)} twice: give it once")
        options[name] = value
    return options
