"""The configuration file of ``framecast run``: its keys are the command's options, and its values have their checks.

Every mistake is reported, one to a line, with its place: ``box.toml:7: unknown key …``. The exit code is then 2.
"""

from __future__ import annotations

import difflib
import inspect as signatures
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin

import typer

from framecast.errors import FramecastError, OptionError, one_line
from framecast.redact import redact, redact_message

if TYPE_CHECKING:
    from framecast.cli.statements import Statement

MOST = 100  # values of a list
LONGEST = 4096  # characters of a string
SHOWN = 20  # mistakes that are printed
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
class ConfigFile:
    """A configuration file, and what it gives.

    Attributes:
        path: as the user named it.
        values: what it sets, by the names of the command's parameters.
        lines: where.
        given: the names that it gave to the command. The command line gave the others.
    """

    path: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)

    def load(self, known: Sequence[FileOption], *, strict: bool = False) -> None:
        """Read and check the file.

        Args:
            known: what it may set.
            strict: report a model that does not exist as well; it may exist later.

        Raises:
            typer.Exit: the file has mistakes, which have been printed.
        """
        from framecast.cli.statements import MistakeError, read_statements, read_text

        try:
            statements, mistakes = read_statements(read_text(Path(self.path)))
        except MistakeError as error:
            self.fail(error.mistakes)
        keys = {option.key: option for option in known}
        for one in statements:
            if one.table:
                continue  # the head of the table has been reported
            try:
                self._take(one, keys, strict)
            except MistakeError as error:
                mistakes.extend(error.mistakes)
        if mistakes:
            self.fail(sorted(mistakes))

    def give(self, name: str) -> Any:
        """The value of an option that the command line does not set."""
        self.given.add(name)
        return self.values[name]

    def fail(self, mistakes: Sequence[tuple[int, str]]) -> None:
        """Print mistakes, each with its line (0: the whole file), and exit with 2.

        Raises:
            typer.Exit: always.
        """
        with suppress(OSError):
            for line, text in mistakes[:SHOWN]:
                print(f"{self.place(line)}: {one_line(redact_message(text))}", file=sys.stderr)
            if len(mistakes) > SHOWN:
                print(f"{self.place(0)}: and {len(mistakes) - SHOWN} more mistakes", file=sys.stderr)
        raise typer.Exit(2)

    def place(self, line: int) -> str:
        """The file and a line of it, for a message."""
        return (redact(self.path) or "--config") + (f":{line}" if line else "")

    def _take(self, one: Statement, known: Mapping[str, FileOption], strict: bool) -> None:
        """Check a statement, and keep its value.

        Raises:
            MistakeError: it has a mistake.
        """
        from framecast.cli.run_options import check_option
        from framecast.cli.statements import MistakeError

        option = known.get(one.key)
        if option is None:
            near = difflib.get_close_matches(one.key[:100], known, 1)
            hint = f'did you mean "{near[0]}"?' if near else "see 'framecast config --example'"
            if _shown(one.value) == "a table":
                hint = "this file has no tables"
            raise MistakeError((one.line, f'unknown key "{redact(one.key[:100])}" ({hint})'))
        name = option.name
        if name in self.lines:
            raise MistakeError((one.line, f"{one.key} is there already, in line {self.lines[name]}: leave one out"))
        self.lines[name] = one.line
        if (wanted := _type_mistake(option, one.value)) is not None:
            raise MistakeError((one.line, f"{one.key} {wanted}"))
        value = _as_in_a_shell(name, one.value)
        try:
            check_option(name, value)
        except FramecastError as error:
            if strict or isinstance(error, OptionError):
                raise MistakeError((one.line, f"{one.key}: {_reason(name, value, error)}")) from None
        self.values[name] = value

    def warn(self) -> None:
        """Print a line if other users can read a password in the file."""
        texts = [text for value in self.values.values() for text in (value if isinstance(value, list) else [value])]
        secret = any(isinstance(text, str) and "***" in redact(text) and "***" not in text for text in texts)
        with suppress(OSError):
            if secret and Path(self.path).stat().st_mode & 0o077:
                cure = f'chmod 600 {self.place(0)}, or use source = "@FILE"'
                print(f"warning: {self.place(0)}: other users can read its password: {cure}", file=sys.stderr)


def options(command: Callable[..., None]) -> list[FileOption]:
    """What a file may set: every parameter of a command, in its order, but for ``--config`` itself."""
    found = []
    for name, one in signatures.signature(command, eval_str=True).parameters.items():
        if name != "config":
            hint, info = get_args(one.annotation)
            kind = get_args(hint)[0] if isinstance(hint, UnionType) else hint  # str | None
            kind = get_origin(kind) or kind  # list[str]
            default = None if one.default is signatures.Parameter.empty else one.default
            found.append(FileOption(name, kind, default, info.help))
    return found


@contextmanager
def placed(config: ConfigFile | None, *names: str, lasting: bool = True) -> Iterator[None]:
    """Say where in the file the option is that an error is about.

    Args:
        config: the file, if there is one.
        names: the options that may be to blame. The first that comes from the file is.
        lasting: whether only a change of the file can mend an OptionError. It then ends the command with exit code 2,
            after which systemd does not start it again.

    Raises:
        typer.Exit: the file has a mistake, which has been printed.
        FramecastError: any other error.
    """
    try:
        yield
    except FramecastError as error:
        line = next((config.lines[name] for name in names if name in config.given), None) if config else None
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


def _reason(name: str, value: Any, error: FramecastError) -> str:
    """What a check says of a value, without the dashes of an option, and without passwords.

    A message may quote any part of a value. So a value with a password is checked again without it.
    """
    from framecast.cli.run_options import check_option

    safe = [redact(one) for one in value] if isinstance(value, list) else redact(str(value))
    if "***" in str(safe):
        try:
            check_option(name, safe)
        except FramecastError as other:
            error = other
        else:
            return "it is not valid"
    return re.sub(r"\A--[\w-]+ ", "", str(error))
