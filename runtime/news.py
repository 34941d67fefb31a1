"""What a run tells: its camera or an output was lost, or is back; a prediction has come; frames are missing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from framecast.camera import Source
from framecast.clock import Clock
from framecast.notice import Notice, to_log
from framecast.runtime.engines import Engine
from framecast.runtime.sinks.sink import Output, Result

SELDOM = 60.0  # seconds between two notices of concealment: a poor link may lose frames all the time


class News:
    """Tells each thing once. What a person should read goes to ``announce``, all else to the log.

    Args:
        source: the run's.
        announce: called with each line.
        clock: measures the outages.
        outputs: what tells about each output, as in the report.
        engine: the engine, which may be a model server.
        log: called with all else.
    """

    def __init__(
        self,
        source: Source,
        announce: Callable[[str], object],
        clock: Clock,
        outputs: Iterable[Callable[[], Output | None]] = (),
        engine: Engine | None = None,
        log: Callable[[str], object] = to_log,
    ) -> None:
        self._source, self._announce, self._clock = source, announce, clock
        self._log = log
        self._told: set[str] = set()
        self._lost: float | None = None  # since when
        self._back = 0  # reconnections so far
        self._outputs, self._engine = outputs, engine
        self._parts_lost: dict[str, float] = {}  # outputs and the engine, since when
        self._outputs_lost: dict[str, int] = {}  # how often so far
        self._ready = False
        self._begun = clock.now()
        self._concealed, self._concealing = 0, -SELDOM

    def see(self, result: Result) -> None:
        """Take note of a result."""
        if result.concealed:
            self._concealed += 1
            if (now := self._clock.now()) - self._concealing >= SELDOM:
                self._concealing = now
                line = "a frame is late or lost: showing predictions in its place"
                self._log(Notice("concealing", line, logging.WARNING, frames=self._concealed))
        elif not (self._ready or result.between or self._source.trouble):
            self.tell()  # first that the camera is back
            self._ready = True
            figures = {"epoch": result.frame.epoch, "index": result.frame.index}
            seconds, late = round(self._clock.now() - self._begun, 3), round(result.stamps.latency, 6)
            line = f"predicting {self._source.name}"
            self._log(Notice("ready", line, **figures, seconds=seconds, latency_seconds=late))

    def tell(self) -> None:
        """Tell what is new. Call it a few times a second."""
        for written in self._outputs:
            if (output := written()) is not None:
                name, lost = output["asked"], output["lost"]
                if (
                    lost > self._outputs_lost.get(name, 0)
                    and output["trouble"] is None
                    and name not in self._parts_lost
                ):
                    self._tell("output", name, f"lost {name}")  # it is back already
                self._outputs_lost[name] = lost
                self._tell("output", name, output["trouble"])
        notes: dict[str, dict[str, object]] = {note: {"source": self._source.name} for note in self._source.notes}
        if self._engine is not None:
            self._tell("server", self._engine.name, self._engine.trouble)
            notes |= {note: {"engine": self._engine.name} for note in self._engine.notes}
        for note, of in notes.items():
            if note not in self._told:
                self._told.add(note)
                self._announce(Notice("note", f"note: {note}", logging.INFO, **of))
        name, trouble = self._source.name, self._source.trouble
        back = self._source.faults.get("reconnects", 0)
        if trouble is not None and self._lost is None:
            self._lost = self._begun = self._clock.now()
            self._ready = False
            self._announce(
                Notice("camera_lost", f"{trouble}: trying again", logging.WARNING, source=name, reconnects=back)
            )
        elif trouble is None and (self._lost is not None or back > self._back):
            now = self._clock.now()
            outage = 0.0 if self._lost is None else now - self._lost  # 0: shorter than the time between two calls
            line = f"{name} is back after {outage:.1f} s"
            self._announce(Notice("camera_back", line, source=name, outage_seconds=round(outage, 3), reconnects=back))
            self._lost, self._back = None, back

    def _tell(self, kind: str, name: str, trouble: str | None) -> None:
        """Tell that an output or a server was lost or is back."""
        of: dict[str, object] = {kind: name}
        if trouble is not None and name not in self._parts_lost:
            self._parts_lost[name] = self._clock.now()
            self._announce(Notice(f"{kind}_lost", f"{trouble}: trying again", logging.WARNING, **of))
        elif trouble is None and name in self._parts_lost:
            outage = self._clock.now() - self._parts_lost.pop(name)
            line = f"{name} is back after {outage:.1f} s"
            self._announce(Notice(f"{kind}_back", line, logging.INFO, **of, outage_seconds=round(outage, 3)))
