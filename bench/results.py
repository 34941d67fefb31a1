"""The results of a benchmark as tables, warnings, JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from framecast.bench.cold_start import ColdStart
from framecast.bench.opened import titled
from framecast.bench.power import Range
from framecast.bench.quality import Quality
from framecast.bench.single_stream import MLPERF_DURATION, MLPERF_QUERIES, SingleStream
from framecast.bench.steps import Series
from framecast.bench.summary import TAIL, UNSTEADY, Ratio, Summary, ratio, summarize
from framecast.tables import Table


@dataclass(frozen=True)
class Result:
    """The result of one case.

    Attributes:
        name: name of the case.
        engine: the engine as the user named it.
        device: device that the engine used.
        trained: whether the weights are trained.
        series: all samples.
        summary: summary of the whole latencies.
        parts: summary of each part's latencies.
        ratio: ratio to the first case; None for the first case, and if the cases did not alternate.
        device_ms: see :func:`framecast.bench.steps.on_device`.
        stream: MLPerf's evaluation, in single-stream mode.
        cold: cold start in fresh processes; None if it was not measured.
        quality: quality of the predictions; None if unknown.
    """

    name: str
    engine: str
    device: str
    trained: bool
    series: Series
    summary: Summary
    parts: dict[str, Summary]
    ratio: Ratio | None = None
    device_ms: Mapping[str, float] = dataclasses.field(default_factory=dict)
    stream: SingleStream | None = None
    cold: ColdStart | None = None
    quality: Quality | None = None

    @property
    def title(self) -> str:
        """The name, with a note if the weights are random."""
        return titled(self.name, trained=self.trained)


def summaries(series: Series, percentiles: Sequence[float]) -> tuple[Summary, dict[str, Summary]]:
    """Summarize the latencies of the whole and of each part.

    Raises:
        OptionError: there is no sample, or a percentile is out of range.
    """
    parts = {name: summarize(values, percentiles) for name, values in series.parts.items()}
    return summarize(series.milliseconds, percentiles), parts


def ratios(series: Sequence[Series]) -> list[Ratio | None]:
    """Return each case's ratio to the first, round by round."""
    return [None if one is series[0] else ratio(one.by_round(), series[0].by_round()) for one in series]


def tables(results: Sequence[Result], power: Mapping[str, Range], ahead: float | None = None) -> list[Table]:
    """Return all tables, the most important first. ``ahead`` is how far ahead the picture is, in seconds."""
    made = [_latencies(results, ahead)]
    made += [_quality(results)] if any(result.quality for result in results) else []
    if any(result.stream for result in results):
        made.append(_streams(results))
    if any(result.ratio for result in results):
        made.append(_ratios(results))
    made += [_parts(results)] if any(result.parts or result.device_ms for result in results) else []
    made += [_cold(results)] if any(result.cold for result in results) else []
    made += [_power(power)] if power else []
    return made


def _latencies(results: Sequence[Result], ahead: float | None) -> Table:
    percentiles = [p for p in results[0].summary.percentiles if p != 50]
    known = any(result.quality for result in results)
    head = ("", "n", "min", "mean", "median", *(f"p{p:g}" for p in percentiles), "max", "CV %")
    columns = (*head, *["PSNR, dB"] * known)
    rows = [
        (
            result.title,
            str(s.n),
            *(number(value) for value in (s.min, s.mean, s.median, *(s.percentiles[p] for p in percentiles), s.max)),
            f"{100 * s.cv:.1f}",
            *["–" if result.quality is None else f"{result.quality.prediction:.2f}"] * known,
        )
        for result in results
        for s in [result.summary]
    ]
    what = "" if ahead is None else f" and a picture {1e3 * ahead:g} ms ahead"
    return Table(f"Latency of a live step{what}, ms", columns, rows)


def _quality(results: Sequence[Result]) -> Table:
    rows = []
    for result in results:
        if (q := result.quality) is not None:
            when = "next frame" if q.ahead_ms is None else f"{q.ahead_ms:.0f} ms ahead"
            figures = (f"{q.prediction:.2f}", f"{q.copy_last:.2f}", f"{q.prediction - q.copy_last:+.2f}")
            rows.append((result.title, *figures, when, q.data, "–" if q.n is None else str(q.n)))
    columns = ("", "PSNR, dB", "copying, dB", "gain", "scored at", "on", "frames")
    return Table("Quality of these predictions", columns, rows)


def _streams(results: Sequence[Result]) -> Table:
    rows = []
    for result in results:
        stream = result.stream
        if stream is None:
            continue
        for one in stream.estimates:
            sure = "too few" if one.estimate is None else number(one.estimate)
            counts = one is stream.estimates[0]
            verdict = ("VALID" if stream.valid else "INVALID") if counts else ""
            rows.append((result.title, f"{one.percentile:g} %", number(one.seen), sure, str(one.needed), verdict))
    columns = ("", "percentile", "seen, ms", "99 % bound, ms", "queries needed", "result")
    return Table("Single stream, as MLPerf's LoadGen estimates it", columns, rows)


