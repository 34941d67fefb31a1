"""The configuration file of ``framecast run``: its keys are the command's options, and its values have their checks.

Options that may differ from camera to camera can stand in tables, ``[[camera]]``, one for each camera.

Every mistake is reported, one to a line, with its place: ``box.toml:7: unknown key …``. The exit code is then 2.
"""

from __future__ import annotations

import difflib
import inspect as signatures
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin

import typer

from framecast.cli import logs
from framecast.cli.announce import say
from framecast.cli.secret import exposed
from framecast.errors import FramecastError, OptionError, one_line
from framecast.notice import Notice
from framecast.redact import redact, redact_message

if TYPE_CHECKING:
    from framecast.cli.statements import Statement

MOST = 100  # values of a list
LONGEST = 4096  # characters of a string
SHOWN = 20  # mistakes that are printed
PER_CAMERA = ("source", "now", "ahead", "horizon", "camera_delay", "conceal", "record", "out")  # and a name
_PATHS = {"source", "model", "token_file", "record", "json"}  # where ~ means the home folder, as in a shell


@dataclass(frozen=True)
class FileOption:
    """An option of the command, or its argument.

    Attributes:
        name: of the command's parameter: ``camera_delay``.
        kind: of its values: str, Path, int, float, bool or list.
        default: None if there is none.
        help: of the command.
    """

    name: str
    kind: type
    default: Any
    help: str

    @property
    def key(self) -> str:
        """Its key in a file: ``camera-delay``."""
        return self.name.replace("_", "-")


@dataclass
class Table:
    """What a file, or a table of it, sets.

    Attributes:
        values: by the names of the command's parameters.
        lines: where.
        line: of the table's head; 0 for the file.
    """

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    line: int = 0


