"""``framecast bench``: opened models in; tables, warnings, figures and drawings out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from framecast.bench import results as of
from framecast.bench.cold_start import cold_start
from framecast.bench.loop import read_frames
from framecast.bench.power import Sampler
from framecast.bench.single_stream import SingleStream, single_stream
from framecast.bench.steps import Case, Series, live_step, measure, on_device
from framecast.bench.summary import PERCENTILES, Ratio
from framecast.camera import Image, open_source
from framecast.runtime.engines import Engine, open_engine
from framecast.tables import Table

if TYPE_CHECKING:  # it needs matplotlib
    from framecast.bench.plots import Trace

FRAMES = 100  # of the source, held in memory
ITERATIONS = 10
Advance = Callable[[float], None]


@dataclass(frozen=True)
class Opened:
    """A model in an engine.

    Attributes:
        name: to call it by.
        path: of what the engine opened.
        asked: for the engine, as it was named.
        threads: as it was opened with.
        engine: closed by its owner.
    """

    name: str
    path: Path
    asked: str
    threads: int
    engine: Engine


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        percentiles: to be given.
        warmup: seconds of each case before anything is measured.
        duration: seconds of samples of each at least.
        iterations: samples of each at least; as many as the way of measuring needs where it is None.
        source: a clip's frames.
        cold_starts: fresh processes of each; 0 leaves them out.
        single_stream: MLPerf's scenario in place of turns.
    """

    percentiles: Sequence[float] = PERCENTILES
    warmup: float = 0.2
    duration: float = 3.0
    iterations: int | None = None
    source: str = "demo"
    cold_starts: int = 3
    single_stream: bool = False


@dataclass(frozen=True)
class Said:
    """What is printed and written of a benchmark.

    Attributes:
        title: of the report.
        tables: the most important first.
        figures: for JSON.
        csv: a row a sample.
        traces: drawn in the report; made when they are asked for, as they need matplotlib.
        warnings: a line each.
    """

    title: str
    tables: Sequence[Table]
    figures: dict[str, object]
    csv: str
    traces: Callable[[], list[Trace]]
    warnings: Sequence[str] = field(default_factory=tuple)


def steps(opened: Sequence[Opened], settings: Settings, advance: Advance) -> Said:
    """Measure steps: in turns, or each as a single stream.

    Raises:
        OptionError: a setting is out of its range.
        SourceError: the source cannot be read, or has no frame.
        FrameError: an engine was built for frames of another size.
        EngineError: an engine failed, or a fresh process could not predict.
    """
    images = _frames(settings.source)
    cases = [live_step(one.name, one.engine, images) for one in opened]
    with Sampler() as sampler:
        series, streams = _taken(cases, settings, advance)
    power = sampler.summary()
    ratios = [None] * len(series) if settings.single_stream else of.ratios(series)
    found = [
        _result(one, images, samples, settings, ratio, stream)
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
    return Said(title, of.tables(found, power), figures, of.to_csv(series), traces, of.warnings(found))


def _taken(
    cases: Sequence[Case], settings: Settings, advance: Advance
) -> tuple[list[Series], Sequence[SingleStream | None]]:
    """The samples of each case, and MLPerf's view of them where that was asked for."""
    if not settings.single_stream:
        count = ITERATIONS if settings.iterations is None else settings.iterations
        series = measure(cases, warmup=settings.warmup, duration=settings.duration, iterations=count, advance=advance)
        return series, [None] * len(series)
    streams = []
    for done, case in enumerate(cases):

        def so_far(share: float, done: int = done) -> None:
            advance((done + share) / len(cases))

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
    )


def stream(
    opened: Sequence[Opened],
    source: str,
    *,
    fps: float | None,
    seconds: float,
    percentiles: Sequence[float],
    cameras: bool,
) -> Said:
    """Measure predictors end to end, one after the other; and how many cameras each carries.

    Raises:
        OptionError: a rate, a duration or a percentile is out of its range, or a model takes no pictures.
        SourceError: the source cannot be opened, or was lost.
        EngineError: an engine failed, or the model takes no pictures.
    """
    from framecast.bench.cameras import carry
    from framecast.bench.stream import bench_stream

    found, tables, figures = {}, [], dict[str, object]()
    for one in opened:
        result = bench_stream(one.engine, source, fps=fps, seconds=seconds, percentiles=percentiles)
        found[one.name] = result
        tables.append(Table(f"{one.name}, live", ("", ""), result.rows()))
        told = result.to_dict()
        if cameras:

            def another(one: Opened = one) -> Engine:
                return open_engine(one.path, one.asked, threads=one.threads)

            carried = carry(another, source, fps=fps, seconds=seconds)
            tables.append(Table(f"{one.name}, cameras", ("", ""), carried.rows()))
            told["cameras"] = carried.to_dict()
        figures[one.name] = told

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
    return Said(title, tables, {"streams": figures}, of.csv_text(("case", *names), rows), traces)


def _frames(source: str) -> list[Image]:
    with open_source(source) as opened:
        return read_frames(opened, FRAMES, most=None)