def _ratios(results: Sequence[Result]) -> Table:
    rows = []
    for result in results:
        r = result.ratio
        if r is not None:
            rows.append((result.title, f"{r.median:.3f}", f"{r.low:.3f} … {r.high:.3f}", str(r.rounds)))
    return Table(f"Latency relative to {results[0].title}", ("", "ratio", "95 % interval", "rounds"), rows)


def _parts(results: Sequence[Result]) -> Table:
    rows = []
    for result in results:
        for name, s in result.parts.items():
            shares = f"{100 * s.mean / result.summary.mean:.1f} %"
            rows.append((result.title, name, number(s.median), number(s.mean), number(s.max), shares))
        rows += [(result.title, name, number(value), "", "", "") for name, value in result.device_ms.items()]
    return Table("Where the time goes, ms", ("", "part", "median", "mean", "max", "share"), rows)


def _cold(results: Sequence[Result]) -> Table:
    found = [(result.title, result.cold) for result in results if result.cold]
    devices = any(cold.device_bytes is not None for _, cold in found)
    columns = ("", "first prediction, s", "load, s", "predict, s", "peak, MB", *(["device, MB"] * devices), "n")
    rows = []
    for name, cold in found:
        seconds = (f"{value:.2f}" for value in (cold.seconds, cold.load, cold.first))
        memory = (cold.peak_bytes, cold.device_bytes)[: 1 + devices]
        rows.append((name, *seconds, *map(_megabytes, memory), str(cold.times)))
    return Table("Cold start: a fresh process to its first prediction (medians)", columns, rows)


def _power(power: Mapping[str, Range]) -> Table:
    rows = [(name, number(r.mean), number(r.min), number(r.max), str(r.n)) for name, r in power.items()]
    return Table("During the run (whole machine, all cases)", ("", "mean", "min", "max", "n"), rows)


def warnings(results: Sequence[Result]) -> list[str]:
    """Return reasons to doubt the figures, one a line."""
    found = []
    unsteady = [f"{r.name} {100 * r.summary.cv:.1f} %" for r in results if r.summary.cv > UNSTEADY]
    if unsteady:
        cure = "fix the clocks, end other programs" + (", compare by ratios" if any(r.ratio for r in results) else "")
        found.append(f"unsteady: coefficient of variation above {100 * UNSTEADY:g} %: {', '.join(unsteady)} ({cure})")
    doubtful = {p for r in results for p in r.summary.doubtful}
    if doubtful:
        few, most = min(r.summary.n for r in results), max(doubtful)
        wanted = round(100 * TAIL / (100 - most))
        listed = ", ".join(f"{p:g} %" for p in sorted(doubtful))
        found.append(f"too few samples for {listed}: {few} of {wanted} needed (--iterations {wanted})")
    for result in results:
        stream = result.stream
        found += [f"{result.name}: INVALID: {reason} (--iterations)" for reason in (stream.reasons if stream else ())]
    if any(result.stream and result.stream.valid and result.stream.short for result in results):
        found.append(
            f"VALID for a short run: MLPerf requires at least {MLPERF_DURATION:g} s and {MLPERF_QUERIES} queries"
        )
    return found


def to_dict(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return everything for JSON, including samples. A percentile's key is its number as text."""
    records = []
    for result in results:
        one = dataclasses.asdict(result)
        if result.stream is not None:
            del one["stream"]["series"]  # the result has the same series
            one["stream"] |= {"valid": result.stream.valid, "short_of_mlperf": result.stream.short}
        one["samples"] = one.pop("series")
        for summary in (one["summary"], *one["parts"].values()):
            summary["percentiles"] = {f"{p:g}": value for p, value in summary["percentiles"].items()}
        records.append(one)
    return records


def to_csv(series: Sequence[Series]) -> str:
    """Return one row per sample: case, round, start in seconds, milliseconds of the whole and of each part."""
    parts = list(dict.fromkeys(name for one in series for name in one.parts))
    rows = [
        (
            one.name,
            turn,
            f"{start:.6f}",
            f"{whole:.6f}",
            *(f"{one.parts[p][i]:.6f}" if p in one.parts else "" for p in parts),
        )
        for one in series
        for i, (turn, start, whole) in enumerate(zip(one.rounds, one.starts, one.milliseconds, strict=True))
    ]
    return csv_text(("case", "round", "start_s", "ms", *(f"{name}, ms" for name in parts)), rows)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return comma-separated text with a header line."""
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    return written.getvalue()


def number(value: float) -> str:
    """Format a number with three significant digits. The export keeps all digits."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.0f}"
