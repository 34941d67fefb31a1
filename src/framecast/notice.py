"""What a run says while it works: a sentence for people that also carries figures for machines."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


class Notice(str):
    """A line that says what has happened. It is a string, so whoever prints it needs to know no more.

    Args:
        event: the kind of event, in snake_case. These names are stable.
        line: the sentence.
        level: of :mod:`logging`.
        fields: figures and names; no credentials.

    Attributes:
        event: see above.
        level: see above.
        fields: see above.
    """

    __slots__ = ("event", "fields", "level")
    event: str
    level: int
    fields: dict[str, object]

    def __new__(cls, event: str, line: str, level: int = logging.INFO, **fields: object) -> Notice:
        """See the class."""
        notice = super().__new__(cls, line)
        notice.event, notice.level, notice.fields = event, level, fields
        return notice


def to_log(line: str) -> None:
    """Log a line, a notice at its own level. A handler finds the notice as ``record.msg``."""
    _log.log(line.level if isinstance(line, Notice) else logging.INFO, line)
