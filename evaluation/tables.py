"""Results as tables of text, for the terminal and the page."""

from __future__ import annotations

import numpy as np

from framecast.evaluation.metrics import METRICS, WORSE
from framecast.evaluation.results import COPY, Results
from framecast.runtime.report import versions
from framecast.tables import Table

_PAPERS = ("mse", "mae", "ssim_published", "ssim", "psnr", "lpips", WORSE)  # the papers' order of columns for sequences


def titles(results: Results) -> list[str]:
    """Return the methods' names for display, with a note on models that have random weights."""
    random = {contender.name: contender.title for contender in results.contenders}
    return [random.get(method, method) for method in results.methods]


def tables(results: Results) -> list[Table]:
    """Return all tables, the most important first."""
    return _of_clips(results) if results.given is None else _of_sequences(results)


def notes(results: Results) -> list[str]:
    """Return the remarks that readers of the tables need, one a line."""
    lines = []
    if results.skipped:
        total = len(results.clips) + len(results.skipped)
        lines.append(f"skipped {len(results.skipped)} of {total} clips:")
        lines += [f"  {reason}" for _, reason in results.skipped]
    for contender in results.contenders:
        if not contender.predictor.manifest.trained:
            lines.append(f"{contender.name} has random weights: its figures say nothing about the network")
        if resets := contender.predictor.resets:
            lines.append(f"{contender.name} was reset {resets} times, after predictions that were not finite")
    if results.lpips:
        lines.append(results.lpips)
    return lines


def _of_clips(results: Results) -> list[Table]:
    count = f"{len(results.clips)} clip{'s' * (len(results.clips) != 1)}"
    names = titles(results)
    rows = [(clip.name, str(clip.scored[0]), *_numbers(results, clip.values, "psnr", 1)) for clip in results.clips]
    rows.append(
        (
            f"mean of {count}",
            str(sum(clip.scored[0] for clip in results.clips)),
            *_numbers(results, results.mean, "psnr", 1),
        )
    )
    return [
        Table("next frame, PSNR in dB", ("clip", "frames scored", *names), rows),
        _ahead(results, "psnr", f"mean of {count} by steps ahead, PSNR in dB"),
        *(_others(results, step, count) for step in dict.fromkeys((1, results.horizon))),
    ]


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
    what = f"mean over the {results.horizon} frames after {results.given} given ones, {sequences} sequences"
    first = Table(what, ("method", *(METRICS[metric].title for metric in order)), rows)
    shown = ("mse", "ssim_published", "psnr")
    return [first, *(_ahead(results, metric, f"{METRICS[metric].title} by frames ahead") for metric in shown)]


def _ahead(results: Results, metric: str, title: str) -> Table:
    rows = [(str(step), *_numbers(results, results.mean, metric, step)) for step in range(1, results.horizon + 1)]
    return Table(title, ("ahead", *titles(results)), rows)


def _others(results: Results, step: int, count: str) -> Table:
    """Return a table of all metrics except PSNR, which other tables show, and of each method's worst clip."""
    metrics = [metric for metric in results.metrics if metric != "psnr"]
    rows = []
    for method, name in zip(results.methods, titles(results), strict=True):
        figures = [_figure(results.of(results.mean, method, metric)[step - 1], metric, method) for metric in metrics]
        worst = "–"
        if method != COPY:
            clip, gain = results.worst(method, step)
            worst = f"{clip.name} {gain:+.2f} dB"
        rows.append((name, *figures, worst))
    columns = ("method", *(METRICS[metric].title for metric in metrics), "worst clip, compared with copying")
    ahead = "next frame" if step == 1 else f"{step} steps ahead"
    return Table(f"{ahead}, mean of {count}", columns, rows)


def _numbers(results: Results, values: np.ndarray, metric: str, step: int) -> list[str]:
    """Return a metric's figure for every method."""
    return [_figure(results.of(values, method, metric)[step - 1], metric, method) for method in results.methods]


def _figure(value: float, metric: str, method: str) -> str:
    if (method, metric) == (COPY, WORSE):
        return "–"
    unit = " %" if METRICS[metric].scale == 100 else ""
    return f"{value * METRICS[metric].scale:.{METRICS[metric].digits}f}{unit}"


def provenance(results: Results) -> list[str]:
    """Return where the figures come from: models, weights and versions, one a line."""
    first = results.contenders[0].predictor
    width, height = first.manifest.size
    lines = [f"compared at {width}×{height}, {first.manifest.frame[0]} channel{'s' * (first.manifest.frame[0] > 1)}"]
    for contender in results.contenders:
        manifest = contender.predictor.manifest
        digest = f", sha256 {manifest.weights_sha256[:16]}" if manifest.weights_sha256 else ""
        lines.append(
            f"{contender.name}: {manifest.config}, weights {manifest.weights}{digest}, licence {manifest.licence}"
        )
    known = versions(first.engine.name, first.engine.version)
    return [*lines, ", ".join(f"{name} {version}" for name, version in known.items())]
