"""The cameras of ``framecast run``: of SOURCEs on the command line, or of the file's ``[[camera]]`` tables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framecast.cli.checks import check_outputs, patience
from framecast.cli.config_file import ConfigFile, Table, placed
from framecast.cli.run_options import TOGETHER, lookahead
from framecast.cli.secret import address
from framecast.errors import OptionError

if TYPE_CHECKING:
    from framecast.runtime.lane import Camera

_AHEAD = ("now", "ahead", "horizon")  # of these, a camera has one


@dataclass(frozen=True)
class Chosen:
    """A camera that the user asks for.

    Attributes:
        name: its name; "" if it is the only one, and has none.
        given: all options of the command, as they are for this camera; ``source`` is its own.
        table: where the file describes it, if it does.
    """

    name: str
    given: Mapping[str, Any]
    table: Table | None = None

    @property
    def record(self) -> list[Path]:
        """Its recordings."""
        return [Path(path) for path in self.given["record"] or []]


def chosen(given: Mapping[str, Any], config: ConfigFile | None) -> list[Chosen]:
    """The cameras of a run, each with its options: its table's, else those of the run.

    Several cameras that are not in tables share ``--record``: ``run.mkv`` becomes ``run-camera1.mkv``, ….

    Args:
        given: the command's options by the names of its parameters; ``source`` is a list.
        config: the file, if there is one.
    """
    sources: list[str] = given["source"] or [""]
    tables: list[Table | None] = [None] * len(sources)
    if config is not None and config.cameras and "source" in config.given:
        tables = [*config.cameras]
    elif len(sources) == 1:
        return [Chosen("", {**given, "source": sources[0]})]
    found = []
    for number, (source, table) in enumerate(zip(sources, tables, strict=True), 1):
        own = {} if table is None else table.values
        name = own.get("name") or f"camera{number}"
        mine: dict[str, Any] = {**given, "source": source}
        if any(key in own for key in _AHEAD):
            mine |= {"now": False, "ahead": None, "horizon": None}
        mine |= {key: value for key, value in own.items() if key != "name"}
        if "record" not in own:
            mine["record"] = [named(Path(path), name) for path in given["record"] or []]
        found.append(Chosen(name, mine, table))
    return found


def named(path: Path, name: str) -> Path:
    """A camera's own recording: ``run.mkv`` becomes ``run-door.mkv``."""
    return path.with_name(f"{path.stem}-{name}{path.suffix}")


def check_together(cameras: list[Chosen], config: ConfigFile | None) -> None:
    """Check the options that depend on each other, for every camera, before anything is opened.

    Raises:
        typer.Exit: the file has a mistake, which has been printed.
        OptionError: the command line has one.
    """
    for camera in cameras:
        for names, check in TOGETHER:
            with placed(config, *names, table=camera.table):
                check(camera.given)
    if not cameras[0].name:
        return
    names_taken: set[str] = set()
    outs: set[str] = set()
    for camera in cameras:
        with placed(config, "name", "source", table=camera.table):
            if camera.name.lower() in names_taken:
                raise OptionError(f"two cameras are named {camera.name!r}: give each its own name")
        names_taken.add(camera.name.lower())
        with placed(config, "out", table=camera.table):
            if outs & {*(camera.given["out"] or [])}:
                raise OptionError("two cameras would send to one address: give each its own out in [[camera]]")
        outs |= {*(camera.given["out"] or [])}
    with placed(config, "show"):
        if cameras[0].given["show"]:
            raise OptionError("--show is for one camera: use --serve, whose page shows all")
    files = [path for camera in cameras for path in camera.record]
    for camera in cameras:
        with placed(config, "record", table=camera.table):
            check_outputs(camera.given["source"] or os.devnull, files)


def sources(cameras: list[Chosen], config: ConfigFile | None) -> list[Chosen]:
    """The same cameras, with their addresses read from the environment and from files.

    Raises:
        OptionError: one cannot be read.
    """
    found = []
    for camera in cameras:
        with placed(config, "source", lasting=False, table=camera.table):
            read = {**camera.given, "source": address(camera.given["source"])}
        found.append(Chosen(camera.name, read, camera.table))
    return found


def camera_of(one: Chosen, sinks: list[Any]) -> Camera:
    """The camera for :func:`framecast.run_cameras`."""
    from framecast.runtime.lane import Camera

    wish, conceal = lookahead(one.given), one.given["conceal"]
    return Camera(
        one.given["source"],
        name=one.name,
        now=wish.now,
        ahead=wish.seconds,
        horizon=wish.frames,
        camera_delay=wish.camera_delay,
        conceal=None if conceal is None else patience("--conceal", conceal),
        record=one.record,
        out=one.given["out"] or (),
        sinks=sinks,
    )
