"""The command line. It combines the rooms, and imports each only when a command needs it."""

from __future__ import annotations

import errno
import functools
import inspect as signatures
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from framecast.cli import logs
from framecast.cli.bench import bench
from framecast.cli.build import build
from framecast.cli.config import config
from framecast.cli.delay import delay
from framecast.cli.doctor import doctor
from framecast.cli.evaluate import evaluate
from framecast.cli.examples import epilog
from framecast.cli.export import export
from framecast.cli.export_server import export_server
from framecast.cli.import_checkpoint import import_checkpoint
from framecast.cli.inspect import inspect
from framecast.cli.models import models
from framecast.cli.moving_mnist import moving_mnist
from framecast.cli.parity import parity
from framecast.cli.quantize import quantize
from framecast.cli.run import run
from framecast.cli.signals import at_once, exit_code, guarded
from framecast.cli.split import split
from framecast.cli.train import train
from framecast.cli.usage import DEFAULT_ADDRESS, explain, with_address
from framecast.errors import FramecastError

COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "config": config,
    "delay": delay,
    "eval": evaluate,
    "models": models,
    "export": export,
    "export-server": export_server,
    "import-checkpoint": import_checkpoint,
    "inspect": inspect,
    "parity": parity,
    "quantize": quantize,
    "split": split,
    "build": build,
    "bench": bench,
    "train": train,
    "moving-mnist": moving_mnist,
    "doctor": doctor,
}

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what framecast chooses, and why.")]

app = typer.Typer(
    name="framecast",
    help="Watch a live camera and show, now, the frames still to come.",
    epilog="'framecast COMMAND --help' says more, with examples.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text fits into 80 columns, and needs no library
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main() -> None:
    """Run a command. An error prints one line and exits with 1; a command line that cannot be parsed exits with 2."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal shows "?" for other characters
    try:
        Path.cwd()
    except OSError:
        _fail("the current folder no longer exists: cd to another one", 1)
    arguments = with_address(sys.argv[1:] or ["--help"], DEFAULT_ADDRESS)
    with logs.prepared(arguments):
        _run(arguments)


def _run(arguments: Sequence[str]) -> NoReturn:
    try:
        code = app(arguments, prog_name="framecast", standalone_mode=False) or 0
        sys.stdout.flush()
        sys.exit(code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if (code := exit_code()) is not None:
            sys.exit(code)
        if isinstance(error, FramecastError):
            _fail(str(error), 1, error)
        if (message := explain(error, arguments, COMMANDS)) is not None:
            _fail(message, 2, error)
        if isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and _is_output(error)):
            _leave_output(error)
        if logging.getLogger().isEnabledFor(logging.INFO) and not logs.in_json():  # --verbose
            raise
        _fail(f"unexpected {type(error).__name__}: {error}: rerun with --verbose and open an issue", 1, error)


def _open_streams() -> None:
    """Let closed standard streams lead nowhere. Otherwise the next file that is opened would get their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # noqa: PERF203 (three of them)
            os.open(os.devnull, os.O_RDWR)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _is_output(error: OSError) -> bool:
    """Whether the error came from writing to an open stream, such as standard output."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EIO)


def _leave_output(error: OSError) -> None:
    """Exit when standard output cannot be written. Buffered output is lost."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # the reader, such as head, has closed the pipe
        sys.exit(1)
    _fail(f"cannot write the output: {error.strerror} (make room, or send it elsewhere)", 1)


def _fail(message: str, code: int, error: Exception | None = None) -> NoReturn:
    """Exit with a message, if there is one."""
    logs.fail(message, code, error)
    sys.exit(code)


def _with_verbose(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option ``--verbose`` too, so that it may stand before or after the command's name."""

    @functools.wraps(command)
    def called(*arguments: Any, verbose: bool, **options: Any) -> None:
        if verbose:
            logs.set_level(verbose)
        with at_once(), nullcontext() if command is run else guarded():  # a run has watchdogs of its own
            command(*arguments, **options)

    signature = signatures.signature(command, eval_str=True)
    last = signatures.Parameter("verbose", signatures.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose)
    called.__signature__ = signature.replace(parameters=[*signature.parameters.values(), last])  # type: ignore[attr-defined]
    called.__annotations__ = {name: one.annotation for name, one in signature.parameters.items()} | {"verbose": Verbose}
    return called


for _name, _command in COMMANDS.items():
    app.command(_name, epilog=epilog(_name))(_with_verbose(_command))


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Verbose = False,
) -> None:
    if version:
        from framecast import __version__

        print(f"framecast {__version__}")
        raise typer.Exit
    logs.set_level(verbose)
