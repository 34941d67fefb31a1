"""The pipeline: a source's frames, captured by a thread of their own, through a predictor, to whoever iterates."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Generator
from types import TracebackType

import numpy as np

from framecast.camera import Frame, Source
from framecast.errors import OptionError
from framecast.runtime.engines import Engine
from framecast.runtime.mailbox import Mailbox
from framecast.runtime.predictor import Prediction, Predictor
from framecast.runtime.report import HorizonPsnr, Psnr, Report, latency, versions
from framecast.runtime.score import Scorer
from framecast.runtime.sinks.sink import Event

LATENCIES = 20_000  # kept for the percentiles: 12 minutes at 27 fps; then the oldest half is let go


class Pipeline:
    """Iterate to get an :class:`Event` for every frame that is predicted; ends with the source, or at ``stop()``.

    A live source's frames that come while the predictor is busy are dropped, all but the newest, and counted; a file's
    frames all come. Whatever breaks the stream (a clip starting over, a new frame size) resets the state.

    Args:
        source: closed by the pipeline at the end.
        predictor: closed by its owner.
        horizon: how many steps ahead each event's prediction is.
        max_frames: end after so many frames.
        realtime: hand out a file's frames at the clip's own pace rather than as fast as they can be predicted.

    Raises:
        OptionError: the horizon or ``max_frames`` is below 1.
    """

    def __init__(
        self,
        source: Source,
        predictor: Predictor,
        *,
        horizon: int = 1,
        max_frames: int | None = None,
        realtime: bool = False,
    ) -> None:
        if horizon < 1:
            raise OptionError(f"the horizon must be at least 1, not {horizon}")
        if max_frames is not None and max_frames < 1:
            raise OptionError(f"max_frames must be at least 1, not {max_frames}")
        self.source = source
        self.predictor = predictor
        self.horizon = horizon
        self.ended: str | None = None
        self._max_frames = max_frames
        self._paced = realtime and not source.live
        self._mailbox: Mailbox[tuple[Frame, float]] = Mailbox(newest=source.live)
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._capture, name="framecast-capture", daemon=True)
        self._stopped = threading.Event()
        self._scorer = Scorer()
        self._frames = 0
        self._epochs = 0
        self._stream: tuple[int, tuple[int, ...]] | None = None
        self._begun: float | None = None
        self._latest: float | None = None
        self._milliseconds = array("d")  # numbers, not objects: a status line sums them up

    def __iter__(self) -> Generator[Event, None, None]:
        """Capture and predict until the source ends.

        Raises:
            SourceError: the source was lost.
            EngineError: the engine failed.
        """
        self._thread.start()
        try:
            while (item := self._mailbox.get()) is not None:
                yield self._predict(*item)
                if self._frames == self._max_frames:
                    self.ended = "max frames"
                    return
                self.predictor.precompute()  # the event has been handed over, and the next frame is not here yet
            if self._failure is not None:
                raise self._failure
            self.ended = "interrupted" if self._stopped.is_set() else "end of source"
        except Exception as error:
            self.ended = f"error: {error}"
            raise
        finally:
            self.ended = self.ended or "interrupted"  # the iteration was left
            self.stop()
            self.source.close()
            self._thread.join(timeout=10)

    @property
    def started(self) -> bool:
        """Whether the iteration has begun."""
        return self._thread.ident is not None

    def stop(self) -> None:
        """End the iteration soon, cleanly. May be called from a signal handler or any thread."""
        self._stopped.set()
        self._mailbox.close()

    def _capture(self) -> None:
        try:
            due = time.monotonic()
            while (frame := self.source.read()) is not None:
                if self._paced:
                    due = max(due, time.monotonic() - 1)  # after a long halt, do not race to catch up
                    if self._stopped.wait(max(0.0, due - time.monotonic())):
                        break
                    due += 1 / (self.source.fps or 25)
                if not self._mailbox.put((frame, time.monotonic())):
                    break
        except Exception as error:  # noqa: BLE001 (raised where it is iterated)
            self._failure = error
        finally:
            self._mailbox.close()

    def _predict(self, frame: Frame, arrived: float) -> Event:
        # When the frame was due: at its grab, at its place in a clip that is paced, or now.
        begun = frame.time if self.source.live else arrived if self._paced else time.monotonic()
        self._begun = self._begun or begun
        if (stream := (frame.epoch, frame.image.shape)) != self._stream:
            self._stream = stream
            self._epochs += 1
            self.predictor.reset()
        first = self.predictor.step(frame.image, frame.time)
        ahead = [first] if self.horizon == 1 else self.predictor.rollout(self.horizon)
        self._latest = time.monotonic()
        self._note(1e3 * (self._latest - begun))
        return self._score(frame, ahead)

    def _score(self, frame: Frame, ahead: list[Prediction]) -> Event:
        predictor = self.predictor
        if predictor.steps == 1:  # the state is new: what was predicted before is void
            self._scorer.restart()
        scored = {s.horizon: s for s in self._scorer.arrive(predictor.input, frame.time, predictor.interval)}
        if predictor.steps >= predictor.manifest.warmup:
            for p in ahead:
                self._scorer.expect(p.image, p.time, p.horizon, predictor.input)
        due = scored.get(self.horizon)
        return Event(
            frame=frame,
            input=predictor.input,
            prediction=ahead[-1],
            due=due.image if due else None,
            psnr=due.psnr if due else None,
            psnr_copy=due.psnr_copy if due else None,
        )

    def _note(self, milliseconds: float) -> None:
        self._frames += 1
        if len(self._milliseconds) >= LATENCIES:
            del self._milliseconds[: LATENCIES // 2]
        self._milliseconds.append(milliseconds)

    def report(self) -> Report:
        """The figures so far. May be called from any thread."""
        engine = self.predictor.engine
        seconds = (self._latest - self._begun) if self._latest and self._begun else 0.0
        at = {k: _quality(*self._scorer.mean(k)) for k in range(1, self.horizon + 1)}
        by_horizon: list[HorizonPsnr] = [{"k": k, **quality} for k, quality in at.items()]
        return {
            "source": self.source.name,
            "model": self.predictor.manifest.config,
            "weights": self.predictor.manifest.weights,
            "engine": engine.name,
            "precision": _precision(engine),
            "horizon": self.horizon,
            "ahead_ms": round(1e3 * self.horizon * self.predictor.interval, 1),
            "frames": self._frames,
            "dropped": self._mailbox.dropped,
            "epochs": self._epochs,
            "resets": self.predictor.resets,
            "fps": round(self._frames / seconds, 2) if seconds else None,
            "latency_ms": latency(np.array(self._milliseconds)),
            "psnr_db": at[self.horizon],
            "psnr_db_by_horizon": by_horizon,
            "ended": self.ended,
            "versions": versions(engine.name, engine.version),
        }


def _precision(engine: Engine) -> str:
    """An int8 artifact is that wherever it runs; what is float32 in an artifact may be opened for less."""
    of_artifact, opened = engine.manifest.precision, engine.precision or "fp32"
    return " and ".join(dict.fromkeys(p for p in (of_artifact, opened) if p != "fp32")) or "fp32"


def _quality(count: int, predicted: float | None, copied: float | None) -> Psnr:
    if predicted is None or copied is None:
        return {"prediction": None, "copy_last": None, "n": 0}
    return {"prediction": round(predicted, 3), "copy_last": round(copied, 3), "n": count}


class Stream:
    """An opened source and its model: iterate to get a :class:`Prediction` for every frame. Use it in a ``with``.

    Attributes:
        pipeline: what runs underneath; ``report()`` gives its figures.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._events = iter(pipeline)

    def __iter__(self) -> Generator[Prediction, None, None]:
        for event in self._events:
            yield event.prediction

    def report(self) -> Report:
        """The figures so far: see :class:`framecast.runtime.report.Report`."""
        return self.pipeline.report()

    def close(self) -> None:
        """Let go of the source and the model. May be called twice."""
        self._events.close()
        self.pipeline.source.close()
        self.pipeline.predictor.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
