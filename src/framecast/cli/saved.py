"""The report as a file, which is up to date while the run goes on."""

from __future__ import annotations

import errno
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from framecast.errors import SinkError
from framecast.files import read_regular, write
from framecast.runtime.fleet_report import FleetReport
from framecast.runtime.report import Report, to_json

EVERY = 60.0  # seconds
LONGEST = 1 << 20  # bytes: no report is longer


def check_replaced(path: Path) -> None:
    """Check that what is there already is an earlier report.

    Raises:
        SinkError: it is something else.
    """
    try:
        found = read_regular(path, LONGEST)
    except OSError as error:
        if error.errno != errno.EFBIG:  # nothing is there; or it cannot be read, and writing will tell why
            return
        found = b"too large"
    if found and not (found.lstrip().startswith(b"{") and b'"psnr_db"' in found):
        raise SinkError(f"cannot write {path}: it is there, and is no report of framecast (choose another name)")


class SavedReport:
    """Writes the newest report each minute, in a thread of its own, and at the end. Use it in a ``with``.

    A disk that is full meanwhile is no error: only the last write counts.

    Args:
        path: of the file. An earlier report there is replaced by the first write.

    Attributes:
        whole: whether the newest report is in the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.whole = path, False
        self._newest: Report | FleetReport | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="framecast-report", daemon=True)

    def put(self, report: Report | FleetReport) -> None:
        """Leave the newest report, and return at once."""
        self._newest = report

    def finish(self) -> None:
        """Write the newest report now, if there is one.

        Raises:
            SinkError: it cannot be written.
        """
        if self._newest is not None:
            self.whole = False
            write(self.path, f"{to_json(self._newest, indent=2)}\n".encode())
            self.whole = True

    def _run(self) -> None:
        while not self._end.wait(EVERY):
            with suppress(SinkError):
                self.finish()

    def __enter__(self) -> SavedReport:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
