"""``framecast config``: an example of the configuration file of ``framecast run``, and a check of one."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from framecast.cli.cameras import check_together, chosen
from framecast.cli.complete import complete_configurations
from framecast.cli.config_file import ConfigFile, options
from framecast.cli.run import run
from framecast.cli.usage import DEFAULT_ADDRESS
from framecast.errors import OptionError

WIDTH = 100  # characters of a line
HEAD = """
The configuration of framecast: framecast run --config FILE

Every option of 'framecast run' is here, with its default. Remove the # before a setting to change it. Options on the
command line win over this file. Check it with: framecast config --check FILE

Times have a unit: 250ms, 2.5s. Relative paths start at the folder in which framecast is started, and ~ is the home
folder. Keep passwords out of this file: source = "env:NAME" or "@FILE" says where the address is.
"""
# Values to show for options that are not set by default. The source has to be set.
SAMPLES: dict[str, Any] = {
    "source": "demo",
    "ahead": "120ms",
    "horizon": 1,
    "refresh": 60,
    "serve": "127.0.0.1:8000",
    "conceal": "500ms",
    "token-file": "/run/secrets/framecast.token",
    "host": ["cam.example.org"],
    "record": ["run.mkv"],
    "segment": "10min",
    "keep": "20GB",
    "out": ["rtsp://127.0.0.1:8554/framecast"],
    "json": "run.json",
    "frames": 1000,
}


CAMERAS = """
# Several cameras: a table for each, at the end of the file, in place of the source above. A table
# takes name, source, now, ahead, horizon, camera-delay, conceal, record and out. What it leaves out
# is as above.
#
# [[camera]]
# name = "door"
# source = "env:DOOR_URL"
#
# [[camera]]
# name = "yard"
# source = "env:YARD_URL"
# camera-delay = "250ms"
"""


def config(
    example: Annotated[
        bool, typer.Option("--example", help="Print a file with every option of 'framecast run', its default and help.")
    ] = False,
    check: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check a file without running it.", autocompletion=complete_configurations),
    ] = None,
) -> None:
    """Print or check a configuration file for 'run'.

    It is a TOML file with the options of 'framecast run' as its keys: camera-delay = "180ms".

    Write it with 'framecast config --example > box.toml', and use it with 'framecast run --config box.toml'.
    """
    if example == (check is not None):
        raise OptionError("give --example or --check FILE")
    if check is None:
        print(example_file())
    else:
        check_file(str(check))
        print(f"{check}: no mistakes")


def check_file(path: str) -> None:
    """Check a file as ``framecast run`` does, and that model and clip exist, without opening cameras and outputs.

    Raises:
        typer.Exit: it has mistakes, which have been printed.
    """
    known = options(run)
    file = ConfigFile(path)
    file.load(known, strict=True)
    given = {one.name: one.default for one in known} | {name: file.give(name) for name in file.sets}
    check_together(chosen(given, file), file)
    file.warn()


def example_file() -> str:
    """A configuration file with every option of ``framecast run``."""
    text = "\n#\n".join(_comment(paragraph) for paragraph in HEAD.strip().split("\n\n"))
    for one in options(run):
        value = SAMPLES[one.key] if one.default is None else one.default
        # JSON writes strings, numbers, switches and lists of strings as TOML does.
        setting = f"{'' if one.name == 'source' else '#'}{one.key} = {json.dumps(value, ensure_ascii=False)}"
        help_text = re.sub(r"--(?=[a-z])", "", one.help).replace("Repeatable", "A list")
        help_text = help_text.replace(f", at this address (default: {DEFAULT_ADDRESS})", ", at this address")
        unset = one.default is None and one.name != "source" and f"(default: {value})" not in help_text
        note = "  # default: not set" if unset else ""
        text += f"\n\n{_comment(help_text)}\n{setting}{note}"
    return f"{text}\n\n{CAMERAS.strip()}"


def _comment(text: str) -> str:
    return textwrap.fill(
        " ".join(text.split()), WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )
