"""Reads the command line: lets ``--serve`` stand alone, and explains errors of usage in framecast's own words.

The parsing library words its errors for programmers. Error classes are recognized by name, because different releases
of the library keep them in different modules.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

DEFAULT_ADDRESS = "127.0.0.1:8000"  # of --serve
_ADDRESS = re.compile(r"[^/:]*:\d{1,5}|\[[^/]*\](:\d{1,5})?|\d{4,5}|localhost|\d+\.\d+\.\d+\.\d+", re.IGNORECASE)


def with_address(arguments: Sequence[str], default: str) -> list[str]:
    """Let ``--serve`` stand alone or take an address: HOST:PORT, :PORT, a PORT of four or five digits, or a HOST.

    A HOST is ``localhost`` or an IP address. Any other word after ``--serve`` is the source.

    Args:
        arguments: as typed.
        default: HOST:PORT if the user gives no address.
    """
    host = default.partition(":")[0]
    out: list[str] = []
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if out and out[-1] == "--serve" and argument.startswith(":"):
            out.append(f"{host}{argument}")
        elif option == "--serve" and equals:
            out.append(f"--serve={host if value.startswith(':') else ''}{value}")
        else:
            out.append(argument)
        following = arguments[index + 1] if index + 1 < len(arguments) else ""
        if argument == "--serve" and not _ADDRESS.fullmatch(following):
            out.append(default)
    return out


def command_in(arguments: Sequence[str], commands: Collection[str]) -> str:
    """``framecast``, followed by the command if the user typed one."""
    typed = next((argument for argument in arguments if not argument.startswith("-")), "")
    return f"framecast {typed}" if typed in commands else "framecast"


def explain(error: Exception, arguments: Sequence[str], commands: Collection[str]) -> str | None:
    """Explain in one line why a command line cannot be parsed. None if the error is of another kind.

    Args:
        error: the error.
        arguments: as typed.
        commands: all commands.
    """
    if not hasattr(error, "format_message"):
        return None
    command = command_in(arguments, commands)
    return f"{_reason(error, command, arguments, commands)} (see '{command} --help')"


def _reason(error: Exception, command: str, arguments: Sequence[str], commands: Collection[str]) -> str:
    kind, message = type(error).__name__, str(getattr(error, "message", ""))
    option = str(getattr(error, "option_name", ""))
    if kind == "NoSuchOption":
        near = getattr(error, "possibilities", None)
        return f"{command} has no option {option}" + (f": did you mean {near[0]}?" if near else "")
    if kind == "BadOptionUsage":
        if "does not take" in message:
            return f"{option} takes no value"
        return f"{option} needs a value"
    if kind == "MissingParameter":
        return f"{command} needs {_name(error)}"
    if kind == "BadParameter":
        return f"{_name(error)} takes {_wanted(message)}{_typed(error, arguments)}"
    extra = re.search(r"unexpected extra argument(?:s|\(s\))? \((.*)\)", message)
    if extra:
        return f"{command} takes no further argument: {extra[1]}"
    if "No such command" in message:
        word = next(argument for argument in arguments if not argument.startswith("-"))
        close = difflib.get_close_matches(word, commands, 1)
        return f"no command {word!r}: " + (f"did you mean {close[0]}?" if close else f"use {', '.join(commands)}")
    if "Missing command" in message:
        return f"give a command: {', '.join(commands)}"
    return message.rstrip(".")


def _wanted(message: str) -> str:
    words = message.lower()
    if "integer" in words:
        return "a whole number"
    if "number" in words or "float" in words:
        return "a number"
    return "another value"


def _name(error: Exception) -> str:
    """An option's long name, or an argument's name as in the help."""
    parameter = getattr(error, "param", None)
    options = [str(option) for option in getattr(parameter, "opts", ()) if str(option).startswith("-")]
    if options:
        return max(options, key=len)
    name = getattr(parameter, "metavar", None) or getattr(parameter, "name", None) or "an argument"
    return str(name).upper() if str(name).islower() and " " not in str(name) else str(name)


def _typed(error: Exception, arguments: Sequence[str]) -> str:
    """The option's bad value, as the end of a message."""
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in getattr(getattr(error, "param", None), "opts", ()):
            value = value if equals else "".join(arguments[index + 1 : index + 2])
            return f", not {value!r}"
    return ""
