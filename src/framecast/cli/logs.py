"""What a command says while it works: sentences for people, or with ``--log json`` one JSON object a line.

In JSON, everything that Python code says becomes such a line on stderr: notices, errors, the summary, what libraries
log, warn of or print. Nothing goes to stdout. No line has a credential.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, TextIO
from urllib.parse import unquote

from framecast.cli.announce import announce as print_line
from framecast.cli.announce import put, say, takes
from framecast.cli.usage import command_in
from framecast.errors import FramecastError, OptionError
from framecast.notice import Notice, to_log
from framecast.redact import redact_message

if TYPE_CHECKING:
    from framecast.cli.saved import SavedReport
    from framecast.runtime.fleet_report import FleetReport, Total
    from framecast.runtime.report import Report

FORMS = ("text", "json")
BURST = 10  # lines of one event of a camera in one minute; more are counted: no fault that repeats can fill a disk
SECRET = 6  # characters: a shorter password is hidden only in addresses, because other words may contain it
_PREFIX = re.compile(r"\A(warning|note): ")  # for people; machines have the level and the event

_log = logging.getLogger("framecast")
_json: JsonLines | None = None  # set while lines are JSON


class JsonLines(logging.Handler):
    """Writes each record as one JSON object on one line.

    A line that nobody reads is no error. One that is only half read ends there: the next begins on a line of its own.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._minute, self._said, self._left = 0, Counter[str](), Counter[str]()
        self._torn = False  # whether the newest line may lack its end
        self.secrets: set[str] = set()  # replaced as a whole: other threads read it

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        try:
            if (left := self._left_out(record)) is not None:
                text = "\n" * self._torn + self.line(record, left) + "\n"
                if (rest := put(self._stream, text)) != text:
                    self._torn = bool(rest)
        except Exception:  # noqa: BLE001, S110 (there is no place left to report it)
            pass

    def line(self, record: logging.LogRecord, left: int = 0) -> str:
        """A record as JSON.

        Args:
            record: from any library; a :class:`Notice` as its message has an event and fields.
            left: how many like it were left out before.
        """
        from framecast.runtime.report import to_json

        said = record.msg
        fields: dict[str, object] = {**said.fields} if isinstance(said, Notice) else {"logger": record.name}
        if record.exc_info:
            fields["traceback"] = (self.formatter or logging.Formatter()).formatException(record.exc_info)
        if left:
            fields["left_out"] = left
        text = record.getMessage()
        if record.name == "py.warnings":
            text = text.partition("\n")[0]  # then comes the line of code
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        found = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": _event(record),
            "message": _PREFIX.sub("", " ".join(text.split())),
            "fields": fields,
        }
        return to_json(self._hidden(found))

    def _hidden(self, value: object) -> object:
        """The value without credentials, in every text of it."""
        if isinstance(value, dict):
            return {key: self._hidden(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._hidden(item) for item in value]
        if not isinstance(value, (str, Path)):
            return value
        text = str(value)
        for secret in sorted(self.secrets, key=len, reverse=True):  # one may begin as another one does
            text = text.replace(secret, "***")
        return redact_message(text)

    def _left_out(self, record: logging.LogRecord) -> int | None:
        """How many records like this one were left out before it; None to leave it out as well."""
        whose = record.msg.fields.get("camera", "") if isinstance(record.msg, Notice) else ""
        key, minute = f"{_event(record)} {record.name} {whose}", int(record.created // 60)
        if minute != self._minute:
            self._minute = minute
            self._said.clear()
        self._said[key] += 1
        if self._said[key] > BURST and record.levelno > logging.DEBUG:
            self._left[key] += 1
            return None
        return self._left.pop(key, 0)


def _event(record: logging.LogRecord) -> str:
    if isinstance(record.msg, Notice):
        return record.msg.event
    return "warning" if record.name == "py.warnings" else "log"


class _Printed(io.TextIOBase):
    """Stands in for a stream: every line that is printed there becomes an event."""

    def __init__(self, number: int) -> None:
        self._number, self._rest = number, ""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, lines):
            to_log(Notice("printed", line))
        return len(text)

    def fileno(self) -> int:
        return self._number


@contextmanager
def prepared(arguments: Sequence[str]) -> Iterator[None]:
    """Set up what a command says, and put everything back at the end.

    Args:
        arguments: of the command line. ``--log json`` counts even if the rest of them has a mistake.
    """
    global _json
    root = logging.getLogger()
    before = (*root.handlers,), sys.stdout, sys.stderr, threading.excepthook, root.level, _log.level
    logging.basicConfig(format="%(name)s: %(message)s")
    try:
        typed = " ".join(arguments).replace("--log=", "--log ")
        if command_in(arguments, ("run",)).endswith("run") and "--log json" in typed:
            use("json")
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:], sys.stdout, sys.stderr, threading.excepthook = list(before[0]), *before[1:4]
        root.setLevel(before[4])
        _log.setLevel(before[5])
        _json = None


