"""The pipeline: a thread captures a source's frames, a predictor takes them, and the caller iterates over results."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import replace
from types import TracebackType
from typing import cast

from framecast.camera import Source
from framecast.clock import SYSTEM, Clock
from framecast.errors import EngineError, OptionError
from framecast.runtime.capture import Capture, Grabbed
from framecast.runtime.conceal import Concealment
from framecast.runtime.events import Kind
from framecast.runtime.judge import Judge
from framecast.runtime.lookahead import LONGEST, Horizon, Lookahead
from framecast.runtime.predictor import Prediction, Predictor
from framecast.runtime.report import Report, report
from framecast.runtime.score import Scored
from framecast.runtime.sinks.sink import Output, Result
from framecast.runtime.telemetry import Stamps, Telemetry

_log = logging.getLogger(__name__)


class Pipeline:
    """Iterate to get one :class:`Result` per predicted frame. It ends with the source, or at ``stop()``.

    While the predictor is busy, only the newest frame of a camera or of a paced file waits; the others are dropped and
    counted. A file at full speed drops nothing. A break in the stream (a clip that restarts, a new frame size) resets
    the state.

    Args:
        source: the pipeline closes it at the end.
        predictor: its owner closes it.
        lookahead: how far ahead each result's prediction looks (default: one frame of the camera).
        frames: end after this many frames.
        realtime: play a file at its own frame rate instead of as fast as the predictor can.
        every: predict every frame of a paced file, however late.
        conceal: where a frame is late or lost, yield predictions in its place for up to so many seconds
            (:mod:`framecast.runtime.conceal`); None for none.
        refresh: results per second: between two frames, yield later moments of the newest one (default: none).
        rival: also score DIS flow now and then, in its own thread.
        clock: for stamps and waiting.

    Attributes:
        telemetry: the run's measurements. Any thread may take snapshots.
        outputs: where the pictures go, for the report; what owns the sinks fills it.

    Raises:
        OptionError: ``frames`` is below 1, the refresh rate or ``conceal`` is out of range, or ``lookahead.now`` or
            ``conceal`` is set for a file at full speed.
    """

    def __init__(
        self,
        source: Source,
        predictor: Predictor,
        *,
        lookahead: Lookahead | None = None,
        frames: int | None = None,
        realtime: bool = False,
        every: bool = False,
        refresh: float | None = None,
        rival: bool = True,
        conceal: float | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        check_frames(frames)
        check_refresh(refresh)
        self._paced = realtime and not source.live
        self._timed = realtime or source.live
        self.lookahead = lookahead or Lookahead()
        if self.lookahead.now and not self._timed:
            raise OptionError("cannot use now with a file at full speed: set realtime as well")
        if conceal is not None and not self._timed:
            raise OptionError("cannot conceal in a file at full speed, where no frame is late: set realtime as well")
        self.source = source
        self.predictor = predictor
        self.telemetry = Telemetry()
        self.outputs: list[Callable[[], Output | None]] = []
        self._horizon = Horizon(self.lookahead)
        self._frames = frames
        self._period = None if refresh is None or not self._timed else 1 / refresh
        self._concealment = Concealment(conceal)
        self._concealed = 0
        self._clock = clock
        self._judge = Judge(self.telemetry, clock if rival and self._timed else None)
        self._capture = Capture(source, paced=self._paced, every=every, clock=clock, wants=self._judge.wants)
        self._stopped = False
        self._resets = self._copied = 0
        self._before: Counter[Kind] = Counter()
        self._stream: tuple[int, tuple[int, ...], int] | None = None
        self._begun: float | None = None  # the first frame's time
        # The newest frame, its result, and when that or a later moment of the frame was handed over.
        self._newest: tuple[Grabbed, Result, float] | None = None

    def __iter__(self) -> Generator[Result, None, None]:
        """Capture and predict until the source ends.

        Raises:
            SourceError: the source was lost.
            EngineError: the engine failed.
        """
        # Without patience, results() never yields None.
        return cast("Generator[Result, None, None]", self.results())

    def results(self, patience: float | None = None) -> Generator[Result | None, None, None]:
        """Iterate, but also yield None whenever no frame has come for ``patience`` seconds, since a source may stall.

        Raises:
            OptionError: the pipeline has run before.
            SourceError: the source was lost.
            EngineError: the engine failed.
        """
        if self.started:
            raise OptionError("a pipeline runs once: create another one")
        self._resets, self._copied = self.predictor.resets, self.predictor.copied  # from earlier runs
        self._before = self.predictor.events.copy()
        self._capture.start()
        mailbox, ended = self._capture.mailbox, "interrupted"  # also if the caller abandons the iteration
        count = 0
        try:
            while True:
                item = mailbox.get(self._deadline(patience))
                if item is not None:
                    yield self._predict(item)
                    count += 1
                    if count == self._frames:
                        ended = "max frames"
                        return
                    self._judge.foresee(self.predictor, busy=self._capture.drops and mailbox.waiting)
                    self.predictor.precompute()  # here, while the run waits for the next frame anyway
                elif mailbox.ended:
                    break
                elif (between := self._between()) is not None:
                    yield between
                elif self._newest is not None and self._concealment.due <= self._clock.now():
                    yield self._conceal(*self._newest[:2])
                elif patience is not None:
                    self.telemetry.wake(self._clock.now(), mailbox.dropped)
                    yield None
            if self._capture.failure is not None and not self._stopped:
                raise self._capture.failure
            ended = "interrupted" if self._stopped else "end of source"
        except Exception as error:
            ended = f"error: {error}"
            raise
        finally:
            self.telemetry.end(ended, self.predictor.resets - self._resets)
            self._capture.close()
            self._judge.close()

    @property
    def started(self) -> bool:
        """Whether the iteration has started."""
        return self._capture.started

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """End the iteration soon, cleanly. May be called from a signal handler or any thread."""
        self._stopped = True
        self._capture.stop()

    def report(self) -> Report:
        """The figures so far. May be called from any thread."""
        engine = self.predictor.engine
        faults = Counter(self.source.faults) + self._capture.faults + Counter(concealed=self._concealed)
        faults.update(engine.faults)
        outputs = [output for written in self.outputs if (output := written()) is not None]
        return report(self.telemetry.snapshot(), self.source, faults, engine, self.lookahead, outputs)

    def _predict(self, item: Grabbed) -> Result:
        clock, predictor, frame = self._clock, self.predictor, item.frame
        taken = clock.now()
        if self._begun is None:
            self._begun = frame.time
        if (stream := (frame.epoch, frame.image.shape, predictor.engine.epoch)) != self._stream:
            self._stream = stream
            self.telemetry.begin_epoch()
            predictor.reset()
            self._concealment.restart()
        interval = item.interval or predictor.interval
        predictor.engine.due = math.inf if item.moment is None else item.grabbed + interval
        predictor.step(frame.image, frame.time, interval=item.interval)
        chosen = clock.now()
        ahead = self._ahead(item, chosen)
        prediction = predictor.at(frame.time + ahead)
        stepped = clock.now()
        due = self._score(item, prediction)
        handed = clock.now()
        stamps = Stamps(
            due=taken if item.due is None else item.due,
            grabbed=item.grabbed,
            taken=taken,
            stepped=stepped,
            handed=handed,
            step=predictor.times.step,
            picture_out=predictor.times.picture_out,
        )
        self.telemetry.record(
            stamps,
            interval=predictor.interval if item.interval or predictor.steps > 1 else None,
            resets=predictor.resets - self._resets,
            dropped=self._capture.mailbox.dropped,
            ahead=ahead,
            wanted=self._horizon.wanted,
            events=self._events(),
        )
        self._handed(item, ahead, chosen, handed)
        result = Result(
            frame=frame,
            input=predictor.input,
            prediction=prediction,
            stamps=stamps,
            due=due.image if due else None,
            late=due.last if due else None,
            psnr=due.psnr if due else None,
            psnr_copy=due.psnr_copy if due else None,
            repeated=predictor.event == "repeat",
            begun=self._begun,
        )
        self._newest = item, result, handed
        # A frame that comes early, by jitter, does not make the next one due earlier.
        self._concealment.begin(handed if item.moment is None else max(handed, item.moment), predictor.interval)
        return result

    def _events(self) -> dict[str, int]:
        counts, before = self.predictor.events, self._before
        known: tuple[tuple[str, Kind], ...] = (("repeats", "repeat"), ("cuts", "cut"), ("gaps", "gap"))
        found = {name: counts[kind] - before[kind] for name, kind in known}
        return found | {"copied": self.predictor.copied - self._copied}

    def _ahead(self, item: Grabbed, now: float) -> float:
        """Seconds from a frame's time to the moment that its picture shall show. ``now`` is the time of this choice."""
        return self._horizon.ahead(None if item.moment is None else now - item.moment, self.predictor.interval)

    def _handed(self, item: Grabbed, ahead: float, chosen: float, handed: float) -> None:
        """Record a hand-over."""
        if item.moment is not None and self.lookahead.now:
            self._horizon.took(handed - chosen)
            age = handed - item.moment
            arrival = 0.0 if item.due is None else item.due - item.moment
            self.telemetry.show(self._horizon.error(ahead, age), self._horizon.late(age), arrival)

    def _score(self, item: Grabbed, prediction: Prediction) -> Scored | None:
        """Score the predictions for this frame, and for the dropped frames before it."""
        predictor, judge = self.predictor, self._judge
        if predictor.steps == 1 and predictor.event != "repeat":  # the state is new, so earlier predictions are void
            judge.restart()
        for passed in self._capture.passed():
            if passed.frame.epoch == item.frame.epoch and passed.frame.image.shape == item.frame.image.shape:
                judge.passed(predictor.fit(passed.frame.image), passed.frame.time, predictor.interval)
        repeated = predictor.event == "repeat"
        due = judge.arrive(predictor.input, item.frame.time, predictor.interval, repeated=repeated)
        judge.made(prediction, predictor.input, item.frame.time, predictor.interval)
        return due

    def _conceal(self, item: Grabbed, newest: Result) -> Result:
        """A prediction in the place of a frame that has not come."""
        now = self._clock.now()
        elapsed, frame = self._concealment.next(now), item.frame
        self._concealed += 1
        self.telemetry.wake(now, self._capture.mailbox.dropped)
        # On a display with moments between frames, it must not step back behind the newest of them.
        result = self._later(item, newest, now, elapsed if self._period is None else now - newest.stamps.handed)
        shown = self._clock.now()
        self._newest = item, newest, shown
        if shown - now > self.predictor.interval and self.predictor.manifest.renders == "steps":
            self._concealment.finish()  # the next picture takes a step more, and a real frame would wait for it
        return replace(result, frame=replace(frame, time=frame.time + elapsed), between=False)

    def _later(self, item: Grabbed, newest: Result, now: float, elapsed: float) -> Result:
        """A later moment of the newest frame: ``elapsed`` seconds later, or what shows the present at ``now``."""
        ahead = self._ahead(item, now) if self.lookahead.now else newest.prediction.ahead + elapsed
        moment = item.frame.time + min(ahead, max(LONGEST, newest.prediction.ahead))
        concealed = self._concealment.active
        try:
            prediction = self.predictor.at(moment)
        except EngineError as error:
            if not concealed:
                raise
            _log.warning("cannot conceal: %s", error)
            self._concealment.finish()
            prediction = replace(newest.prediction, image=newest.input, time=moment)
        if concealed:
            prediction = replace(prediction, image=self._concealment.faded(prediction.image, newest.input, elapsed))
        return replace(
            newest,
            prediction=prediction,
            due=None,
            late=None,
            psnr=None,
            psnr_copy=None,
            between=True,
            concealed=concealed,
            last=concealed and self._concealment.over,
        )

    def _deadline(self, patience: float | None) -> float | None:
        """When to stop waiting for a frame; None to wait without limit."""
        moments = [] if patience is None else [self._clock.now() + patience]
        if self._newest is not None and math.isfinite(self._concealment.due):
            moments.append(self._concealment.due)
        if self._period is not None and self._newest is not None:
            moments.append(self._newest[2] + self._period)
        return min(moments, default=None)

    def _between(self) -> Result | None:
        """A later moment of the newest frame, for a display that is faster than the camera.

        None if no moment is due yet, or the frame is too old.
        """
        if self._period is None or self._newest is None:
            return None
        item, newest, handed = self._newest
        now = self._clock.now()
        elapsed = now - newest.stamps.handed
        if self._concealment.over if self._concealment.lasts else elapsed > self.lookahead.most:
            self._newest = None
            return None
        if now < handed + self._period:  # the same sum as in _deadline, so that rounding cannot make them differ
            return None
        result = self._later(item, newest, now, elapsed)
        shown = self._clock.now()
        if not result.concealed:
            self._handed(item, result.prediction.ahead, now, shown)
        self._newest = item, newest, shown
        return result


def check_frames(count: int | None) -> None:
    """Check a number of frames, if one is given.

    Raises:
        OptionError: it is out of range.
    """
    if count is not None and count < 1:
        raise OptionError(f"frames must be at least 1, not {count}")


def check_refresh(rate: float | None) -> None:
    """Check a refresh rate, in pictures per second, if one is given.

    Raises:
        OptionError: it is out of range.
    """
    if rate is not None and not 1 <= rate <= 1000:
        raise OptionError(f"the refresh rate must be 1 to 1000 a second, not {rate:g}")


class Stream:
    """An opened source and its model. Iterate to get one :class:`Prediction` per frame. Use it in a ``with``.

    Attributes:
        pipeline: the pipeline underneath; ``report()`` returns its figures.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._results = iter(pipeline)

    def __iter__(self) -> Generator[Prediction, None, None]:
        for result in self._results:
            yield result.prediction

    def report(self) -> Report:
        """The figures so far: see :class:`framecast.runtime.report.Report`."""
        return self.pipeline.report()

    def close(self) -> None:
        """Close the source and the model. May be called twice."""
        if not self.pipeline.started:
            self.pipeline.telemetry.end("interrupted")
        self._results.close()
        self.pipeline.source.close()
        self.pipeline.predictor.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
