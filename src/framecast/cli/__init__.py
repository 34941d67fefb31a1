"""The command line. It puts the rooms together, and imports them only when a command needs them."""

from __future__ import annotations

import logging
import re
import sys
from typing import Annotated

import typer

from framecast.cli import bench, build, evaluate, export, forms, listing, mnist, parity, train
from framecast.cli.run import DEFAULT_ADDRESS, run
from framecast.errors import FramecastError

app = typer.Typer(
    name="framecast",
    help="Watch a live camera and show, now, the frames still to come.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(run)
app.command("eval")(evaluate.evaluate)
app.command()(listing.models)
app.command()(export.export)
app.command()(export.import_checkpoint)
app.command()(export.inspect)
app.command()(parity.parity)
app.command()(forms.quantize)
app.command()(forms.prepare)
app.command()(build.build)
app.command()(bench.bench)
app.command()(train.train)
app.command()(mnist.moving_mnist)
app.command()(listing.doctor)


def main() -> None:
    """Entry point: errors are one line and exit code 1; wrong usage is one line and exit code 2."""
    try:
        sys.exit(app(_with_address(sys.argv[1:]), prog_name="framecast", standalone_mode=False) or 0)
    except FramecastError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        format_message = getattr(error, "format_message", None)  # Typer's own, whichever Click is underneath
        if format_message is not None:
            _fail(f"{message.rstrip('.')} (see 'framecast --help')" if (message := format_message()) else "", 2)
        if logging.getLogger().isEnabledFor(logging.INFO):  # --verbose
            raise
        _fail(f"{type(error).__name__}: {error} (not foreseen: run it again with --verbose, and report that)", 1)


def _fail(message: str, code: int) -> None:
    """Leave with a message on one line; wherever a URL has landed in it, its credentials are left out."""
    if message:
        print("framecast:", re.sub(r"(\w+://)\S*@", r"\1***@", " ".join(message.split())), file=sys.stderr)
    sys.exit(code)


def _with_address(arguments: list[str]) -> list[str]:
    """Let ``--serve`` stand alone: an address follows if it looks like HOST:PORT, or a PORT of four digits or five."""
    out: list[str] = []
    for index, argument in enumerate(arguments):
        out.append(argument)
        following = arguments[index + 1] if index + 1 < len(arguments) else ""
        if argument == "--serve" and not re.fullmatch(r"[^/]*:\d+|\d{4,5}", following):
            out.append(DEFAULT_ADDRESS)
    return out


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is chosen, and why.")] = False,
) -> None:
    if version:
        from framecast import __version__

        print(f"framecast {__version__}")
        raise typer.Exit
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(name)s: %(message)s")
