"""The command ``framecast``, also as ``python -m framecast``."""

import signal
import sys
import threading
from types import TracebackType


def main() -> None:
    """Run the command line.

    Its imports take long. Until they are done, and the options are read, there is nothing to clean up. So Ctrl-C ends
    the process, and does not print a traceback of an import.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if it is ignored, as in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.excepthook = _show
    threading.excepthook = lambda lost: _show(lost.exc_type, lost.exc_value, lost.exc_traceback)
    from framecast.cli import main as run

    run()


def _show(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Print a traceback, with its causes, without the credentials of addresses: libraries put these into messages."""
    import traceback

    from framecast.redact import redact_message

    lines = traceback.format_exception(kind, error, trace)
    print(redact_message("".join(lines)), end="", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
