"""The pipeline: a thread captures a source's frames, a predictor takes them, and the caller iterates over results."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import cast

from framecast.camera import Frame, Source
from framecast.clock import SYSTEM, Clock
from framecast.errors import OptionError
from framecast.runtime.capture import Capture
from framecast.runtime.predictor import Prediction, Predictor
from framecast.runtime.report import Report, report
from framecast.runtime.score import Scored, Scorer
from framecast.runtime.sinks.sink import Result
from framecast.runtime.telemetry import Stamps, Telemetry


class Pipeline:
    """Iterate to get one :class:`Result` per predicted frame. It ends with the source, or at ``stop()``.

    While the predictor is busy, only the newest frame of a live source waits; the others are dropped and counted. A
    file drops nothing. A break in the stream (a clip that restarts, a new frame size) resets the state.

    Args:
        source: the pipeline closes it at the end.
        predictor: its owner closes it.
        horizon: the lookahead of each result's prediction, in steps.
        frames: end after this many frames.
        realtime: play a file at its own frame rate instead of as fast as the predictor can.
        clock: for stamps and waiting.

    Attributes:
        telemetry: the run's measurements. Any thread may take snapshots.

    Raises:
        OptionError: the horizon or ``frames`` is below 1.
    """

    def __init__(
        self,
        source: Source,
        predictor: Predictor,
        *,
        horizon: int = 1,
        frames: int | None = None,
        realtime: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        if horizon < 1:
            raise OptionError(f"the horizon must be at least 1, not {horizon}")
        if frames is not None and frames < 1:
            raise OptionError(f"frames must be at least 1, not {frames}")
        self.source = source
        self.predictor = predictor
        self.horizon = horizon
        self.telemetry = Telemetry(predictor.interval)
        self._frames = frames
        self._clock = clock
        self._paced = realtime and not source.live
        self._capture = Capture(source, paced=self._paced, clock=clock)
        self._stopped = False
        self._resets = 0
        self._scorer = Scorer()
        self._stream: tuple[int, tuple[int, ...]] | None = None

    def __iter__(self) -> Generator[Result, None, None]:
        """Capture and predict until the source ends.

        Raises:
            SourceError: the source was lost.
            EngineError: the engine failed.
        """
        # Without patience it yields results only, never None.
        return cast("Generator[Result, None, None]", self.results())

    def results(self, patience: float | None = None) -> Generator[Result | None, None, None]:
        """Iterate, but also yield None whenever no frame has come for ``patience`` seconds: a source may stall.

        Raises:
            OptionError: the pipeline has run before.
            SourceError: the source was lost.
            EngineError: the engine failed.
        """
        if self.started:
            raise OptionError("a pipeline runs once: make another one")
        self._resets = self.predictor.resets  # another run's
        self._capture.start()
        mailbox, ended = self._capture.mailbox, "interrupted"  # also if the caller abandons the iteration
        count = 0
        try:
            while True:
                item = mailbox.get(None if patience is None else self._clock.now() + patience)
                if item is not None:
                    yield self._predict(*item)
                    count += 1
                    if count == self._frames:
                        ended = "max frames"
                        return
                    self.predictor.precompute()  # now: the result is delivered, and the next frame has not come yet
                elif mailbox.ended:
                    break
                else:
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

    @property
    def started(self) -> bool:
        """Whether the iteration has started."""
        return self._capture.started

    def stop(self) -> None:
        """End the iteration soon, cleanly. May be called from a signal handler or any thread."""
        self._stopped = True
        self._capture.stop()

    def report(self) -> Report:
        """The figures so far. May be called from any thread."""
        return report(self.telemetry.snapshot(), self.source.name, self.predictor.engine, self.horizon)

    def _predict(self, frame: Frame, grabbed: float) -> Result:
        clock, predictor = self._clock, self.predictor
        taken = clock.now()
        if (stream := (frame.epoch, frame.image.shape)) != self._stream:
            self._stream = stream
            self.telemetry.begin_epoch()
            predictor.reset()
        first = predictor.step(frame.image, frame.time)
        ahead = [first] if self.horizon == 1 else predictor.rollout(self.horizon)
        stepped = clock.now()
        due = self._score(frame, ahead)
        stamps = Stamps(
            due=frame.time if self.source.live else grabbed if self._paced else taken,
            grabbed=grabbed,
            taken=taken,
            stepped=stepped,
            handed=clock.now(),
            step=predictor.times.step,
            picture_out=predictor.times.picture_out,
        )
        self.telemetry.record(
            stamps,
            interval=predictor.interval,
            resets=predictor.resets - self._resets,
            dropped=self._capture.mailbox.dropped,
        )
        return Result(
            frame=frame,
            input=predictor.input,
            prediction=ahead[-1],
            stamps=stamps,
            due=due.image if due else None,
            late=due.last if due else None,
            psnr=due.psnr if due else None,
            psnr_copy=due.psnr_copy if due else None,
        )

    def _score(self, frame: Frame, ahead: list[Prediction]) -> Scored | None:
        """Score the predictions for this frame, and return the score at the horizon."""
        predictor = self.predictor
        if predictor.steps == 1:  # the state is new, so earlier predictions no longer count
            self._scorer.restart()
        scored = {s.horizon: s for s in self._scorer.arrive(predictor.input, frame.time, predictor.interval)}
        for s in scored.values():
            self.telemetry.score(s.horizon, s.psnr, s.psnr_copy)
        if predictor.steps >= predictor.manifest.warmup:
            for k, p in enumerate(ahead, start=1):
                self._scorer.expect(p.image, p.time, k, predictor.input)
        return scored.get(self.horizon)


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
