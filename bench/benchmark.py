"""``framecast.benchmark`` measures the cost of models in a live loop. ``framecast bench`` prints its result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from framecast.bench import results as of
from framecast.bench.cold_start import cold_start
from framecast.bench.loop import check as check_schedule
from framecast.bench.loop import read_frames
from framecast.bench.machine import Machine, busy, describe, load
from framecast.bench.opened import Models, Opened, open_all
from framecast.bench.power import Sampler
from framecast.bench.quality import Quality, measured, stated
from framecast.bench.single_stream import SingleStream, single_stream
from framecast.bench.steps import Case, Series, live_step, measure, on_device
from framecast.bench.summary import PERCENTILES, Ratio
from framecast.camera import DEFAULT_FPS, Image, open_source
from framecast.errors import OptionError
from framecast.redact import redact
from framecast.runtime.engines import Engine, open_engine
from framecast.runtime.lookahead import LONGEST
from framecast.tables import Table

if TYPE_CHECKING:  # it needs matplotlib
    from framecast.bench.plots import Trace

DEMO = "demo"  # the clip that ships with the package
FRAMES = 100  # frames to read from the source; they stay in memory
ITERATIONS = 10
Advance = Callable[[float, str], None]  # receives the progress, 0 to 1, and the current activity


@dataclass(frozen=True)
class Settings:
    """Settings of a measurement; see :func:`benchmark`. Durations are in seconds."""

    source: str = DEMO
    ahead: float | None = None
    stream: bool = False
    fps: float | None = None
    cameras: bool = False
    single_stream: bool = False
    warmup: float = 0.2
    duration: float = 3.0
    iterations: int | None = None
    percentiles: Sequence[float] = PERCENTILES
    cold_starts: int = 3

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 1:
            raise OptionError(f"iterations must be at least 1, not {self.iterations}")
        if self.ahead is not None and not 0 < self.ahead <= LONGEST:
            raise OptionError(f"ahead must be above 0 and at most {LONGEST:g} s, not {self.ahead:g} s")
        for name in ("warmup", "duration", "cold_starts"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise OptionError(f"{name.replace('_', '-')} must be 0 or more, not {value:g}")
        if not self.percentiles or not all(0 < p < 100 for p in self.percentiles):
            given = ",".join(f"{p:g}" for p in self.percentiles)
            raise OptionError(f"percentiles {given}: give numbers between 0 and 100, such as 50,90,95,99")
        if not self.stream and (self.fps is not None or self.cameras):
            raise OptionError("fps and cameras need a stream: add --stream (in Python, stream=True)")
        if self.stream and self.single_stream:
            raise OptionError("cannot combine stream and single-stream: choose one")
        if self.stream:
            check_schedule(self.fps, self.duration)


@dataclass(frozen=True)
class Benchmark:
    """The result of a benchmark.

    Attributes:
        title: the report's heading.
        machine: the machine that ran it.
        tables: the results as tables, the most important first.
        warnings: reasons to doubt the figures, one a line.
        not_run: with ``all``, the cases that cannot run here, and why, one a line.
        csv: one row per sample.
        traces: returns the samples for a report's plots. It is a function because it needs matplotlib.
    """

    title: str
    machine: Machine
    tables: Sequence[Table]
    warnings: Sequence[str]
    not_run: Sequence[str]
    csv: str
    traces: Callable[[], list[Trace]]
    _figures: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the machine, every setting and every sample, for JSON."""
        return {
            "machine": self.machine,
            "not_run": list(self.not_run),
            "warnings": list(self.warnings),
            **self._figures,
        }


