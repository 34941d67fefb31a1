"""Runs several cameras in one process: a lane each, in a thread of its own, and one engine for all.

An engine that holds no weights is opened once for each camera instead, so that no camera waits for another's step.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

from framecast.camera import DEFAULT_FPS, Frame, Source
from framecast.clock import SYSTEM, Clock
from framecast.errors import EngineError, FramecastError, OptionError
from framecast.notice import Notice, to_log
from framecast.redact import redact
from framecast.runtime.cpu import caution
from framecast.runtime.engines import Engine, open_engine
from framecast.runtime.engines.batched import WAIT, Shared
from framecast.runtime.fleet_report import FleetReport, fleet_report
from framecast.runtime.lane import REFRESH, Camera, Common, Lane, Show, close_after
from framecast.runtime.lookahead import MAX_AHEAD, Lookahead
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.report import Report, report
from framecast.runtime.shipped import DEFAULT_MODEL, find
from framecast.runtime.telemetry import Telemetry
from framecast.runtime.watchdog import STEP_LIMIT, Watchdog

MOST = 256  # cameras of a run
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # fits into a file's name, an address and a metric's label

_log = logging.getLogger(__name__)


def run_cameras(
    cameras: Iterable[Camera | str | os.PathLike[str] | Source],
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
            steps with several cameras' frames take less time. Never longer than the camera's interval.
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
    if not step_limit > 0:
        raise OptionError(f"step_limit must be above 0 s, not {step_limit:g}")
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
        clock=clock,
    )
    with ExitStack() as stack:
        lanes = [_Member(camera, common, announce) for camera in named(cameras)]
        for lane in lanes:
            stack.enter_context(lane)
            lane.check()
        common.check()
        _check_files(lanes)
        engines = Shared(lambda: open_engine(find(model), engine, threads=threads), wait=batch_wait, clock=clock)
        fleet = _Fleet(stack, lanes, engines, clock)
        if line := caution(engines.engine.manifest):
            announce(Notice("warning", f"warning: {line}", logging.WARNING))
        if serve is not None:
            fleet.serve(serve, token, hosts, announce)
        return fleet.run(observe, stop or threading.Event(), step_limit, stuck)


def named(cameras: Iterable[Camera | str | os.PathLike[str] | Source]) -> list[Camera]:
    """Every camera with a name: its own, or ``camera1``, ``camera2``, … by its place.

    Raises:
        OptionError: there is none, there are too many, a name has a wrong form, or two are the same.
    """
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
    writers: dict[Path, str] = {}
    for lane in lanes:
        for place in lane.places:
            other = writers.setdefault(place.absolute(), lane.name)
            if other != lane.name:
                raise OptionError(f"{other} and {lane.name} would both record {place}: give each its own file")


class _Unopened(Source):
    """Stands for a source that is not open yet, or could not be opened, in its camera's report."""

    live, fps = False, None

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self) -> Frame | None:
        return None

    def close(self) -> None:
        pass


class _Member(Lane):
    """A lane among others.

    Attributes:
        engine: its own, or its seat at the shared one.
        failure: the error that ended it.
        done: whether it has ended, or was given up.
        given_up: why a step of its own engine was given up; its thread may never return.
    """

    engine: Engine

    def __init__(self, camera: Camera, common: Common, announce: Callable[[str], object]) -> None:
        super().__init__(camera, common, announce)
        self.failure: Exception | None = None
        self.done = False
        self.given_up = ""
        self._telemetry = Telemetry(1 / DEFAULT_FPS)  # until there is a pipeline
        source = camera.source
        self._unopened = _Unopened(source.name if isinstance(source, Source) else redact(os.fspath(source)))

    def report(self) -> Report:
        """The camera's figures so far, also before it is open."""
        if hasattr(self, "pipeline"):
            return self.pipeline.report()
        return report(self._telemetry.snapshot(), self._unopened, {}, self.engine, Lookahead())

    def fail(self, error: Exception) -> None:
        """Note what has ended this camera, and say so, once."""
        if self.failure is None:
            self.failure = error
            (self.pipeline.telemetry if hasattr(self, "pipeline") else self._telemetry).end(f"error: {error}")
            self.announce(Notice("camera_failed", str(error), logging.ERROR, error=type(error).__name__))

    def __exit__(self, *failed: object) -> None:
        if not self.given_up:  # its step would keep the engine's lock
            self.close()


