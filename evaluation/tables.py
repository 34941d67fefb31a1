"""Results as tables of text, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from framecast.evaluation.metrics import METRICS, WORSE
from framecast.evaluation.results import COPY, ClipResult, Results
from framecast.runtime.report import versions
from framecast.tables import Table, number

# The order of columns in papers.
_PAPERS = ("mse", "mse_clipped", "mae", "mae_clipped", "ssim_published", "ssim", "psnr", "lpips", WORSE)
_SMALL = ("mse", "mse_clipped")  # on TaxiBJ below 1, where papers differ in the third digit


def titles(results: Results) -> list[str]:
    """Return the methods' names for display, with a note on models that have random weights."""
    random = {contender.name: contender.title for contender in results.contenders}
    return [random.get(method, method) for method in results.methods]


def tables(results: Results) -> list[Table]:
    """Return all tables, the most important first."""
    return _of_clips(results) if results.given is None else _of_sequences(results)


def notes(results: Results) -> list[str]:
    """Return the remarks below the tables, one per line."""
    lines = []
    if results.skipped:
        # A data set's clips have one row together.
        total = f" of {len(results.clips) + len(results.skipped)}" if results.given is None else ""
        lines.append(f"skipped {len(results.skipped)}{total} clips:")
        lines += [f"  {reason}" for _, reason in results.skipped]
    for contender in results.contenders:
        if not contender.manifest.trained:
            lines.append(f"{contender.name} has random weights: its figures say nothing about the network's quality")
        if resets := contender.resets:
            times = "once" if resets == 1 else f"{resets} times"
            lines.append(f"{contender.name} was reset {times}, after predictions that were not finite")
    for clip in results.clips:
        if clip.origin is not None:
            lines.append(f"{clip.name}: {clip.frames} sequences, SHA-256 {clip.origin[1]}; {clip.origin[0]}")
    if results.given is None:
        lines += [_copies(results, contender.name) for contender in results.contenders]
        lines.append(_about_cpu(results))
    if results.lpips:
        lines.append(results.lpips)
    return lines


def _copies(results: Results, name: str) -> str:
    """State how often a model fell back to copying. This raises its scores, and rivals have no fallback."""
    share = results.copied(name)
    if not share:
        return f"{name} never fell back to copying the last frame"
    return (
        f"{name} fell back to copying for {100 * share:.1f} % of its pictures, because copying had lately scored "
        "better; rivals have no such fallback"
    )


def _about_cpu(results: Results) -> str:
    line = "CPU: milliseconds of one step and one picture, summed over all threads"
    learning = [one.name for one in results.contenders if one.manifest.renders == "moments"]
    if not learning or len(results.ahead) == 1:
        return line
    return (
        f"{line}; a step of {' and '.join(learning)} learns for all {len(results.ahead)} moments here, but for "
        "only one in a live run: use --horizon 1 to measure that"
    )


def _of_clips(results: Results) -> list[Table]:
    ahead = results.ahead
    each = range(len(ahead)) if ahead.in_ms else (0,)
    costs = range(len(ahead)) if ahead.in_ms else ahead.ends
    return [
        *(_by_clip(results, index) for index in each),
        _ahead(results, "psnr", f"mean of {_count(results)} {_size(results)} by {ahead.unit} ahead, PSNR in dB"),
        *(_cost(results, index) for index in costs),
        *(_others(results, index) for index in ahead.ends),
    ]


def _count(results: Results) -> str:
    return f"{len(results.clips)} clip{'s' * (len(results.clips) != 1)}"


def _size(results: Results) -> str:
    return "at their own sizes" if results.size is None else f"at {results.size[0]}×{results.size[1]}"


def _by_clip(results: Results, index: int) -> Table:
    """Return a table of every method's PSNR on every clip at one moment."""
    sizes, in_ms = results.size is None, results.ahead.in_ms
    columns = ("clip", *["size"] * sizes, *["scored at, ms"] * in_ms, "frames scored", *titles(results))
    rows = []
    for clip in results.clips:
        size = f"{clip.size[0]}×{clip.size[1]}"
        about = (clip.name, *[size] * sizes, *[_scored_at(results, index, [clip])] * in_ms, str(clip.scored[index]))
        rows.append((*about, *_numbers(results, clip.values, "psnr", index)))
    total = str(sum(clip.scored[index] for clip in results.clips))
    about = (f"mean of {_count(results)}", *[""] * sizes, *[""] * in_ms, total)
    rows.append((*about, *_numbers(results, results.mean, "psnr", index)))
    return Table(f"{results.ahead.label(index)}, PSNR in dB {_size(results)}", columns, rows)


def _scored_at(results: Results, index: int, clips: Sequence[ClipResult]) -> str:
    """The lookahead in milliseconds at which a moment was scored. A clip has frames only at its own rate."""
    at = [clip.ahead_ms[index] for clip in clips if clip.ahead_ms is not None]
    low, high = f"{min(at):.1f}", f"{max(at):.1f}"
    return low if low == high else f"{low}–{high}"