def benchmark(
    models: Models,
    *,
    engines: str | Sequence[str] = ("auto",),
    source: str = Settings.source,
    ahead: float | None = None,
    stream: bool = False,
    fps: float | None = None,
    cameras: bool = False,
    single_stream: bool = False,
    warmup: float = Settings.warmup,
    duration: float = Settings.duration,
    iterations: int | None = None,
    percentiles: Sequence[float] = Settings.percentiles,
    cold_starts: int = Settings.cold_starts,
    threads: int = 0,
    advance: Advance = lambda share, what: None,
) -> Benchmark:
    """Measure a live step and its picture; with ``stream``, measure a live stream from end to end.

        result = framecast.benchmark(["edge", "stip-edge"])
        print(result.tables[0])
        result.to_dict()["results"][0]["summary"]["median"]     # ms

    Several cases alternate, so that other load on the machine affects all of them alike.

    Args:
        models: one or more shipped names or artifact paths, or ``all`` for every shipped model; or a mapping from names
            to models, if the tables should show other names.
        engines: the engines to measure (:func:`framecast.runtime.engines.open_engine`); ``all`` for every one that
            works here.
        source: a clip that supplies the frames; with ``stream`` it may be a camera. The tables show the quality beside
            the cost. It is measured on this clip; with the default clip and lookahead, the artifact's own value is
            shown if it states one.
        ahead: how many seconds ahead the picture is (default: one frame). If set, quality is measured on the source.
        stream: measure from the moment a frame is due until the sink receives its prediction.
        fps: with ``stream``, the frame rate of a clip (default: its own).
        cameras: with ``stream``, also find how many such cameras this machine can handle.
        single_stream: run MLPerf's single-stream scenario instead of alternating.
        warmup: seconds that each case runs before the measurement starts.
        duration: minimum seconds of samples per case.
        iterations: minimum samples per case (default: 10; in a single stream, as many as its estimate needs).
        percentiles: the percentiles to report, each between 0 and 100.
        cold_starts: fresh processes per case; 0 for none.
        threads: CPU threads of a step; 0 for one per core.
        advance: called with the progress, 0 to 1, and the current activity.

    Returns:
        The tables, the warnings, and every sample.

    Raises:
        OptionError: an argument is out of range, or two arguments exclude each other.
        ArtifactError: a model does not exist.
        SourceError: the source cannot be read, or has no frame.
        EngineError: an engine is not available here, or failed; or a fresh process could not predict.
    """
    settings = Settings(
        source,
        ahead,
        stream,
        fps,
        cameras,
        single_stream,
        warmup,
        duration,
        iterations,
        tuple(percentiles),
        cold_starts,
    )
    before = load()
    with ExitStack() as stack:
        opened, not_run = open_all(stack, models, [engines] if isinstance(engines, str) else engines, threads)
        machine = describe({one.engine.name: one.engine.version for one in opened})
        machine["load"] = before  # measured before, because exporting and opening add to the load
        result = _stream(opened, settings, advance) if stream else _steps(opened, settings, advance)
    warnings = [*filter(None, [busy(machine)]), *result.warnings]
    return Benchmark(result.title, machine, result.tables, warnings, not_run, result.csv, result.traces, result.figures)


@dataclass(frozen=True)
class _Outcome:
    """The result of one way of measuring; see :class:`Benchmark`."""

    title: str
    tables: Sequence[Table]
    figures: dict[str, object]
    csv: str
    traces: Callable[[], list[Trace]]
    warnings: Sequence[str] = ()


def _steps(opened: Sequence[Opened], settings: Settings, advance: Advance) -> _Outcome:
    """Measure steps: the cases alternate, or each runs as a single stream."""
    images, interval = _frames(settings.source)
    cases = [live_step(one.name, one.engine, images, interval=interval, ahead=settings.ahead) for one in opened]
    with Sampler() as sampler:
        series, streams = _taken(cases, settings, advance)
    power = sampler.summary()
    ratios = [None] * len(series) if settings.single_stream else of.ratios(series)
    found = [
        _result(one, images, interval, samples, settings, ratio, stream)
        for one, samples, ratio, stream in zip(opened, series, ratios, streams, strict=True)
    ]

    def traces() -> list[Trace]:
        from framecast.bench.plots import Trace

        return [Trace(one.name, one.starts, one.milliseconds, one.parts) for one in series]

    figures: dict[str, object] = {
        "settings": dataclasses.asdict(settings),
        "results": of.to_dict(found),
        "power": {name: dataclasses.asdict(value) for name, value in power.items()},
    }
    title = f"framecast bench: {', '.join(one.name for one in opened)}"
    return _Outcome(
        title, of.tables(found, power, settings.ahead), figures, of.to_csv(series), traces, of.warnings(found)
    )


