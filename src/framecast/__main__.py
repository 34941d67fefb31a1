"""The command ``framecast``, also as ``python -m framecast``."""

import signal


def main() -> None:
    """Run the command line.

    Its imports take long. Until they are done, and the options are read, there is nothing to clean up. So Ctrl-C ends
    the process, and does not print a traceback of an import.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if it is ignored, as in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from framecast.cli import main as run

    run()


if __name__ == "__main__":
    main()
