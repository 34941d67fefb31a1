"""Runs the sections of ``gpu_check.py`` one after the other, each in its own process with its own time limit.

A section checks the time before each row, but not during one long call: a compilation may take minutes, and a GPU may
hang. Therefore each section runs in a child process. The child sends each row when it is done, and the parent saves it
at once. When the time slice and some grace are over, the parent kills the child and every process that it started
(``_gpu_process.py``). A fault that ruins the CUDA context then costs only one row: the parent starts another child for
the remaining rows.

Children are forked, because importing torch takes seconds and there are a dozen sections. The parent must therefore
never use CUDA: a driver that was started before a fork does not work after it. If CUDA fails in forked processes for
another reason, a section can also run in a new interpreter.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _gpu_process import ENDS, dies_with_its_parent, fork, guarded, reaped

GRACE = 0.1  # extra share of a time slice for a row that began in time; then it is killed
LEAST_GRACE = 2.0  # seconds
_KINDS = ({"plan"}, {"begin"}, {"end"}, {"name", "text", "figures", "wrong"})  # kinds of messages, by their keys
RUINED = 75  # exit code of a child whose CUDA context is unusable: the remaining rows need another process


class NotHere(Exception):  # noqa: N818 (not an error: the row cannot run on this machine)
    """A library or feature that a row needs is missing. The row reads "not run" and does not count as wrong."""


@dataclass(frozen=True)
class Found:
    """The result of a row.

    Attributes:
        text: text for the table.
        wrong: whether the error exceeds its bound.
        figures: figures for the JSON file.
    """

    text: str
    wrong: bool = False
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One row of a table: its name, and the function that measures it."""

    name: str
    run: Callable[[], Found]


@dataclass(frozen=True)
class Section:
    """One part of the check.

    Attributes:
        name: name of the section.
        seconds: its time slice; 0 for all remaining time.
        columns: header of its table.
        rows: returns the rows, the most important first. It runs in the child.
    """

    name: str
    seconds: float
    columns: str
    rows: Callable[[], list[Row]]


@dataclass(eq=False)
class Outcome:
    """The outcome of a section.

    Attributes:
        rows: figures of each row that ran.
        planned: names of all rows.
        done: names of the rows that ran.
        wrong: number of rows with a wrong result.
        cut: whether it was killed at its time limit.
        foreign: lines in its pipe from other programs.
        seconds: how long it took.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    wrong: int = 0
    cut: bool = False
    foreign: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def missing(self) -> list[str]:
        """Names of the rows that were not run."""
        return [name for name in self.planned if name not in self.done]


Add = Callable[[Outcome, str, dict[str, Any], bool], None]  # receives a row's text, figures, and whether it is wrong


def run_section(
    section: Section,
    seconds: float,
    add: Add,
    log: Path,
    ruined: Callable[[], bool] = lambda: False,
    command: Sequence[str] = (),
) -> Outcome:
    """Run a section within its time limit, and return its outcome. No fault of the section is raised.

    Args:
        section: the section.
        seconds: its time limit.
        add: called with each row when it is done.
        log: file for the section's output.
        ruined: called after a failed row; returns whether this process can no longer run rows.
        command: if given, it runs the section in a new interpreter, with additional arguments for :func:`serve`.
    """
    begun, outcome = time.monotonic(), Outcome()
    until = begun + seconds
    while True:
        before, logged = len(outcome.done), log.stat().st_size if log.exists() else 0
        grace = max(LEAST_GRACE, GRACE * seconds)
        running, code = _child(section, until, grace, outcome, add, log, ruined, command)
        outcome.seconds = time.monotonic() - begun
        if outcome.cut:
            if running or not outcome.done:
                text = f"cut off after {seconds:.0f} s" + ("" if code is not None else f", and {_reason(code)}")
                _row(outcome, add, running or section.name, text, {"cut": True}, wrong=False)
            return outcome
        if code not in (0, RUINED):
            _row(outcome, add, running or section.name, f"died: {_reason(code)}{_last(log, logged)}", {}, wrong=True)
        if not outcome.missing or len(outcome.done) == before or time.monotonic() > until:
            return outcome


def _row(outcome: Outcome, add: Add, name: str, text: str, figures: dict[str, Any], *, wrong: bool) -> None:
    outcome.done.append(name)
    outcome.wrong += wrong
    outcome.rows.append({"row": name, "text": text, **figures, **({"wrong": True} if wrong else {})})
    add(outcome, f"{name}  {text}", figures, wrong)


def _child(
    section: Section,
    until: float,
    grace: float,
    outcome: Outcome,
    add: Add,
    log: Path,
    ruined: Callable[[], bool],
    command: Sequence[str],
) -> tuple[str, int | None]:
    """Run the remaining rows in a new process. Return the name of the unfinished row, and the exit code.

    The exit code is minus the signal's number if a signal ended the process, and None if the process cannot be killed.
    """
    reads, writes = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent, child = os.getpid(), fork()
    if not child:
        os.close(reads)
        _work(section, until, outcome.done, writes, log, ruined, command, parent)
    try:
        os.close(writes)
        with guarded(child), os.fdopen(reads, "rb", buffering=0) as pipe:
            running, ended = _followed(pipe.fileno(), until + grace, outcome, add)
    finally:  # guarded() has killed the group even after success: compilers may still run
        code = reaped(child, ENDS)
    return running, code if ended is None else ended


def _followed(pipe: int, end: float, outcome: Outcome, add: Add) -> tuple[str, int | None]:
    """Handle a child's messages. Return the name of the unfinished row, and the exit code that the child announced."""
    running = ""
    for message in _messages(pipe, end):
        if message is None:
            outcome.cut = True
            break
        if "plan" in message:
            outcome.planned = outcome.planned or message["plan"]
        elif "begin" in message:
            running = message["begin"]
        elif "end" in message:  # do not wait for the pipe to close: other processes may have inherited it
            return running, int(message["end"])
        elif "foreign" in message:
            outcome.foreign.append(message["foreign"])
        else:
            running = ""
            _row(outcome, add, message["name"], message["text"], message["figures"], wrong=message["wrong"])
    return running, None


