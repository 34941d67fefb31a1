"""The report of a run of several cameras: one for each, and a total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypedDict

from framecast.runtime.engines.batched import Shared
from framecast.runtime.report import Outages, Report

if TYPE_CHECKING:
    from typing_extensions import TypeIs


class Total(TypedDict):
    """What all cameras of a run have in common, and what they come to together.

    Attributes:
        source: how many cameras: ``3 cameras``.
        model: the configuration's name.
        engine: the engine that runs the steps.
        engines: how many of it are open: one for all, or one for each camera if it holds no weights.
        batches: how many steps ran with so many cameras' frames, by that number as a string; empty without a shared
            engine.
        batch_ms: milliseconds of such a step as measured at the start, by the same number; empty if there was nothing
            to choose.
        single: why all steps are of one camera each; null if they need not be.
        running: cameras that have not ended.
        failed: why cameras ended, by their names: only those that an error ended.
        refused: of these, the names of the cameras that refused the user or the password.
        frames: predicted frames of all cameras.
        dropped: the same of dropped frames.
        epochs: streams begun.
        resets: resets of a state after a prediction that was not finite.
        fps: predictions a second, summed over the cameras.
        silent_s: seconds since the newest frame of any camera.
        trouble: why no camera gives frames; null while any does.
        attempts: how often it was tried to open lost cameras again.
        outages: of all cameras, summed; the longest of any.
        events: as in the cameras' reports, summed.
        warnings: those of all cameras, each with its name.
        ended: null while any camera runs; then ``error: …`` with the names of those that failed, or what ended all of
            them, such as ``end of source``.
    """

    source: str
    model: str
    engine: str
    engines: int
    batches: dict[str, int]
    batch_ms: dict[str, float]
    single: str | None
    running: int
    failed: dict[str, str]
    refused: list[str]
    frames: int
    dropped: int
    epochs: int
    resets: int
    fps: float
    silent_s: float
    trouble: str | None
    attempts: int
    outages: Outages
    events: dict[str, int]
    warnings: list[str]
    ended: str | None


class FleetReport(TypedDict):
    """The JSON of ``framecast run --json`` with several cameras.

    Attributes:
        cameras: the report of each camera, by its name.
        total: see :class:`Total`.
    """

    cameras: dict[str, Report]
    total: Total


def several(report: Report | FleetReport) -> TypeIs[FleetReport]:
    """Whether a report is of several cameras."""
    return "total" in report


def fleet_report(
    cameras: Mapping[str, Report], failed: Mapping[str, str], refused: Iterable[str], engines: Shared
) -> FleetReport:
    """Make the report of a run of several cameras.

    Args:
        cameras: each camera's report, by its name.
        failed: the errors that have ended cameras, by their names.
        refused: see :class:`Total`.
        engines: what the cameras have their engines from.
    """
    engine, batcher = engines.engine, engines.batcher
    every = [*cameras.values()]
    left = {name: report for name, report in cameras.items() if report["ended"] is None}
    running = [*left.values()]
    events: Counter[str] = Counter()
    for report in every:
        events.update(report["events"])
    troubles = [f"{name}: {report['trouble']}" for name, report in left.items() if report["trouble"] is not None]
    silent = [report["silent_s"] for report in running]
    cost = batcher.cost if batcher is not None and len(batcher.cost) > 1 else {}
    total: Total = {
        "source": f"{len(every)} camera{'s' * (len(every) != 1)}",
        "model": engine.manifest.config,
        "engine": engine.name,
        "engines": len(every) if batcher is None else 1,
        "batches": {} if batcher is None else {str(size): n for size, n in sorted(batcher.batches.copy().items())},
        "batch_ms": {str(size): round(1e3 * seconds, 3) for size, seconds in cost.items()},
        "single": "each camera has its own engine" if batcher is None else batcher.single or None,
        "running": len(running),
        "failed": dict(failed),
        "refused": [*refused],
        "frames": sum(report["frames"] for report in every),
        "dropped": sum(report["dropped"] for report in every),
        "epochs": sum(report["epochs"] for report in every),
        "resets": sum(report["resets"] for report in every),
        "fps": round(sum(report["fps"] or 0.0 for report in every), 2),
        "silent_s": min(silent, default=0.0),
        "trouble": "; ".join(troubles) if running and len(troubles) == len(running) else None,
        "attempts": sum(report["attempts"] for report in every),
        "outages": {
            "count": sum(report["outages"]["count"] for report in every),
            "total_s": round(sum(report["outages"]["total_s"] for report in every), 3),
            "longest_s": max(report["outages"]["longest_s"] for report in every),
        },
        "events": dict.fromkeys(every[0]["events"], 0) | dict(events),
        "warnings": [f"{name}: {line}" for name, report in cameras.items() for line in report["warnings"]],
        "ended": _ended(every, failed),
    }
    return {"cameras": dict(cameras), "total": total}


def _ended(every: list[Report], failed: Mapping[str, str]) -> str | None:
    reasons = [report["ended"] for report in every]
    if any(reason is None for reason in reasons):
        return None
    if failed:
        return f"error: {len(failed)} of {len(every)} cameras failed: {', '.join(failed)}"
    return ", ".join(dict.fromkeys(reason for reason in reasons if reason is not None))
