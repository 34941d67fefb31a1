"""Progress of a command on stderr: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

REDRAWN = 0.1  # seconds between updates of the bar
PRINTED = 30.0  # seconds between lines without a terminal

Show = Callable[[float | None, str], None]  # fraction done (None if unknown), and a few words


def say(line: str) -> None:
    """Print a line about the progress to stderr."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(*, silent: float = PRINTED) -> Iterator[Show]:
    """Yield a function that shows the progress.

    The bar is drawn only inside its calls, so that no thread disturbs work that may be measured.

    Args:
        silent: seconds before the first line without a terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    drawn = time.monotonic()
    if not console.is_terminal:
        drawn += silent - PRINTED

        def line(share: float | None, words: str) -> None:
            nonlocal drawn
            if time.monotonic() - drawn >= PRINTED:
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