def check_form(form: str) -> None:
    """Check the value of ``--log``.

    Raises:
        OptionError: there is no such form.
    """
    if form not in FORMS:
        raise OptionError(f"--log takes {' or '.join(FORMS)}, not {form!r}")


def use(form: str) -> None:
    """Choose a form for all that follows; see :func:`check_form`."""
    global _json
    if form == "json" and _json is None:
        root = logging.getLogger()
        _json = JsonLines(sys.stderr)
        root.handlers[:] = [_json]
        logging.captureWarnings(True)
        sys.stdout, sys.stderr = _Printed(1), _Printed(2)
        threading.excepthook = _thread_failed
        set_level(root.isEnabledFor(logging.INFO))


def set_level(verbose: bool) -> None:
    """Set what is logged: what matters, or with ``--verbose`` what framecast chooses, and why."""
    usual = logging.WARNING if _json else logging.ERROR
    logging.getLogger().setLevel(logging.INFO if verbose else usual)
    _log.setLevel(logging.DEBUG if verbose else logging.INFO if _json else logging.ERROR)


def hide(source: str, token: str | None) -> None:
    """Hide the password in a source's address, and the page's token, wherever they occur from now on in JSON."""
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/+[^:]*:(.*)@", source)
    password = found[1] if found else ""
    if _json:
        texts = (password, unquote(password), token or "")
        _json.secrets = _json.secrets | {text for text in texts if len(text) >= SECRET}


def announce(line: str) -> None:
    """Say what the user should read."""
    (to_log if _json else print_line)(line)


def fail(message: str, code: int, error: BaseException | None = None) -> None:
    """Say why the command ends with this exit code, if there is a reason: one line, without credentials."""
    words = " ".join(message.split())
    line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)
    if not line:
        return
    if not _json:
        say(f"framecast: {redact_message(line)}")
        return
    notice = Notice("error", line, logging.ERROR, error=type(error).__name__ if error else None, exit_code=code)
    unexpected = error is not None and not isinstance(error, FramecastError) and code == 1
    _log.error(notice, exc_info=error if unexpected else None)


def in_json() -> bool:
    """Whether lines are JSON."""
    return _json is not None


@contextmanager
def status() -> Iterator[Callable[[Report | FleetReport], None]]:
    """Yield a function that shows a report while a run goes on: on a terminal, or in JSON its new warnings."""
    if not _json:
        from framecast import terminal

        with terminal.status_line() as show:
            yield show
        return
    told: set[tuple[str, str]] = set()

    def tell(report: Report | FleetReport) -> None:
        from framecast.runtime.fleet_report import several

        reports = report["cameras"] if several(report) else {"": report}
        for name, one in reports.items():
            of = {"camera": name} if name else {}
            for warning in one["warnings"]:
                line = f"{name}: {warning}" if name else warning
                kind = name, re.sub(r"[\d.]+", "0", warning)  # its figures change all the time
                if kind not in told:
                    told.add(kind)
                    to_log(Notice("warning", line, logging.WARNING, **of))

    yield tell


def summary(report: Report | FleetReport, saved: SavedReport | None) -> None:
    """Show a run's final figures (of several cameras: of each, and the total), and whether its report was written."""
    from framecast.runtime.fleet_report import several

    if not _json:
        from framecast import terminal

        if sys.stdout.isatty() or takes(sys.stdout):  # a pipe that is full would keep the run from ending
            terminal.summary(report, {} if saved is None else {saved.path: saved.whole})
        return
    fields: dict[str, object] = {"files": [str(saved.path)] if saved and saved.whole else []}
    if several(report):
        for name, one in report["cameras"].items():
            to_log(Notice("camera_summary", f"{name}: {_summed(one)}", camera=name, **one))
        fields |= {**report["total"]}
        line = _summed(report["total"])
    else:
        fields |= {**report}
        line = _summed(report)
    to_log(Notice("summary", line, logging.INFO, **fields))


def _summed(report: Report | Total) -> str:
    return f"{report['frames']} frames predicted, {report['dropped']} dropped: {report['ended']}"


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None:
        trace = failed.exc_type, failed.exc_value, failed.exc_traceback
        name = failed.thread.name if failed.thread else None
        _log.error(Notice("thread_failed", repr(failed.exc_value), logging.ERROR, thread=name), exc_info=trace)
