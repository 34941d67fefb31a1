"""The cameras of ``framecast run``: of SOURCEs on the command line, or of the file's ``[[camera]]`` tables."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from framecast.cli import logs
from framecast.cli.checks import check_outputs, patience
from framecast.cli.config_file import PER_CAMERA, ConfigFile, FileOption, Table, placed
from framecast.cli.run_options import TOGETHER, lookahead
from framecast.cli.secret import address
from framecast.errors import FramecastError, OptionError
from framecast.notice import Notice

if TYPE_CHECKING:
    from framecast.runtime.lane import Camera

STDIN = "-"  # as a source
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
    piped = False
    outs: set[str] = set()
    for camera in cameras:
        with placed(config, "name", "source", table=camera.table):
            if camera.name.lower() in names_taken:
                raise OptionError(f"two cameras are named {camera.name!r}: give each its own name")
        names_taken.add(camera.name.lower())
        with placed(config, "source", table=camera.table):
            if camera.given["source"] == STDIN and piped:
                raise OptionError("two cameras would read standard input: each would get a part of it")
        piped = piped or camera.given["source"] == STDIN
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


class Reading:
    """Reads the cameras from the file again, while the run goes on.

    SIGHUP asks for it, as of other services. No request to the page does: whoever may add a camera can let this machine
    open any address and any file, and the page's token shall not allow that. The file's owner can do it anyway.

    Args:
        config: the file that the run began with.
        given: the run's options, as for :func:`chosen`. Those of the command line stay. The file's options for each
            camera are read again; its other ones need another start.
        known: what a file may set.
    """

    def __init__(self, config: ConfigFile, given: Mapping[str, Any], known: Sequence[FileOption]) -> None:
        self._config, self._given, self._known = config, given, known
        self._asked = threading.Event()
        self._told = dict(config.values)  # of which the user knows whether they have an effect

    @classmethod
    def of(cls, config: ConfigFile | None, given: Mapping[str, Any], known: Sequence[FileOption]) -> Reading | None:
        """One, if the cameras are the file's and no terminal is there, whose end SIGHUP would mean."""
        if config is None or not config.cameras or "source" not in config.given:
            return None
        try:
            os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
        except OSError:
            return cls(config, given, known)
        return None

    def ask(self) -> None:
        """Ask for it. Safe in a signal handler."""
        self._asked.set()

    def take(self) -> list[Chosen] | None:
        """The file's cameras, if somebody has asked for them and the file has no mistake. It prints every mistake."""
        if not self._asked.is_set():
            return None
        self._asked.clear()
        file = ConfigFile(self._config.path, again=True)
        try:
            file.load(self._known)
            if not file.cameras:
                raise OptionError(f"{file.place(0)} has no [[camera]]: stop framecast to end all")
            file.given = {*self._config.given}
            found = sources(chosen({**self._given, **self._again(file)}, file), file)
            check_together(found, file)
        except (typer.Exit, FramecastError) as error:
            reason = f": {error}" if isinstance(error, FramecastError) else ""
            logs.announce(Notice("cameras_kept", f"keeping the cameras as they are{reason}", logging.WARNING))
            return None
        file.warn()
        for line in self._stays(file):
            logs.announce(Notice("warning", f"warning: {line}", logging.WARNING))
        self._told = dict(file.values)
        for one in found:
            logs.hide(one.given["source"], None)
        return found

    def _again(self, file: ConfigFile) -> dict[str, Any]:
        """The options of cameras that the file sets for all of them, and their sources."""
        again: dict[str, Any] = {"source": file.give("source")}
        for option in self._known:
            name = option.name
            typed = name not in self._config.given and self._given[name] != option.default  # on the command line
            if name in PER_CAMERA and name != "source" and not typed:
                again[name] = file.give(name) if name in file.values else option.default
        return again

    def _stays(self, file: ConfigFile) -> Iterator[str]:
        """A line for each option that has changed since the last reading, but cannot change in a run."""
        for option in self._known:
            name = option.name
            if name not in PER_CAMERA and file.values.get(name) != self._told.get(name):
                place = file.place(file.lines.get(name, 0))
                yield f"{place}: {option.key} stays as it was: restart framecast to change it"


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
