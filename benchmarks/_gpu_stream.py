"""The stream part of ``gpu_check.py``: allocations and waits per frame, the kernels of one replay, and data races."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _gpu_process import dies_with_its_parent
from _gpu_run import Found, Row
from _gpu_steps import AHEAD, INTERVAL, RAN, made, pictures
from _gpu_variants import BEST, HALF, VARIANTS, Variant
from torch.profiler import ProfilerActivity, profile, record_function

from framecast.runtime.engines.torch import TorchEngine
from framecast.runtime.stepper import Stepper

FRAMES = 50  # frames of a steady stream
WAITED = 10.0  # microseconds from which a call counts as a wait
MEMORY = ("num_device_alloc", "num_alloc_retries", "allocation.all.allocated")  # of torch.cuda.memory_stats
SHOWN = 25  # kernels listed per replay
MARK = "frames"  # only events within this mark of a profile count
STEADY = (
    f"{'allocations a frame':>20} {'waits a frame':>14}  (waits of {WAITED:.0f} us and more, and synchronous copies)"
)
RACE = "CSAN detected"  # what torch's sanitizer prints before a data race
_ALLOCATES = ("cudaMalloc", "cudaMallocAsync", "cuMemCreate", "cudaHostAlloc", "cuMemAlloc")

CONTROL = "control"
_EAGER = next(variant for variant in VARIANTS if variant.name == "eager, kernels")
# The variants that the sanitizer watches. It cannot see kernels inside a replay, so fp16 also runs without graphs.
WATCHED = (
    _EAGER,
    Variant("eager, kernels, fp16", {**_EAGER.options, "precision": "fp16"}),
    BEST,
    HALF,
)

Job = tuple[str, Variant, tuple[int, int] | None]  # a configuration, a variant, and a motion model's size


def steady(size: tuple[int, int], configs: Sequence[str], device: str) -> list[Row]:
    """Return a row for each network: allocations on the device and waits for the device, per frame."""
    jobs: list[Job] = [("stip-ucf", BEST, None), ("edge", BEST, size)]
    jobs += [(config, BEST, None) for config in configs]
    return [Row(_named(job), partial(_steady, job, device)) for job in jobs]


def _steady(job: Job, device: str) -> Found:
    with made(job[0], job[1], device, job[2]) as engine:
        frames = player(engine)
        frames(40 if device == "cuda" else 2)
        before = torch.cuda.memory_stats() if device == "cuda" else {}
        with profile(activities=_activities(device)) as profiled, record_function(MARK):
            frames(FRAMES if device == "cuda" else 2)
        after = torch.cuda.memory_stats() if device == "cuda" else {}
    events = calls(profiled.events() or [])
    if device == "cpu":
        return Found(RAN)

    def a_frame(names: Iterable[str]) -> dict[str, float]:
        return {name: count / FRAMES for name, count in Counter(names).items()}

    grown = {key: (after[key] - before.get(key, 0)) / FRAMES for key in MEMORY if key in after}
    allocated = sum(event.name in _ALLOCATES for event in events) / FRAMES
    waits = [event for event in events if may_wait(event.name)]
    waited = Counter(event.name for event in waits if has_waited(event))
    figures: dict[str, Any] = {
        "allocations": max(allocated, grown.get("num_device_alloc", 0.0)),
        "waits": sum(waited.values()) / FRAMES,
        "synchronized": a_frame(event.name for event in waits),
        "calls": a_frame(event.name for event in events),
        "memory": grown,
    }
    kinds = ", ".join(
        f"{waited[name] / FRAMES:.2f} of {count:.2f} {name}" for name, count in figures["synchronized"].items()
    )
    text = f"{figures['allocations']:20.2f} {figures['waits']:14.2f}  (counted: {kinds or 'no call that waits'}"
    return Found(f"{text}; from torch's pool: {grown.get(MEMORY[-1], 0.0):.2f})", figures=figures)


def calls(events: Iterable[Any]) -> list[Any]:
    """Return a profile's CUDA calls within the mark. Outside the mark, the profiler itself waits."""
    events = list(events)
    mark = next(e.time_range for e in events if e.name == MARK and str(e.device_type).endswith("CPU"))
    inside = (e for e in events if mark.start <= e.time_range.start <= mark.end)
    return [event for event in inside if event.name.startswith("cu")]


def may_wait(name: str) -> bool:
    """Return whether a call may wait for the device, a stream, an event, or the end of a copy."""
    return "Synchronize" in name or ("Memcpy" in name and "Async" not in name)


def has_waited(call: Any) -> bool:
    """Return whether such a call waited. A copy always waits; others return at once if the work is done."""
    return "Memcpy" in call.name or call.cpu_time_total >= WAITED


def player(engine: TorchEngine) -> Callable[[int], None]:
    """Return a function that runs a given number of frames of a live stream."""
    images, stepper, moments = pictures(engine.manifest), Stepper(engine), engine.manifest.renders == "moments"

    def frames(count: int) -> None:
        for index in range(count):
            stepper.advance([images[index % len(images)]], INTERVAL)
            if moments:
                stepper.at([AHEAD], INTERVAL)
            else:
                stepper.render()

    return frames