def _of_sequences(results: Results) -> list[Table]:
    order = sorted(results.metrics, key=lambda metric: _PAPERS.index(metric) if metric in _PAPERS else len(_PAPERS))
    sequences = sum(clip.frames for clip in results.clips)
    overall = results.mean.mean(axis=1, keepdims=True)  # [method, 1, metric]
    rows = [
        (
            name,
            *(_figure(results.of(overall, method, metric)[0], metric, method) for metric in order),
        )
        for method, name in zip(results.methods, titles(results), strict=True)
    ]
    what = f"mean over the {len(results.ahead)} frames after {results.given} given frames, {sequences} sequences"
    what += f" {_size(results)}"
    first = Table(what, ("method", *(METRICS[metric].title for metric in order)), rows)
    shown = ("mse", "ssim_published", "psnr")
    return [first, *(_ahead(results, metric, f"{METRICS[metric].title} by frames ahead") for metric in shown)]


def _ahead(results: Results, metric: str, title: str) -> Table:
    in_ms = results.ahead.in_ms
    rows = []
    for index, asked in enumerate(results.ahead.asked):
        about = (f"{asked:g}", *[_scored_at(results, index, results.clips) if in_ms else ""] * in_ms)
        rows.append((*about, *_numbers(results, results.mean, metric, index)))
    first = ("asked, ms", "scored at, ms") if in_ms else ("ahead",)
    return Table(title, (*first, *titles(results)), rows)


def _cost(results: Results, index: int) -> Table:
    """Return a table of each method's quality and cost at one moment, and its worst clip."""
    rows = []
    for method, name in zip(results.methods, titles(results), strict=True):
        worst = "–"
        if method != COPY:
            clip, gain = results.worst(method, index)
            worst = f"{clip.name} {number(gain, '+.2f')} dB"
        spent, ratio = results.cpu_ms(method), results.cpu_to_dis(method)
        quality = (
            _figure(results.of(results.mean, method, metric)[index], metric, method) for metric in ("psnr", WORSE)
        )
        cost = ("–" if spent is None else f"{spent[index]:.1f}", "–" if ratio is None else f"{ratio[index]:.2f}")
        rows.append((name, *cost, *quality, worst))
    columns = (
        "method",
        "CPU, ms",
        "CPU, dis-flow = 1",
        METRICS["psnr"].title,
        METRICS[WORSE].title,
        "worst clip, over copying",
    )
    prepared = f"{len(results.ahead)} moment{'s' * (len(results.ahead) != 1)}"
    about = f"cost and quality, mean of {_count(results)} {_size(results)}, CPU for {prepared} per step"
    return Table(f"{results.ahead.label(index)}, {about}", columns, rows)


def _others(results: Results, index: int) -> Table:
    """Return a table of the metrics that the other tables leave out."""
    metrics = [metric for metric in results.metrics if metric not in ("psnr", WORSE)]
    rows = [
        (name, *(_figure(results.of(results.mean, method, metric)[index], metric, method) for metric in metrics))
        for method, name in zip(results.methods, titles(results), strict=True)
    ]
    columns = ("method", *(METRICS[metric].title for metric in metrics))
    return Table(f"{results.ahead.label(index)}, mean of {_count(results)} {_size(results)}", columns, rows)


def _numbers(results: Results, values: np.ndarray, metric: str, index: int) -> list[str]:
    """Return a metric's figure for every method."""
    return [_figure(results.of(values, method, metric)[index], metric, method) for method in results.methods]


def _figure(value: float, metric: str, method: str) -> str:
    if (method, metric) == (COPY, WORSE):
        return "–"
    unit = " %" if METRICS[metric].scale == 100 else ""
    digits = 4 if metric in _SMALL and value < 1 else METRICS[metric].digits
    return f"{value * METRICS[metric].scale:.{digits}f}{unit}"


def provenance(results: Results) -> list[str]:
    """Return the origin of the figures, one line each: size, models, weights and versions."""
    first = results.contenders[0]
    size = "each clip's own size" if results.size is None else f"{results.size[0]}×{results.size[1]}"
    lines = [f"compared at {size}, {first.manifest.frame[0]} channel{'s' * (first.manifest.frame[0] > 1)}"]
    for contender in results.contenders:
        manifest = contender.manifest
        digest = f", sha256 {manifest.weights_sha256[:16]}" if manifest.weights_sha256 else ""
        lines.append(
            f"{contender.name}: {manifest.config}, weights {manifest.weights}{digest}, licence {manifest.licence}"
        )
    known = versions(first.engine.name, first.engine.version)
    return [*lines, ", ".join(f"{name} {version}" for name, version in known.items())]
