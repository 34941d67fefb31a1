"""Runs the worker over many seeds, with bounds on time and memory, and counts what became of the inputs."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from .worker import FINE, KINDS

__all__ = ["FINE", "KINDS", "Fault", "Tally", "attempt_saved", "campaign"]

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20.0  # of the processor, for one input
WAITING = 120.0  # seconds, for one input: it waits for something that does not come
MEMORY = 2 << 30  # bytes that one input may take
POLL = 0.05  # seconds
TAIL = 4000  # bytes of output to show


@dataclass(frozen=True)
class Fault:
    """An input that did not end in frames or in one line.

    Attributes:
        seed: makes it again.
        verdict: ``crashed``, ``hung``, ``traceback``, ``memory`` or ``printed``.
        text: what is known.
    """

    seed: int
    verdict: str
    text: str


@dataclass
class Tally:
    """What became of the inputs of one kind.

    Attributes:
        verdicts: how many inputs had each.
        seconds: of the processor, for all of them.
        slowest: seconds of the slowest one.
        peak: bytes of the one that took most memory, besides the process before the first.
        faults: the inputs that were neither survived nor refused.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest: float = 0.0
    peak: int = 0
    faults: list[Fault] = field(default_factory=list)

    def add(self, seed: int, verdict: str, text: str, seconds: float = 0.0, peak: int = 0) -> None:
        """Count one input."""
        if verdict in FINE and peak > MEMORY:
            verdict, text = "memory", f"it took {peak >> 20} MB"
        self.verdicts[verdict] += 1
        self.seconds += seconds
        self.slowest, self.peak = max(self.slowest, seconds), max(self.peak, peak)
        if verdict not in FINE:
            self.faults.append(Fault(seed, verdict, text))


def campaign(kind: str, first: int, count: int, told: Callable[[Tally], None] = lambda tally: None) -> Tally:
    """Try the inputs of ``count`` seeds. An input that ends the worker costs only itself.

    Args:
        kind: a name of ``KINDS``.
        first: the first seed.
        count: how many.
        told: called after each input.
    """
    tally, at = Tally(), first
    while at < first + count:
        at = _work([kind, str(at), str(first + count - at)], at, tally, told)
    return tally


def attempt_saved(kind: str, folder: Path) -> Tally:
    """Try an input that was saved before."""
    tally = Tally()
    _work([kind, str(folder)], 0, tally, lambda tally: None)
    return tally


def _work(arguments: list[str], at: int, tally: Tally, told: Callable[[Tally], None]) -> int:
    """Run one worker to its end; return the seed to go on with."""
    with tempfile.TemporaryFile() as output:
        ours, theirs = os.pipe()
        worker = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker", *arguments, str(theirs)],
            pass_fds=[theirs],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        os.close(theirs)
        running: dict[str, Any] | None = None
        said = 0  # bytes of output before this input
        try:
            for news in _replies(ours, worker):
                if "begun" in news:
                    running = news
                    continue
                running = None
                text = _tail(output, said) if news["verdict"] == "printed" else news["text"]
                said = os.fstat(output.fileno()).st_size
                tally.add(news["done"], news["verdict"], text, news["seconds"], news["peak"])
                told(tally)
                at = news["done"] + 1
        except _OverError as over:
            assert running
            tally.add(running["begun"], over.verdict, f"{over}\n{_tail(output, said)}", peak=over.peak)
            told(tally)
            return int(running["begun"]) + 1
        finally:
            os.close(ours)
            worker.kill()  # it has ended by itself, except after a limit or an interruption
            worker.wait()
        if running is not None:
            tally.add(running["begun"], "crashed", f"exit code {worker.returncode}\n{_tail(output, said)}")
            told(tally)
            return int(running["begun"]) + 1
        if worker.returncode != 0:
            raise RuntimeError(f"the worker of {arguments[0]} failed:\n{_tail(output, 0)}")
    return at


class _OverError(Exception):
    """An input went over a limit."""

    def __init__(self, verdict: str, text: str, peak: int = 0) -> None:
        super().__init__(text)
        self.verdict, self.peak = verdict, peak


def _replies(pipe: int, worker: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """What the worker says, until it ends. Raises _OverError if an input goes over a limit."""
    process, waiting = psutil.Process(worker.pid), b""
    base, since, used = 0, 0.0, 0.0  # since 0: no input is being tried
    while True:
        if select.select([pipe], [], [], POLL)[0]:
            data = os.read(pipe, 65536)
            if not data:
                worker.wait()
                return
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                news = json.loads(line)
                if "begun" in news:
                    base, since, used = news["base"], time.monotonic(), _cpu(process)
                else:
                    since = 0.0
                yield news
        elif since:
            with suppress(psutil.Error):
                if (more := process.memory_info().rss - base) > MEMORY:
                    raise _OverError("memory", f"it took {more >> 20} MB and more", more)
            if (seconds := _cpu(process) - used) > SECONDS:
                raise _OverError("hung", f"it worked for {seconds:.0f} s")
            if (seconds := time.monotonic() - since) > WAITING:
                raise _OverError("hung", f"it did not end in {seconds:.0f} s")


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _tail(output: IO[bytes], begin: int) -> str:
    """The last of what a worker printed, from a byte on."""
    size = os.fstat(output.fileno()).st_size
    return os.pread(output.fileno(), TAIL, max(begin, size - TAIL)).decode(errors="replace")
