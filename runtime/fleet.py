"""Runs several cameras in one process: a lane each, in a thread of its own, and one engine for all.

An engine that holds no weights is opened once for each camera instead, so that no camera waits for another's step.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, Union

from framecast.camera import Source
from framecast.clock import SYSTEM, Clock
from framecast.errors import EngineError, FramecastError, OptionError, SourceRefusedError
from framecast.notice import Notice, to_log
from framecast.redact import redact
from framecast.runtime.cpu import caution
from framecast.runtime.engines import open_engine
from framecast.runtime.engines.batched import WAIT, Shared
from framecast.runtime.fleet_report import FleetReport, fleet_report
from framecast.runtime.lane import REFRESH, Camera, Common, Lane, close_after
from framecast.runtime.lookahead import MAX_AHEAD
from framecast.runtime.member import Member
from framecast.runtime.shipped import DEFAULT_MODEL, find, read_by
from framecast.runtime.watchdog import STEP_LIMIT, Watchdog

if TYPE_CHECKING:
    from framecast.runtime.sinks.web import WebSink

Given: TypeAlias = Union[Camera, str, "os.PathLike[str]", Source]
MOST = 256  # cameras of a run
LEAVING = 2.0  # seconds to wait for cameras that end, all together: meanwhile nobody observes the others
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # fits into a file's name, an address and a metric's label

_log = logging.getLogger(__name__)


def run_cameras(
    cameras: Iterable[Given],
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    engine: str = "auto",
    threads: int = 0,
    batch_wait: float = WAIT,
    display_delay: float = 0.0,
    max_ahead: float = MAX_AHEAD,
    refresh: float | None = None,
    frames: int | None = None,
    realtime: bool = False,
    every_frame: bool = False,
    loop: bool = False,
    timeout: float = 15.0,
    stall: float = 2.5,
    reconnect: bool = True,
    segment: float | None = None,
    keep: float | None = None,
    serve: str | None = None,
    token: str | None = None,
    hosts: Iterable[str] = (),
    observe: Callable[[FleetReport], object] = lambda report: None,
    update: Callable[[], Iterable[Given] | None] = lambda: None,
    announce: Callable[[str], object] = to_log,
    stop: threading.Event | None = None,
    step_limit: float = STEP_LIMIT,
    stuck: Callable[[str], object] = _log.error,
    clock: Clock = SYSTEM,
) -> FleetReport:
    """Predict several cameras live in one process, with the model's weights loaded once.

    Each camera has a state, a score, recordings and a thread of its own. One that cannot be opened, is lost for good or
    fails ends alone: ``announce`` gets its error, the report has it, and the others go on.

    Args:
        cameras: sources as for :func:`framecast.run`, or :class:`framecast.Camera` for a name and options of its own.
        model: as for :func:`framecast.run`, like all options that are not described here.
        engine: see there. One engine runs the steps of all cameras, unless it holds no weights.
        threads: see there.
        batch_wait: seconds that a frame may wait for those of other cameras, if a measurement at the start says that
            steps with several cameras' frames take less time. Never until the camera's next frame is due.
        display_delay: see there.
        max_ahead: see there.
        refresh: see there.
        frames: a camera ends after this many frames.
        realtime: see there.
        every_frame: see there.
        loop: see there.
        timeout: see there.
        stall: see there.
        reconnect: see there.
        segment: see there.
        keep: bytes for each camera's recording.
        serve: see there. The page shows all cameras, and one of them large.
        token: see there.
        hosts: see there.
        observe: called with the report about four times a second, and at the end.
        update: called after each ``observe``, while any camera runs. It returns the cameras to go on with, or None for
            no change. New ones begin; those that are missing end; those that differ or have ended begin anew. If the
            list is wrong, ``announce`` gets the reason, and nothing changes.
        announce: called with each line that the user should read, which begins with its camera's name.
        stop: see there.
        step_limit: see there.
        stuck: called with the reason, in another thread, if a step of the shared engine does not return. If each camera
            has its own engine, only that camera fails.
        clock: see there.

    Returns:
        The final report: ``cameras`` by name, and ``total``, whose ``failed`` has the errors.

    Raises:
        OptionError: an argument is out of range, or two cameras have the same name.
        ArtifactError: there is no such model, or the file is not an artifact.
        EngineError: the engine is not available on this machine, or failed before the cameras were opened.
        SinkError: a recording cannot be written, or the page cannot be served.
    """
    if not 0 <= batch_wait <= 1:
        raise OptionError(f"batch_wait must be 0 to 1 s, not {batch_wait:g}")
    common = Common(
        displays=serve is not None,
        display_delay=display_delay,
        max_ahead=max_ahead,
        refresh=refresh,
        frames=frames,
        realtime=realtime,
        every_frame=every_frame,
        loop=loop,
        timeout=timeout,
        stall=stall,
        reconnect=reconnect,
        segment=segment,
        keep=keep,
        step_limit=step_limit,
        clock=clock,
    )
    with ExitStack() as stack:
        lanes = [Member(camera, common, announce) for camera in named(cameras)]
        for lane in lanes:
            stack.enter_context(lane)
            lane.check()
        common.check()
        _check_files(lanes)
        artifact = find(read_by(engine, model))
        engines = Shared(lambda: open_engine(artifact, engine, threads=threads), wait=batch_wait, clock=clock)
        fleet = _Fleet(stack, lanes, engines, common)
        if line := caution(engines.engine.manifest):
            announce(Notice("warning", f"warning: {line}", logging.WARNING))
        if serve is not None:
            fleet.serve(serve, token, hosts, announce)
        return fleet.run(observe, update, announce, stop or threading.Event(), stuck)


def named(cameras: Iterable[Given]) -> list[Camera]:
    """Every camera with a name: its own, or ``camera1``, ``camera2``, … by its place.

    Raises:
        OptionError: it is no list, there is none, there are too many, a name has a wrong form, or two are the same.
    """
    if isinstance(cameras, str):  # an iterable of its letters
        raise OptionError(f"give a list of cameras, such as [{redact(cameras)!r}]")
    given = [camera if isinstance(camera, Camera) else Camera(camera) for camera in cameras]
    found = [camera if camera.name else replace(camera, name=f"camera{n}") for n, camera in enumerate(given, 1)]
    if not 1 <= len(found) <= MOST:
        raise OptionError(f"a run takes 1 to {MOST} cameras, not {len(found)}")
    names: set[str] = set()
    for camera in found:
        check_name(camera.name)
        if camera.name.lower() in names:  # a file system may not tell "Door" from "door"
            raise OptionError(f"two cameras are named {camera.name!r}: give each its own name")
        names.add(camera.name.lower())
    return found


def check_name(name: str) -> None:
    """Check a camera's name.

    Raises:
        OptionError: it has a character that a file's name or an address cannot carry.
    """
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"cannot name a camera {name[:80]!r}: use up to 64 letters, digits and . _ -, beginning with a letter or "
            "digit"
        )


def _check_files(lanes: Sequence[Lane]) -> None:
    writers: dict[str, str] = {}
    for lane in lanes:
        for place in lane.places:
            other = writers.setdefault(os.path.realpath(place), lane.name)
            if other != lane.name:
                raise OptionError(f"{other} and {lane.name} would both record {place}: give each its own file")


class _Fleet:
    def __init__(self, stack: ExitStack, lanes: list[Member], engines: Shared, common: Common) -> None:
        self._stack, self._engines, self._common, self._clock = stack, engines, common, common.clock
        self._lanes = {lane.name: lane for lane in lanes}  # replaced as a whole: other threads read it
        self._changed = self._clock.condition()
        self._wanted: Mapping[str, Camera] = {}  # by the newest change
        self._late: dict[str, Member] = {}  # halted by it, but not ended yet
        self._page: WebSink | None = None
        close_after(stack, self._close_engines)
        for lane in lanes:
            lane.engine = engines.seat()

    def report(self) -> FleetReport:
        lanes = self._lanes
        failed = {name: lane.reason for name, lane in lanes.items() if lane.failure is not None}
        refused = [name for name in failed if isinstance(lanes[name].failure, SourceRefusedError)]
        reports = {name: lane.report() for name, lane in lanes.items()}
        return fleet_report(reports, failed, refused, self._engines)

    def serve(self, address: str, token: str | None, hosts: Iterable[str], announce: Callable[[str], object]) -> None:
        from framecast.runtime.sinks.web import WebSink

        cameras = {name: partial(self._figures, name) for name in self._lanes}
        self._page = WebSink(address, snapshot=lambda: dict(self.report()), cameras=cameras, token=token, hosts=hosts)
        close_after(self._stack, self._page.close)
        announce(self._page.notice(told=token is None))

    def run(
        self,
        observe: Callable[[FleetReport], object],
        update: Callable[[], Iterable[Given] | None],
        announce: Callable[[str], object],
        stop: threading.Event,
        stuck: Callable[[str], object],
    ) -> FleetReport:
        def give_up(reason: str) -> None:
            for lane in self._lanes.values():
                self._abandon(lane, reason)
            observe(self.report())
            stuck(reason)

        limit, self._shared = self._common.step_limit, None
        if self._engines.batcher is not None:
            self._shared = Watchdog(self._engines.engine, give_up, stopping=stop.is_set, limit=limit)
        with self._shared if self._shared is not None and self._clock is SYSTEM else nullcontext():
            self._engines.measure(len(self._lanes))
            try:
                for lane in self._lanes.values():
                    self._start(lane)
                while self._late or not self._done():
                    observe(self.report())
                    with self._changed:
                        if not self._done():
                            self._clock.wait(self._changed, self._clock.now() + REFRESH)
                    if stop.is_set():
                        self._halt(self._lanes.values())
                        self._late = {}
                    elif (cameras := update()) is not None:
                        self._change(cameras, announce)
                    elif ended := {name: lane for name, lane in self._late.items() if lane.done}:
                        self._replace(ended, self._wanted, announce)
            finally:
                self._halt(self._lanes.values())
                for lane in self._lanes.values():
                    if lane.thread is not None and not lane.given_up:
                        self._clock.join(lane.thread)
        final = self.report()
        observe(final)
        return final

    def _done(self) -> bool:
        return all(lane.done for lane in self._lanes.values())

    def _halt(self, lanes: Iterable[Member]) -> None:
        for lane in lanes:
            lane.halt.set()

    def _change(self, cameras: Iterable[Given], announce: Callable[[str], object]) -> None:
        """Go on with these cameras: end those that are gone, begin new ones, and those anew that differ or ended."""
        try:
            wanted = {camera.name: camera for camera in named(cameras)}
        except OptionError as error:
            announce(Notice("cameras_kept", f"keeping the cameras as they are: {error}", logging.WARNING))
            return
        leaving = {
            name: lane
            for name, lane in self._lanes.items()
            if lane.done or lane.halt.is_set() or lane.camera != wanted.get(name)
        }
        self._halt(leaving.values())
        self._replace(leaving, wanted, announce)

    def _replace(
        self, leaving: Mapping[str, Member], wanted: Mapping[str, Camera], announce: Callable[[str], object]
    ) -> None:
        """Take away cameras that were halted, and begin those that are wanted. One that has not ended yet is late."""
        latest = self._clock.now() + LEAVING
        kept = dict(self._lanes)
        for name, lane in leaving.items():
            if lane.thread is not None and not lane.given_up:
                self._clock.join(lane.thread, latest)
            if lane.given_up or not lane.done:
                rest = "it stays as it is" if lane.given_up else "its change waits for that"
                lane.announce(Notice("warning", f"warning: it has not ended yet: {rest}", logging.WARNING))
                continue
            del kept[name]
            if name not in wanted:
                lane.announce(Notice("camera_removed", "removed"))
        self._wanted = wanted
        self._late = {name: lane for name, lane in kept.items() if lane.halt.is_set() and not lane.given_up}
        begun = [Member(camera, self._common, announce) for name, camera in wanted.items() if name not in kept]
        for lane in begun:
            self._seat(lane)
            if self._page is not None:
                self._page.add(lane.name, partial(self._figures, lane.name))
        if self._page is not None:
            self._page.keep({*kept, *wanted})
        every = kept | {lane.name: lane for lane in begun}
        self._lanes = {name: every[name] for name in dict.fromkeys([*wanted, *kept])}
        for lane in begun:
            lane.announce(Notice("camera_added", f"added {lane.source_name}"))
            try:
                if lane.unseated is not None:
                    raise lane.unseated
                lane.check()
                _check_files([*(one for one in self._lanes.values() if one.thread and not one.done), lane])
            except FramecastError as error:
                lane.fail(error)
                lane.close()
                if lane.unseated is None:
                    lane.engine.close()
                self._end(lane)
            else:
                self._start(lane)

    def _seat(self, lane: Member) -> None:
        """Give a camera its engine. If there is none, such as of a server that is down, only this camera fails."""
        try:
            lane.engine = self._engines.seat()
        except FramecastError as error:
            lane.engine, lane.unseated = self._engines.engine, error  # its report names the engine

    def _figures(self, name: str) -> dict[str, object]:
        lane = self._lanes.get(name)
        return {} if lane is None else dict(lane.report())

    def _close_engines(self) -> None:
        # A step that does not return may still use its engine.
        if not any(lane.given_up for lane in self._lanes.values()):
            self._engines.close()

    def _start(self, lane: Member) -> None:
        lane.thread = threading.Thread(target=self._work, args=(lane,), name=f"framecast-{lane.name}", daemon=True)
        lane.thread.start()

    def _work(self, lane: Member) -> None:
        """A camera's thread."""

        def give_up(reason: str) -> None:
            self._abandon(lane, reason)

        show = None if self._page is None else self._page.feed(lane.name).show
        shared = self._shared
        try:
            with lane:
                lane.open(lane.engine)
                limit = self._common.step_limit
                watchdog = shared or Watchdog(lane.engine, give_up, stopping=lane.halt.is_set, limit=limit)
                with watchdog if shared is None and self._clock is SYSTEM else nullcontext():
                    lane.run(lambda *_: [show] if show else [], stop=lane.halt, check=watchdog.check)
        except FramecastError as error:
            lane.fail(error)
        except Exception as error:  # noqa: BLE001 (the other cameras go on)
            _log.exception("%s: unexpected", lane.name)
            lane.fail(error)
        finally:
            self._end(lane)

    def _abandon(self, lane: Member, reason: str) -> None:
        """End a camera whose step does not return."""
        if lane.done:
            return
        lane.given_up = reason
        lane.fail(EngineError(reason))
        if hasattr(lane, "pipeline"):
            lane.give_up(reason)
        self._end(lane)

    def _end(self, lane: Member) -> None:
        with self._changed:
            lane.done = True
            self._changed.notify_all()