def _messages(pipe: int, end: float) -> Iterator[dict[str, Any] | None]:
    """Yield a child's messages until it closes its end of the pipe; yield None if the time is over first.

    Other programs inherit the pipe. A line that they write is yielded as the ``foreign`` text of a message.
    """
    left = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
        if not ready or time.monotonic() > end + LEAST_GRACE:  # also cuts off a child that never stops writing
            yield None
            return
        data = os.read(pipe, 1 << 16)
        if not data:
            return
        *lines, left = (left + data).split(b"\n")
        yield from (_understood(line) for line in lines if line.strip())


def _understood(line: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        message = json.loads(line)
        if isinstance(message, dict) and any(keys <= message.keys() for keys in _KINDS):
            return message
    return {"foreign": line.decode(errors="replace").strip()[:120]}


def _work(
    section: Section,
    until: float,
    done: Sequence[str],
    pipe: int,
    log: Path,
    ruined: Callable[[], bool],
    command: Sequence[str],
    parent: int,
) -> None:
    """Run the rows in the child and exit. It never returns."""
    code = 1
    try:
        os.setpgid(0, 0)  # so that the parent can kill every process that this one starts
        dies_with_its_parent(parent)
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if command:
            os.set_inheritable(pipe, True)
            more = ["--section", section.name, "--pipe", str(pipe), "--until", repr(until), "--done", json.dumps(done)]
            os.execv(command[0], [*command, *more])
        code = serve(section, until, done, pipe, ruined)
    except BaseException:  # noqa: BLE001 (it is logged, and the exit code tells the parent)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # skips the parent's exit handlers


def serve(section: Section, until: float, done: Sequence[str], pipe: int, ruined: Callable[[], bool]) -> int:
    """Run a section's remaining rows in this process, and return its exit code."""
    send = _sender(pipe)
    code = _rows(section, until, done, send, ruined)
    send({"end": code})
    return code


def _sender(pipe: int) -> Callable[[dict[str, Any]], None]:
    def send(message: dict[str, Any]) -> None:
        # The leading newline ends a line that another program may have left incomplete.
        data = b"\n" + json.dumps(message, default=str).encode() + b"\n"
        while data:
            data = data[os.write(pipe, data) :]

    return send


def _rows(
    section: Section,
    until: float,
    done: Sequence[str],
    send: Callable[[dict[str, Any]], None],
    ruined: Callable[[], bool],
) -> int:
    """Send the plan, then each row; return the exit code."""
    try:
        rows = section.rows()
    except NotHere as reason:
        send(_message(section.name, Found(f"not run: {_line(reason)}", figures={"not_run": _line(reason)})))
        return 0
    except Exception as error:  # noqa: BLE001 (it is reported, and the next section still runs)
        traceback.print_exc()
        send(_message(section.name, _failed(error)))
        return 0
    send({"plan": [row.name for row in rows]})
    for row in rows:
        if row.name in done:
            continue
        if time.monotonic() > until:
            break
        send({"begin": row.name})
        try:
            send(_message(row.name, row.run()))
        except (NotHere, ImportError) as reason:
            send(_message(row.name, Found(f"not run: {_line(reason)}", figures={"not_run": _line(reason)})))
        except Exception as error:  # noqa: BLE001 (a GPU's libraries raise anything, and the other rows must still run)
            traceback.print_exc()
            send(_message(row.name, _failed(error)))
            if ruined():
                return RUINED
    return 0


def _message(name: str, found: Found) -> dict[str, Any]:
    return {"name": name, "text": found.text, "wrong": found.wrong, "figures": found.figures}


def _failed(error: Exception) -> Found:
    return Found(f"failed: {type(error).__name__}: {_line(error)}", wrong=True, figures={"error_text": _line(error)})


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def _reason(code: int | None) -> str:
    """Return why a process ended, from its exit code."""
    if code is None:
        return f"still running {ENDS:.0f} s after SIGKILL"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _last(log: Path, begin: int) -> str:
    """Return the last line of a log from byte ``begin`` on, to explain why a process died."""
    lines = log.read_bytes()[begin:].decode(errors="replace").strip().splitlines() if log.exists() else []
    return f" ({lines[-1].strip()[:120]})" if lines else ""
