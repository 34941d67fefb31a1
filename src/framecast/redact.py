"""Makes a URI safe for a message, a log or a report: no credentials, one line."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/+")
# "…password=x", anywhere: most cameras take it in the query, and some in the path. It looks once at each name, from the
# name's beginning: it would otherwise need cubic time for "passpasspass…".
_NAME = r"(?<![\w.%-])(?=[\w.%-]*(?:pas|pw|psw|token|jwt|key|secret|auth|sign|session|cred))[\w.%-]+="
# In a message. What ends a sentence or a quotation is not part of it.
_ADDRESS = re.compile(r"""(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*:/+\S*[^\s,;:.)'"]""")
_SECRET = re.compile(rf"({_NAME})[^&]*", re.IGNORECASE)
_OPEN_SECRET = re.compile(rf"\A[^/?]*[/?].*{_NAME}[^&]*\Z", re.IGNORECASE | re.DOTALL)


def redact(uri: str) -> str:
    """Hide the credentials of a URI, and put it on one line.

    Everything up to the *last* ``@`` counts as user name and password. A user may forget to percent-encode a ``/`` or
    an ``@`` in a password, and a message must not show the rest of the password. That ``@`` may also be part of a
    secret in the path or the query, ``…?password=p@ss``; then the secret continues after it.

    Args:
        uri: a URI or path as a user typed it, valid or not.

    Returns:
        The text, with ``***`` instead of credentials and ``�`` instead of each unprintable character.
    """
    scheme = found.group() if (found := _SCHEME.match(uri)) else ""
    rest = uri[len(scheme) :]
    before, at, after = rest.rpartition("@")
    credentials = bool(at) and (bool(scheme) or ":" in before)  # a path may contain an @ itself: clips/cup@2x.mp4
    if credentials:
        if _OPEN_SECRET.search(before):
            after = re.sub(r"\A[^&]*", "***", after)
        rest = f"***@{after}"
    if scheme or credentials:
        rest = _SECRET.sub(r"\1***", rest)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in scheme + rest)


def redact_message(text: str) -> str:
    """Hide the credentials of every address in a text, such as a message or a traceback."""
    return _ADDRESS.sub(lambda found: redact(found[0]), text)