def _taken(
    cases: Sequence[Case], settings: Settings, advance: Advance
) -> tuple[list[Series], Sequence[SingleStream | None]]:
    """Return the samples of each case, and MLPerf's evaluation of them if the settings ask for it."""
    if not settings.single_stream:
        count = ITERATIONS if settings.iterations is None else settings.iterations
        series = measure(
            cases,
            warmup=settings.warmup,
            duration=settings.duration,
            iterations=count,
            advance=lambda share: advance(share, "measuring"),
        )
        return series, [None] * len(series)
    streams = []
    for done, case in enumerate(cases):

        def so_far(share: float, done: int = done) -> None:
            advance((done + share) / len(cases), "measuring")

        streams.append(
            single_stream(
                case,
                warmup=settings.warmup,
                min_duration=settings.duration,
                min_queries=settings.iterations,
                advance=so_far,
            )
        )
    return [stream.series for stream in streams], streams


def _result(
    one: Opened,
    images: Sequence[Image],
    interval: float,
    series: Series,
    settings: Settings,
    ratio: Ratio | None,
    stream: SingleStream | None,
) -> of.Result:
    summary, parts = of.summaries(series, settings.percentiles)
    cold = None
    if settings.cold_starts:
        height, width = images[0].shape[:2]
        cold = cold_start(one.path, one.asked, one.threads, (width, height), settings.cold_starts)
    return of.Result(
        name=one.name,
        engine=one.asked,
        device=one.engine.device,
        trained=one.engine.manifest.trained,
        series=series,
        summary=summary,
        parts=parts,
        ratio=ratio,
        device_ms=on_device(one.engine, images),
        stream=stream,
        cold=cold,
        quality=_quality(one.engine, images, interval, settings),
    )


def _quality(engine: Engine, images: Sequence[Image], interval: float, settings: Settings) -> Quality | None:
    """Return the quality; None for random weights, and for a model without pictures."""
    manifest = engine.manifest
    if not manifest.trained or not manifest.is_picture:
        return None
    known = stated(manifest) if settings.source == DEMO and settings.ahead is None else None
    return known or measured(engine, images, redact(settings.source), interval, settings.ahead or interval)


def _stream(opened: Sequence[Opened], settings: Settings, advance: Advance) -> _Outcome:
    """Measure predictors end to end, one after the other, and find how many cameras each can handle."""
    from framecast.bench.cameras import carry
    from framecast.bench.stream import bench_stream

    schedule: dict[str, Any] = {"fps": settings.fps, "seconds": settings.duration, "ahead": settings.ahead}
    found, tables, figures = {}, [], dict[str, object]()
    for done, one in enumerate(opened):
        advance(done / len(opened), f"streaming to {one.name}")
        result = bench_stream(one.engine, settings.source, **schedule, percentiles=settings.percentiles)
        found[one.name] = result
        tables.append(Table(f"{one.title}, live", ("", ""), result.rows()))
        record = result.to_dict()
        if settings.cameras:

            def another(one: Opened = one) -> Engine:
                return open_engine(one.path, one.asked, threads=one.threads)

            carried = carry(another, settings.source, **schedule)
            tables.append(Table(f"{one.title}, cameras", ("", ""), carried.rows()))
            record["cameras"] = carried.to_dict()
        figures[one.name] = record

    def traces() -> list[Trace]:
        from framecast.bench.plots import Trace

        drawn = []
        for name, result in found.items():
            columns, stages = result.loop.samples, result.loop.parts
            shown = [
                due or 0.0 for due, raw in zip(columns["due_s"], columns["raw_ms"], strict=True) if raw is not None
            ]
            age = [sum(values) for values in zip(*stages.values(), strict=True)]
            for kind in ("corrected", "raw"):
                taken = [(t, v) for t, v in zip(columns["due_s"], columns[f"{kind}_ms"], strict=True) if v is not None]
                drawn.append(Trace(f"{name}, {kind}", [t or 0.0 for t, _ in taken], [v for _, v in taken]))
            drawn.append(Trace(f"{name}, age", shown, age, stages))
        return drawn

    names = ("due_s", "corrected_ms", "raw_ms")
    rows = [
        (name, *("" if value is None else f"{value:.6f}" for value in row))
        for name, result in found.items()
        for row in zip(*(result.loop.samples[column] for column in names), strict=True)
    ]
    title = f"framecast bench --stream: {', '.join(found)}"
    return _Outcome(title, tables, {"streams": figures}, of.csv_text(("case", *names), rows), traces)


def _frames(source: str) -> tuple[list[Image], float]:
    """Return a source's first frames, and the seconds between frames."""
    with open_source(source) as opened:
        return read_frames(opened, FRAMES, most=None), 1 / (opened.fps or DEFAULT_FPS)
