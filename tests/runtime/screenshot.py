"""Take a screenshot of a running page, as for docs/page.png: ``python -m tests.runtime.screenshot URL FILE``.

Start the run first: ``framecast run demo --ahead 150ms --serve --loop``.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

# Beside this file; pytest's importlib mode puts no test folder on the path.
from .browser import browse  # noqa: TID252


async def screenshot(url: str, file: Path, view: str, scheme: str, size: tuple[int, int], seconds: float) -> None:
    """Open the page, choose a view, wait ``seconds``, and take the screenshot."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # the browser may still write there
        async with browse(Path(folder)) as page:
            await page.scheme(scheme)
            await page.resize(*size)
            await page.open(url)
            await page.wait_until("document.body?.dataset.frames > 0")
            await page.look(view)
            await asyncio.sleep(seconds)
            await page.screenshot(file)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("file", type=Path)
    parser.add_argument("--view", default="errors", choices=["late", "now", "slider", "beside", "errors", "film"])
    parser.add_argument("--scheme", default="dark", choices=["light", "dark"])
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 900), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds before the screenshot (default: 20)")
    given = parser.parse_args()
    asyncio.run(screenshot(given.url, given.file, given.view, given.scheme, tuple(given.size), given.seconds))


if __name__ == "__main__":
    main()
