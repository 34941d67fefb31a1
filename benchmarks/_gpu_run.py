"""Sections of ``gpu_check.py``, one after the other, each in a process of its own and cut off by its own clock.

A section looks at its clock before each row, but it cannot look inside one long call: a compilation may take minutes,
and a GPU may hang. So a section runs in a child process. The child sends each row as it comes, and the parent writes it
to disk at once. When the slice and some grace are over, the parent kills the child and all that it started
(``_gpu_process.py``). A fault that ruins a CUDA context then ruins only one row: the parent starts another child for
the rows that are left.

Children are forked, because importing torch takes seconds and there are a dozen. The parent must therefore never use
CUDA: a driver that was started before a fork does not work after it. Where forks and CUDA do not go together for
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

GRACE = 0.1  # of a slice: a row that began in time may take so much longer before it is killed
LEAST_GRACE = 2.0  # seconds
_KINDS = ({"plan"}, {"begin"}, {"end"}, {"name", "text", "figures", "wrong"})  # of messages, by their keys
RUINED = 75  # exit code of a child whose context is unusable: the rows that are left need another process


class NotHere(Exception):  # noqa: N818 (not an error: a row that cannot run on this machine)
    """A library or a feature that a row needs is missing. The row reads "not run" and is not wrong."""


@dataclass(frozen=True)
class Found:
    """The result of a row.

    Attributes:
        text: for the table.
        wrong: whether its error is over its bound.
        figures: for the JSON file.
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
        name: of the section.
        seconds: its slice; 0 for all the time that is left.
        columns: header of its table.
        rows: makes the rows, the most important first. It runs in the child.
    """

    name: str
    seconds: float
    columns: str
    rows: Callable[[], list[Row]]


@dataclass(eq=False)
class Outcome:
    """What came of a section.

    Attributes:
        rows: figures of each row that ran.
        planned: names of all rows.
        done: names of the rows that ran.
        wrong: number of rows with a wrong result.
        cut: whether it was killed.
        foreign: lines in its pipe that the section did not send.
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
    """Run a section for so many seconds, and return what came of it. No fault of it gets out.

    Args:
        section: the section.
        seconds: its slice.
        add: called with each row as it comes.
        log: file for what the section prints.
        ruined: asked after a row that failed: whether nothing more can run in this process.
        command: if given, the section runs in a new interpreter. The command is called with the words that
            :func:`serve` needs.
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
    """Run the rows that are left in a new process. Return the name of the row that it did not end, and its exit code.

    The exit code of a process that was ended by a signal is minus the signal's number, and None of one that cannot be.
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
    finally:  # also after a good end all was killed: what a compiler has started may still run
        code = reaped(child, ENDS)
    return running, code if ended is None else ended


def _followed(pipe: int, end: float, outcome: Outcome, add: Add) -> tuple[str, int | None]:
    """Take what a child sends. Return the name of the row that it did not end, and the exit code that it announced."""
    running = ""
    for message in _messages(pipe, end):
        if message is None:
            outcome.cut = True
            break
        if "plan" in message:
            outcome.planned = outcome.planned or message["plan"]
        elif "begin" in message:
            running = message["begin"]
        elif "end" in message:  # another process may have inherited the pipe and hold it open
            return running, int(message["end"])
        elif "foreign" in message:
            outcome.foreign.append(message["foreign"])
        else:
            running = ""
            _row(outcome, add, message["name"], message["text"], message["figures"], wrong=message["wrong"])
    return running, None


def _messages(pipe: int, end: float) -> Iterator[dict[str, Any] | None]:
    """Yield what a child sends, line by line, until it closes its end; None if the time is over before that.

    What other programs write into the pipe, which they inherit, comes as a message with the text as its ``foreign``.
    """
    left = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
        if not ready or time.monotonic() > end + LEAST_GRACE:  # who writes without a pause is cut off too
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
    """Run in the child: send the plan, then each row. It never returns."""
    code = 1
    try:
        os.setpgid(0, 0)  # so that the parent can kill all that this process starts
        dies_with_its_parent(parent)
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if command:
            os.set_inheritable(pipe, True)
            more = ["--section", section.name, "--pipe", str(pipe), "--until", repr(until), "--done", json.dumps(done)]
            os.execv(command[0], [*command, *more])
        code = serve(section, until, done, pipe, ruined)
    except BaseException:  # noqa: BLE001 (the log has it, and the exit code tells the parent)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # without the parent's exit handlers


def serve(section: Section, until: float, done: Sequence[str], pipe: int, ruined: Callable[[], bool]) -> int:
    """Run the rows of a section that are not done yet, in this process, and return its exit code."""
    send = _sender(pipe)
    code = _rows(section, until, done, send, ruined)
    send({"end": code})
    return code


def _sender(pipe: int) -> Callable[[dict[str, Any]], None]:
    def send(message: dict[str, Any]) -> None:
        # The first end of a line closes what another program may have written without one.
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
    """Run the rows, and return the exit code."""
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
    """Return the reason for a process's end, from its exit code."""
    if code is None:
        return f"still there {ENDS:.0f} s after SIGKILL"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _last(log: Path, begin: int) -> str:
    """Return the last line of a log after so many bytes, to say why a process died."""
    lines = log.read_bytes()[begin:].decode(errors="replace").strip().splitlines() if log.exists() else []
    return f" ({lines[-1].strip()[:120]})" if lines else ""
