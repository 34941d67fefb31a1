"""What may be said of a source in a message, a log or a report: never its credentials, never two lines."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/+")
# "…password=x", wherever it stands: cameras take it in the query, and some in the path.
_SECRET = re.compile(
    r"([\w.%-]*(?:pass|pwd|psw|pw|token|key|secret|auth|sign|session|cred)[\w.%-]*=)[^&]*", re.IGNORECASE
)


def redact(uri: str) -> str:
    """The URI without its credentials, on one line.

    All up to the *last* ``@`` is taken for a user's name and password: somebody who forgot to percent-encode a ``/``
    or an ``@`` in a password gets an error message, and that must not hold the rest of it.

    Args:
        uri: a URI or path as a user typed it, valid or not.

    Returns:
        The same with ``***`` for credentials, and with ``�`` for what cannot be printed.
    """
    scheme = found.group() if (found := _SCHEME.match(uri)) else ""
    rest = uri[len(scheme) :]
    before, at, after = rest.rpartition("@")
    credentials = bool(at) and (bool(scheme) or ":" in before)  # a path may hold an @ of its own: clips/cup@2x.mp4
    if credentials:
        rest = f"***@{after}"
    if scheme or credentials:
        rest = _SECRET.sub(r"\1***", rest)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in scheme + rest)