@dataclass
class ConfigFile(Table):
    """A configuration file, and what it gives.

    Attributes:
        path: as the user named it.
        given: the names that it gave to the command. The command line gave the others.
        cameras: its tables.
        again: whether it is read again in a run, which goes on if it has mistakes.
    """

    path: str = ""
    given: set[str] = field(default_factory=set)
    cameras: list[Table] = field(default_factory=list)
    again: bool = False

    def __init__(self, path: str, *, again: bool = False) -> None:
        super().__init__()
        self.path, self.given, self.cameras, self.again = path, set(), [], again

    def load(self, known: Sequence[FileOption], *, strict: bool = False) -> None:
        """Read and check the file.

        Args:
            known: what it may set.
            strict: report a model or a file that does not exist as well; it may exist later.

        Raises:
            typer.Exit: the file has mistakes, which have been printed.
        """
        from framecast.cli.statements import MistakeError, read_statements, read_text

        try:
            statements, mistakes = read_statements(read_text(Path(self.path)))
        except MistakeError as error:
            self.fail(error.mistakes)
        keys = {option.key: option for option in known}
        camera: Table | None = None  # the table that is being read; None after a head that has been reported
        for one in statements:
            try:
                if one.key == "camera" and not one.table:
                    camera = None  # whatever it is, keys that follow are not the file's
                    camera = self._begin(one)
                elif not one.table:
                    self._take(one, keys, strict, self)
                elif camera is not None and one.table == "camera":
                    self._take(one, keys, strict, camera)
            except MistakeError as error:  # noqa: PERF203 (all are reported)
                mistakes.extend(error.mistakes)
        if self.cameras and "source" in self.lines:
            mistakes.append((self.lines["source"], "source is in each [[camera]]: leave this one out"))
        mistakes += [
            (one.line, 'this camera has no source: add source = "…"')
            for one in self.cameras
            if "source" not in one.lines
        ]
        if mistakes:
            self.fail(sorted(mistakes))

    def give(self, name: str) -> Any:
        """The value of an option that the command line does not set."""
        self.given.add(name)
        if name == "source":
            return [table.values.get(name, "") for table in self.cameras] or [self.values[name]]
        return self.values[name]

    @property
    def sets(self) -> set[str]:
        """The names that it can give."""
        return {*self.values} | ({"source"} if self.cameras else set())

    def fail(self, mistakes: Sequence[tuple[int, str]]) -> None:
        """Print mistakes, each with its line (0: the whole file), and exit with 2.

        Raises:
            typer.Exit: always.
        """
        lines = [f"{self.place(line)}: {one_line(redact_message(text))}" for line, text in mistakes[:SHOWN]]
        if len(mistakes) > SHOWN:
            lines.append(f"{self.place(0)}: and {len(mistakes) - SHOWN} more mistakes")
        if not logs.in_json():
            for line in lines:
                say(line)
        elif self.again:
            logs.announce(Notice("warning", "; ".join(lines), logging.WARNING))
        else:
            logs.fail("; ".join(lines), 2)
        raise typer.Exit(2)

    def place(self, line: int) -> str:
        """The file and a line of it, for a message."""
        return (redact(self.path) or "--config") + (f":{line}" if line else "")

    def _begin(self, one: Statement) -> Table:
        """Begin the table of a camera.

        Raises:
            MistakeError: it is not the head of such a table.
        """
        from framecast.cli.statements import MistakeError

        if one.value != [{}]:
            raise MistakeError((one.line, "each camera is a table of its own: write [[camera]], and its keys below it"))
        self.cameras.append(Table(line=one.line))
        return self.cameras[-1]

    def _take(self, one: Statement, known: Mapping[str, FileOption], strict: bool, table: Table) -> None:
        """Check a statement, and keep its value in a table.

        Raises:
            MistakeError: it has a mistake.
        """
        from framecast.cli.run_options import check_option
        from framecast.cli.statements import MistakeError

        if table is not self and one.key in known and known[one.key].name not in PER_CAMERA:
            raise MistakeError((one.line, f"{one.key} is for all cameras: put it above the first [[camera]]"))
        allowed = (
            dict(known) if table is self else {"name": NAME} | {k: o for k, o in known.items() if o.name in PER_CAMERA}
        )
        option = allowed.get(one.key)
        if option is None:
            near = difflib.get_close_matches(one.key[:100], allowed, 1)
            hint = f'did you mean "{near[0]}"?' if near else "see 'framecast config --example'"
            if _shown(one.value) == "a table":
                hint = "the only tables are [[camera]]"
            raise MistakeError((one.line, f'unknown key "{redact(one.key[:100])}" ({hint})'))
        name = option.name
        if name in table.lines:
            raise MistakeError((one.line, f"{one.key} is there already, in line {table.lines[name]}: leave one out"))
        table.lines[name] = one.line
        if (wanted := _type_mistake(option, one.value)) is not None:
            raise MistakeError((one.line, f"{one.key} {wanted}"))
        value = _as_in_a_shell(name, one.value)
        try:
            check_option(name, value, strict=strict)
        except FramecastError as error:
            if strict or isinstance(error, OptionError):
                raise MistakeError((one.line, f"{one.key}: {_reason(name, value, error, strict)}")) from None
        table.values[name] = value

    def warn(self) -> None:
        """Print a line if other users can read a password in the file."""
        values = [value for table in (self, *self.cameras) for value in table.values.values()]
        texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
        secret = any(isinstance(text, str) and "***" in redact(text) and "***" not in text for text in texts)
        if secret and exposed(Path(self.path)):
            cure = f'chmod 600 {self.place(0)}, or use source = "@FILE"'
            line = f"warning: {self.place(0)}: other users can read its password: {cure}"
            logs.announce(Notice("warning", line, logging.WARNING))


NAME = FileOption("name", str, None, "The camera's name: in reports, metrics, names of recordings and on the page.")


def options(command: Callable[..., None]) -> list[FileOption]:
    """What a file may set: every parameter of a command, in its order, but for ``--config`` itself."""
    found = []
    for name, one in signatures.signature(command, eval_str=True).parameters.items():
        if name != "config":
            hint, info = get_args(one.annotation)
            kind = get_args(hint)[0] if isinstance(hint, UnionType) else hint  # str | None
            kind = str if name == "source" else get_origin(kind) or kind  # list[str]; one source in a file or a table
            default = None if one.default is signatures.Parameter.empty else one.default
            found.append(FileOption(name, kind, default, info.help))
    return found


