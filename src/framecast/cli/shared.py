"""What several commands share: models by name, outputs that replace no input, extras that are missing."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from framecast.errors import FramecastError, OptionError

MODEL_HELP = "An artifact's path, or a name (framecast models); one that does not ship gets random weights."

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="OPTION=VALUE", help="Change an option of the configuration; repeatable."),
]


def check_numbers(**values: int | None) -> None:
    """Options that count something are 1 or more; None is one that was not given."""
    for name, value in values.items():
        if value is not None and value < 1:
            raise OptionError(f"--{name.replace('_', '-')} must be at least 1, not {value}")


def check_outputs(source: str, outputs: list[Path]) -> None:
    """No output may take the place of an input, or of another output."""
    place = source.removeprefix("file://")  # or a URI that is no path at all
    taken = {os.path.realpath(path) for path in [place, *glob.glob(place)]}  # noqa: PTH207
    for path in outputs:
        where = os.path.realpath(path)
        # In a folder of images, or under its glob, it would be an input of the next run.
        if where in taken or os.path.realpath(path.parent) in taken or fnmatch.fnmatch(path, place):
            raise OptionError(f"{path} is among the inputs, or named twice: give every output a place of its own")
        taken.add(where)


def say(line: str) -> None:
    """Tell how far a command is, beside what it prints."""
    print(line, file=sys.stderr, flush=True)


def check_clips(*places: str) -> None:
    """Clips can be opened: said before what takes long. Cameras are left alone: one may not bear to be opened twice."""
    from framecast.camera import open_source

    for place in dict.fromkeys(places):
        if not re.match(r"[0-9]{1,3}$|(v4l2|csi|rtsps?):", place, re.IGNORECASE):
            open_source(place).close()


def check_models(*models: str) -> None:
    """Each is a configuration, or can be found; said before the first of them is exported."""
    from framecast.runtime.shipped import find

    for model in models:
        if not exported(model):
            find(model)


@contextmanager
def on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM call ``stop``, which ends things cleanly; the second one does as always."""

    def stopped(number: int, _: object) -> None:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        stop()

    before = {number: signal.signal(number, stopped) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exported(model: str) -> bool:
    """Whether a model's name is a configuration that does not ship."""
    from framecast.models.configs import CONFIGS
    from framecast.runtime.shipped import shipped

    return model in CONFIGS and model not in shipped()


@contextmanager
def artifact(model: str, engine: str = "auto") -> Iterator[str]:
    """What to load for a model's name: a configuration that does not ship is exported for this run, untrained.

    The torch engine is given the weights instead: an artifact may hold them merged.
    """
    from framecast.models.configs import CONFIGS

    if not exported(model):
        yield model
        return
    if not CONFIGS[model].data.is_picture:
        raise OptionError(
            f"{model} takes channels that are no picture: it can be exported, but not shown a camera or clip"
        )
    with needs_extra(f"{model}, which does not ship,"):
        from framecast.export.exporter import export_random
    print(f"{model} comes without weights: exporting it with random ones for this run", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="framecast-") as folder:
        yield str(export_random(model, Path(folder), artifact=not engine.startswith("torch")))


@contextmanager
def needs_extra(command: str, extra: str = "models") -> Iterator[None]:
    """Say how to get what a command's imports miss: which ``extra`` of the package brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        cure = f"pip install 'framecast[{extra}]', or in a clone pip install -e '.[{extra}]'"
        raise FramecastError(f"{command} needs {error.name}: {cure}") from error
