"""How far a command is: a bar where there is a terminal, or else a line now and then. Both go to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

REDRAWN = 0.1  # seconds between drawings of the bar
SAID = 30.0  # seconds between lines where there is no terminal

Show = Callable[[float | None, str], None]  # share that is done (None where that is not known), and a few words


def say(line: str) -> None:
    """Tell how far a command is, beside what it prints."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(*, silent: float = SAID) -> Iterator[Show]:
    """Yield what shows the progress.

    The bar is drawn inside those calls only: no thread runs beside work that may be measured.

    Args:
        silent: seconds before the first line where there is no terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    drawn = time.monotonic()
    if not console.is_terminal:
        drawn += silent - SAID

        def line(share: float | None, words: str) -> None:
            nonlocal drawn
            if time.monotonic() - drawn >= SAID:
                drawn = time.monotonic()
                say(words if share is None else f"{share:6.1%}  {words}")

        yield line
        return
    columns = (BarColumn(20), TaskProgressColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=None)
        drawn -= REDRAWN

        def draw(share: float | None, words: str) -> None:
            nonlocal drawn
            if time.monotonic() - drawn >= REDRAWN or share == 1:
                drawn = time.monotonic()
                bar.update(task, completed=share or 0, total=None if share is None else 1.0, description=words)
                bar.refresh()

        yield draw