def replay(size: tuple[int, int], device: str) -> list[Row]:
    """Return a row for each network: the number of nodes of a replay, and its kernels sorted by time."""
    jobs: list[Job] = [
        ("stip-ucf", BEST, None),
        ("edge", BEST, size),
        ("stip-ucf", HALF, None),
        ("stip-4k", BEST, None),
    ]
    return [Row(_named(job), partial(_replay, job, device)) for job in jobs]


def _replay(job: Job, device: str) -> Found:
    with made(job[0], job[1], device, job[2]) as engine:
        player(engine)(20 if device == "cuda" else 2)
        states = [engine.new_state() for _ in range(2)]
        images = pictures(engine.manifest)

        def run(turn: int) -> None:
            engine.take([images[turn]], states[1 - turn % 2])
            if device == "cuda":
                torch.cuda.synchronize()
            engine.run(states[turn % 2], states[1 - turn % 2])
            if device == "cuda":
                torch.cuda.synchronize()

        for turn in range(12 if device == "cuda" else 2):  # captures each arrangement of the buffers
            run(turn)
        with profile(activities=_activities(device)) as profiled:
            engine.run(states[0], states[1])
            if device == "cuda":
                torch.cuda.synchronize()
    if device == "cpu":
        return Found(RAN)
    nodes = [event for event in profiled.events() or [] if str(event.device_type).endswith("CUDA")]
    times: Counter[str] = Counter()
    for event in nodes:
        times[event.name] += event.device_time
    calls = Counter(event.name for event in nodes)
    total = sum(times.values())
    span = max(e.time_range.end for e in nodes) - min(e.time_range.start for e in nodes) if nodes else 0.0
    lines = [f"\n    {time:9.1f} us {calls[name]:5d} x {name[:90]}" for name, time in times.most_common(SHOWN)]
    figures = {
        "nodes": len(nodes),
        "sum_us": total,
        "span_us": span,
        "kernels": [{"name": name, "us": time, "calls": calls[name]} for name, time in times.most_common()],
        "order": [[event.name, event.device_time] for event in nodes],
    }
    return Found(f"{len(nodes)} nodes, {total:.0f} us of {span:.0f} us{''.join(lines)}", figures=figures)


def _activities(device: str) -> list[Any]:
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]


def _named(job: Job) -> str:
    config, variant, size = job
    return f"{config}{f' {size[0]}x{size[1]}' if size else ''} {variant.name}"


def races(device: str) -> list[Row]:
    """Return a row for each kind of stream that torch's sanitizer watches, each in a new interpreter.

    The sanitizer must be enabled before torch is imported. It sees only the operations that torch launches, so it needs
    streams without graphs; a replay keeps the captured order. The first row is a known race: if the sanitizer misses
    it, the other rows prove nothing.
    """
    control = [Row("a known race", partial(_control, device))] if device == "cuda" else []
    return control + [
        Row(f"stip-edge {variant.name}, two rows, one reset", partial(_watched, variant.name, device))
        for variant in WATCHED[: None if device == "cuda" else 1]
    ]


def sanitized(what: str, device: str) -> subprocess.CompletedProcess[str]:
    """Run one of the streams or the known race in a new interpreter with torch's sanitizer."""
    command = [sys.executable, str(Path(__file__)), what, device]
    watched = {"TORCH_CUDA_SANITIZER": "1"} if device == "cuda" else {}  # torch for the CPU lacks the hooks
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | watched)
    print(done.stdout, done.stderr)  # into the log
    return done


def _control(device: str) -> Found:
    done = sanitized(CONTROL, device)
    count = (done.stdout + done.stderr).count(RACE)
    text = f"found, {count} reports" if count else f"the sanitizer did not find it, exit code {done.returncode}"
    return Found(text, not count, {"races": count, "exit_code": done.returncode})


def _watched(variant: str, device: str) -> Found:
    done = sanitized(variant, device)
    count = (done.stdout + done.stderr).count(RACE)
    wrong = bool(count or done.returncode)
    last = (done.stderr.strip().splitlines() or [""])[-1][:120] if done.returncode else ""
    text = RAN if device == "cpu" and not wrong else f"{count} races, exit code {done.returncode} {last}"
    return Found(text, wrong, {"races": count, "exit_code": done.returncode})


def _watch(variant: str, device: str) -> None:
    """Run a stream of two rows, reset one row at a time, and look ahead. The sanitizer raises if it finds a race."""
    chosen = next(entry for entry in WATCHED if entry.name == variant)
    with made("stip-edge", chosen, device) as engine:
        images, stepper = pictures(engine.manifest), Stepper(engine, 2)
        for index in range(8):
            if index in (3, 6):
                stepper.reset([index % 2])
            stepper.advance([images[index], images[index + 8]])
            rows = stepper.render()
            assert all(row is not None for row in rows)
        stepper.look_ahead(3)
    print("done")


def _race() -> None:
    """Write to a tensor on two streams that do not wait for each other."""
    values = torch.zeros(1 << 20, device="cuda")
    torch.cuda.synchronize()
    for stream in (torch.cuda.Stream(), torch.cuda.Stream()):
        with torch.cuda.stream(stream):
            values.add_(1)
    torch.cuda.synchronize()
    print("done")


if __name__ == "__main__":
    dies_with_its_parent()
    if sys.argv[1] == CONTROL:
        _race()
    else:
        _watch(sys.argv[1], sys.argv[2])
