"""Sends the prediction to an address from a process of its own.

PyAV holds Python's lock while FFmpeg waits for a receiver. One that accepts and says nothing, or says a byte now and
then, would stop a whole process. Here it stops only the sender, which is then killed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from framecast.errors import SinkError, SinkUnavailableError
from framecast.redact import redact
from framecast.runtime.sinks.out import PATIENCE, OutSink, check_out
from framecast.runtime.sinks.sink import Output, Result, Sink

START = 30.0  # seconds that Python may take to start
LONGEST = 1.5 * PATIENCE  # seconds for a picture: FFmpeg gives up before, unless it gets a byte now and then


class ApartSink(Sink):
    """An :class:`OutSink` in a process of its own. No method keeps the lock of Python while it waits.

    Args:
        target: as for :class:`OutSink`.
        fps: nominal frames a second.

    Raises:
        OptionError: the address is none that pictures can be sent to.
        SinkError: the process cannot be started.
    """

    def __init__(self, target: str, fps: float) -> None:
        check_out(target)
        self._name = redact(target)
        self._output = Output(
            asked=self._name, to=self._name, codec=None, files=0, removed=0, lost=0, missed=0, trouble=None
        )
        self._pipe, theirs = Pipe()
        # The same modules as in this process; the address has a password, which a command line would show.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({theirs.fileno()})"
        try:
            self._process = subprocess.Popen(  # noqa: S603 (this Python, and our own code)
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C reaches only the run
            )
        except OSError as error:
            self._pipe.close()
            raise SinkUnavailableError(f"cannot send pictures to {self._name}: {error.strerror}") from None
        finally:
            theirs.close()
        self._ask((target, fps), START)

    def written(self) -> Output | None:
        """See :meth:`Sink.written`."""
        return self._output

    def show(self, result: Result) -> None:
        """See :meth:`Sink.show`."""
        self._ask((result.prediction.image, result.frame.time, result.concealed), LONGEST)

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        if self._pipe.closed:
            return
        try:
            self._ask(None, LONGEST)
        finally:
            self._end()

    def _ask(self, message: object, patience: float) -> None:
        """Send a message and wait for its answer; whatever is wrong ends the process."""
        try:
            self._pipe.send(message)
            if not self._pipe.poll(patience):
                raise SinkUnavailableError(
                    f"lost {self._name}: no answer for {patience:g} s (check what receives it, and the network)"
                )
            answer = self._pipe.recv()
        except (OSError, EOFError):
            self._end()
            raise SinkUnavailableError(f"lost {self._name}: its process has ended (see the system's log)") from None
        except SinkError:
            self._end()
            raise
        if isinstance(answer, SinkError):
            self._end()
            raise answer
        self._output = answer

    def _end(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.wait()


def serve(descriptor: int) -> None:
    """Send what comes through a socket, in this process, until it ends. Each message is answered."""
    pipe = Connection(descriptor)
    for number in (signal.SIGTERM, signal.SIGINT):  # systemd sends them to all processes: the run decides when to end
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends a process that waits in FFmpeg after the run was killed
    with suppress(EOFError, OSError):  # the run is gone
        target, fps = pipe.recv()
        try:
            sink = OutSink(target, fps)
            pipe.send(sink.written())
            while (message := pipe.recv()) is not None:
                picture, time, concealed = message
                signal.setitimer(signal.ITIMER_REAL, 2 * LONGEST)
                sink.send(picture, time, concealed=concealed)
                signal.setitimer(signal.ITIMER_REAL, 0)
                pipe.send(sink.written())
            signal.setitimer(signal.ITIMER_REAL, 2 * LONGEST)
            sink.close()
            pipe.send(sink.written())
        except SinkError as error:
            pipe.send(error)
