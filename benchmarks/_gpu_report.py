"""Results of ``gpu_check.py``, shown and saved as they arrive."""

from __future__ import annotations

import fcntl
import json
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from _gpu_process import terminable
from _gpu_run import Outcome, Section, run_section

# A target, and where its figure is: description, section, row, figure, bound, whether less is better.
Target = tuple[str, str, str, str, float, bool]

NOT_MEASURED = {"cut", "not_run", "device", "version"}  # a row with one of these figures measured nothing


class Unusable(Exception):  # noqa: N818 (not a programming error)
    """Results cannot be written to a folder. The message says why."""


class Report:
    """Prints the results as they arrive, and saves them.

    Attributes:
        failures: number of rows with a wrong result.
        measured: number of completed rows, except wrong ones and those that only describe the machine.

    Args:
        folder: folder for the table, the figures, and a log of the sections' output.
        seconds: time limit for all sections together.

    Raises:
        Unusable: the folder cannot be made, or another run is writing to it.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.failures = self.measured = 0
        self._folder, self._seconds, self._begun = folder, seconds, time.monotonic()
        self._stem = "gpu"
        self._text: list[str] = []
        self._figures: dict[str, Any] = {}
        self._log = folder / "gpu.log"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._log.open("ab")  # held while this process or one of its sections lives
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unusable(
                f"another run is writing to {folder} ({self._log.name} is locked): wait, or name another --out"
            ) from error
        except OSError as error:
            raise Unusable(f"cannot write {error.filename or folder}: {error.strerror}") from error
        self._lock.truncate(0)

    @property
    def code(self) -> int:
        """The exit code: 1 if a row is wrong, or if nothing was measured."""
        return 1 if self.failures or not self.measured else 0

    def run(self, sections: Sequence[Section], ruined: Callable[[], bool], command: Sequence[str] = ()) -> None:
        """Run sections, each within its share of the time. A section without a slice gets the time that is left.

        Unused time goes to the sections without a slice. An overrun shortens all later sections.
        """
        with terminable():
            self._run(sections, ruined, command)

    def _run(self, sections: Sequence[Section], ruined: Callable[[], bool], command: Sequence[str]) -> None:
        whole = waiting = sum(section.seconds for section in sections)
        for section in sections:
            left = seconds = max(0.0, self._seconds - (time.monotonic() - self._begun))
            if section.seconds:
                seconds = section.seconds * min(self._seconds / whole, left / waiting)
                waiting -= section.seconds
            self.say(f"\n{section.name} ({seconds:.0f} s)" + (f": {section.columns}" if section.columns else ""))
            if seconds <= 0:
                self.say("not run: out of time")
                self._figures[section.name] = {"seconds": 0.0, "cut": False, "rows": [], "not_run": ["all"]}
                continue
            add = partial(self._add, section.name)
            self._note(section.name, run_section(section, seconds, add, self._log, ruined, command))

    def rows(self, section: str) -> list[dict[str, Any]]:
        """Return the figures of a section's completed rows."""
        rows: list[dict[str, Any]] = self._figures.get(section, {}).get("rows", [])
        return rows

    def say(self, text: str) -> None:
        """Print a text, and save all output so far."""
        print(text, flush=True)
        self._text.append(text)
        path = self._folder / f"{self._stem}.txt"
        path.write_text("\n".join(self._text).strip() + "\n")
        path.with_suffix(".json").write_text(json.dumps(self._figures, indent=1, default=str) + "\n")

    def _add(self, name: str, outcome: Outcome, text: str, figures: dict[str, Any], wrong: bool) -> None:
        self.failures += wrong
        self.measured += not wrong and not NOT_MEASURED & figures.keys()
        self._figures[name] = {"rows": outcome.rows}
        if "device" in figures:
            for suffix in (".txt", ".json"):
                (self._folder / f"{self._stem}{suffix}").unlink(missing_ok=True)
            self._stem = "gpu-" + re.sub(r"[^a-z0-9]+", "-", figures["device"].lower()).strip("-")
        self.say(text + ("   WRONG" if wrong else ""))

    def _note(self, name: str, outcome: Outcome) -> None:
        figures = {"seconds": round(outcome.seconds, 1), "cut": outcome.cut, "rows": outcome.rows}
        self._figures[name] = figures | {"not_run": outcome.missing}
        if missing := outcome.missing:
            shown = "; ".join(missing[:8]) + (f"; and {len(missing) - 8} more" if len(missing) > 8 else "")
            self.say(f"not run, out of time: {shown}")
        if foreign := outcome.foreign:
            self.say(f"{len(foreign)} lines in the pipe came from other programs; the first: {foreign[0]}")
        self.say(f"{name}: {len(outcome.done)} rows in {outcome.seconds:.1f} s, {outcome.wrong} wrong")

    def compare(self, targets: Sequence[Target]) -> None:
        """Print each target and the measured value."""
        self.say("\ntargets")
        for what, section, row, figure, bound, less in targets:
            value = next(
                (found[figure] for found in self.rows(section) if found["row"] == row and figure in found), None
            )
            wanted = f"{what}: {'at most' if less else 'at least'} {bound:g}"
            if value is None:
                self.say(f"{wanted}; not run")
            else:
                met = value <= bound if less else value >= bound  # NaN never meets a bound
                self.say(f"{wanted}; {value:.3g}{'' if met else '   missed'}")
        nothing = "" if self.measured else "; nothing was measured"
        self.say(f"\n{self.failures} wrong, in {time.monotonic() - self._begun:.0f} s{nothing}")