@contextmanager
def placed(config: ConfigFile | None, *names: str, lasting: bool = True, table: Table | None = None) -> Iterator[None]:
    """Say where in the file the option is that an error is about.

    Args:
        config: the file, if there is one.
        names: the options that may be to blame. The first that comes from the file is.
        lasting: whether only a change of the file can mend an OptionError. It then ends the command with exit code 2,
            after which systemd does not start it again.
        table: of the camera that it is about, if it has one.

    Raises:
        typer.Exit: the file has a mistake, which has been printed.
        FramecastError: any other error.
    """
    try:
        yield
    except FramecastError as error:
        own = {} if table is None else table.lines
        line = next((own[name] for name in names if name in own), None)
        if config is not None and line is None:
            line = next((config.lines[name] for name in names if name in config.given & {*config.lines}), None)
        if config is None or line is None:
            raise
        if lasting and isinstance(error, OptionError):
            config.fail([(line, str(error))])
        raise type(error)(f"{config.place(line)}: {error}") from error


def _type_mistake(option: FileOption, value: Any) -> str | None:
    """What is wrong with the type of a value, as the end of a sentence; None if nothing is."""
    if isinstance(value, int) and value.bit_length() > 63:
        return "is too large"
    if option.kind is bool:
        return None if isinstance(value, bool) else f"takes true or false, not {_shown(value)}"
    if option.kind is list:
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return _text_mistake(*value)
        return f'takes a list of strings, as in {option.key} = ["…"], not {_shown(value)}'
    if option.kind in (int, float):
        if isinstance(value, (int, option.kind)) and not isinstance(value, bool):
            return None
        wanted = "a whole number" if option.kind is int else "a number"
        return f"takes {wanted}{' without quotes' * isinstance(value, str)}, not {_shown(value)}"
    if isinstance(value, str):
        return _text_mistake(value)
    quoted = f': write {option.key} = "{value}"' if type(value) in (int, float) else ""
    return f"takes a string, not {_shown(value)}{quoted}"


def _text_mistake(*texts: str) -> str | None:
    if len(texts) > MOST:
        return f"has more than {MOST} values"
    if max(map(len, texts), default=0) > LONGEST:
        return f"is longer than {LONGEST} characters"
    return "has a NUL character: leave it out" if any("\0" in text for text in texts) else None


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f'"{redact(value)}"' if len(value) < 100 else "a long string"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value}"
    if isinstance(value, list):
        return "a table" if value and all(isinstance(one, dict) for one in value) else "this list"
    return "a table" if isinstance(value, dict) else "a date or time"


def _as_in_a_shell(name: str, value: Any) -> Any:
    """Expand ~, and ":8000" as an address, which ``usage.py`` does on the command line."""
    from framecast.cli.usage import DEFAULT_ADDRESS, with_address

    if isinstance(value, list):
        return [_as_in_a_shell(name, one) for one in value]
    if name in _PATHS and value.startswith("~"):
        return os.path.expanduser(value)  # noqa: PTH111 (pathlib raises where there is no such user)
    if name == "serve":
        return with_address([f"--serve={value}"], DEFAULT_ADDRESS)[0].partition("=")[2]
    return value


def _reason(name: str, value: Any, error: FramecastError, strict: bool) -> str:
    """What a check says of a value, without the dashes of an option, and without passwords.

    A message may quote any part of a value. So a value with a password is checked again without it.
    """
    from framecast.cli.run_options import check_option

    safe = [redact(one) for one in value] if isinstance(value, list) else redact(str(value))
    if "***" in str(safe):
        try:
            check_option(name, safe, strict=strict)
        except FramecastError as other:
            error = other
        else:
            return "it is not valid"
    return re.sub(r"\A--[\w-]+ ", "", str(error))