class _Fleet:
    def __init__(self, stack: ExitStack, lanes: list[_Member], engines: Shared, clock: Clock) -> None:
        self._stack, self._lanes, self._engines, self._clock = stack, lanes, engines, clock
        self._changed = clock.condition()
        self._shows: dict[str, Show] = {}
        close_after(stack, self._close_engines)
        for lane in lanes:
            lane.engine = engines.seat()

    def report(self) -> FleetReport:
        failed = {lane.name: str(lane.failure) for lane in self._lanes if lane.failure is not None}
        return fleet_report({lane.name: lane.report() for lane in self._lanes}, failed, self._engines)

    def serve(self, address: str, token: str | None, hosts: Iterable[str], announce: Callable[[str], object]) -> None:
        from framecast.runtime.sinks.web import WebSink

        page = WebSink(
            address,
            snapshot=lambda: dict(self.report()),
            cameras={lane.name: lambda lane=lane: dict(lane.report()) for lane in self._lanes},  # type: ignore[misc]
            token=token,
            hosts=hosts,
        )
        close_after(self._stack, page.close)
        self._shows = {lane.name: page.feed(lane.name).show for lane in self._lanes}
        announce(page.notice(told=token is None))

    def run(
        self,
        observe: Callable[[FleetReport], object],
        stop: threading.Event,
        step_limit: float,
        stuck: Callable[[str], object],
    ) -> FleetReport:
        def give_up(reason: str) -> None:
            for lane in self._lanes:
                self._abandon(lane, reason)
            observe(self.report())
            stuck(reason)

        halt = threading.Event()  # not the caller's: an error here ends the cameras, but is not the caller's wish
        shared = None
        if self._engines.batcher is not None:
            shared = Watchdog(self._engines.engine, give_up, stopping=stop.is_set, limit=step_limit)
        threads = {
            lane: threading.Thread(
                target=self._work,
                args=(lane, halt, step_limit, shared),
                name=f"framecast-{lane.name}",
                daemon=True,
            )
            for lane in self._lanes
        }
        with shared if shared is not None and self._clock is SYSTEM else nullcontext():
            self._engines.measure(len(self._lanes))
            try:
                for thread in threads.values():
                    thread.start()
                while not all(lane.done for lane in self._lanes):
                    observe(self.report())
                    with self._changed:
                        if not all(lane.done for lane in self._lanes):
                            self._clock.wait(self._changed, self._clock.now() + REFRESH)
                    if stop.is_set():
                        halt.set()
            finally:
                halt.set()
                for lane, thread in threads.items():
                    if thread.ident is not None and not lane.given_up:
                        self._clock.join(thread)
        final = self.report()
        observe(final)
        return final

    def _close_engines(self) -> None:
        if not any(lane.given_up for lane in self._lanes):  # a step that does not return may still use its engine
            self._engines.close()

    def _work(self, lane: _Member, halt: threading.Event, step_limit: float, shared: Watchdog | None) -> None:
        """A camera's thread."""

        def give_up(reason: str) -> None:
            self._abandon(lane, reason)

        try:
            with lane:
                lane.open(lane.engine)
                watchdog = shared or Watchdog(lane.engine, give_up, stopping=halt.is_set, limit=step_limit)
                with watchdog if shared is None and self._clock is SYSTEM else nullcontext():
                    lane.run(self._displays(lane), stop=halt, check=watchdog.check)
        except FramecastError as error:
            lane.fail(error)
        except Exception as error:  # noqa: BLE001 (the other cameras go on)
            _log.exception("%s: unexpected", lane.name)
            lane.fail(error)
        finally:
            self._end(lane)

    def _displays(self, lane: Lane) -> Callable[[ExitStack, Pipeline], list[Show]]:
        show = self._shows.get(lane.name)
        return lambda stack, pipeline: [] if show is None else [show]

    def _abandon(self, lane: _Member, reason: str) -> None:
        """End a camera whose step does not return."""
        if lane.done:
            return
        lane.given_up = reason
        lane.fail(EngineError(reason))
        if hasattr(lane, "pipeline"):
            lane.give_up(reason)
        self._end(lane)

    def _end(self, lane: _Member) -> None:
        with self._changed:
            lane.done = True
            self._changed.notify_all()
