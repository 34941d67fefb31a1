"""Tells systemd how a run is: ready, alive, or what it waits for (sd_notify(3)).

This is our own code: the package ``sdnotify`` has no wheel, waits where systemd does not read, and leaves the socket's
name to the programs that framecast starts.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import MutableMapping

from framecast.clock import SYSTEM, Clock
from framecast.runtime.fleet_report import Total
from framecast.runtime.report import Report
from framecast.runtime.sinks.health import PATIENCE
from framecast.runtime.sinks.sink import Result, Sink
from framecast.runtime.watchdog import COMPILING

PING = 1.0  # seconds between two pings, at least: systemd need not hear of each frame
NEWS = 5.0  # seconds between two status lines that say the same with other figures

_log = logging.getLogger(__name__)


class Systemd(Sink):
    """Tells systemd what a run does. Does nothing if systemd does not ask, which it does in the environment.

    The run is ready with its first prediction, or once it is known that the camera is out: systemd would otherwise end
    and start framecast for as long as a camera is off.

    Two things ping the watchdog: a new prediction; and, while the camera is known to be out, another attempt to open
    it. No timer does: a run that neither predicts nor tries is ended, whatever its threads do.

    Args:
        environ: the environment. What systemd wrote there is removed, as it is not meant for our child processes.
        pid: of this process: the watchdog may be meant for another one.
        first: seconds that the first frame and its step may take.
        clock: measures the pings.

    Attributes:
        limit: seconds without a ping after which systemd ends the process; None if it has no watchdog.
    """

    def __init__(
        self, environ: MutableMapping[str, str], *, pid: int, first: float = 0.0, clock: Clock = SYSTEM
    ) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        limit, meant_for = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self.limit = 1e-6 * int(limit) if address and limit.isdecimal() and meant_for in ("", str(pid)) else None
        self._address = "\0" + address[1:] if address.startswith("@") else address  # Linux's abstract sockets
        self._first, self._clock = first, clock
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)  # systemd's queue may be full, and frames do not wait for it
        self._ready = self._predicted = self._stopping = False
        self._pinged = self._told = -NEWS
        self._out = 0.0  # since when the camera is out
        self._attempts = 0
        self._status = ""
        self._tell("STATUS=loading the model")

    def caution(self, **waits: float) -> str | None:
        """A warning if the watchdog is shorter than something that the run may wait for; None if all is well.

        Args:
            waits: seconds, by the names of their options.
        """
        option, longest = max(waits.items(), key=lambda wait: wait[1])
        if self.limit is None or self.limit > longest:
            return None
        option = option.replace("_", "-")
        return (
            f"systemd's watchdog ends the run after {self.limit:g} s, but --{option} lets it wait for {longest:g} s: "
            "raise WatchdogSec"
        )

    def show(self, result: Result) -> None:
        """Take note of a result; only a new frame counts. See :meth:`Sink.show`."""
        if not result.new:
            return
        if not self._predicted and self.limit is not None and self._ready:
            self._tell(f"WATCHDOG_USEC={round(1e6 * self.limit)}")  # the first step is done: from now on the usual
        self._predicted = True
        self._progress()

    def look(self, report: Report | Total) -> None:
        """Take note of the run's report, or of the total of several cameras. Call it a few times a second."""
        now, trouble = self._clock.now(), report["trouble"]
        if self._socket is None or self._stopping:
            return
        if trouble is not None:
            if report["attempts"] != self._attempts:
                self._attempts = report["attempts"]
                self._progress()
            if self._status != "out":
                self._out = now
            kind, line = "out", f"out for {now - self._out:.0f} s: {trouble}; trying again"
        elif not report["frames"]:
            kind, line = "first", f"waiting for the first frame of {report['source']}"
        elif report["silent_s"] >= PATIENCE:
            kind, line = "silent", f"no frame for {report['silent_s']:.0f} s from {report['source']}"
        else:
            kind = "running"
            line = (
                f"predicting {report['source']} with {report['model']} on {report['engine']}: {report['frames']} frames"
            )
            if count := report["events"].get("reconnects"):
                line += f", {count} reconnections"
        if kind != self._status or now - self._told >= NEWS:
            starting = kind == "first" and kind != self._status and not self._ready
            more = f"\nEXTEND_TIMEOUT_USEC={round(1e6 * self._first)}" if starting and self._first else ""
            self._status, self._told = kind, now
            self._tell(f"STATUS={' '.join(line.split())}{more}")

    def stopping(self) -> None:
        """Say that the run ends: at once when it is asked to. May be called twice, and from a signal's handler."""
        if not self._stopping:
            self._stopping = True
            self._tell("STOPPING=1\nSTATUS=closing the outputs")

    def hold(self, reason: str, seconds: float) -> None:
        """Wait before the run ends with an error, because systemd starts it again soon after its end.

        Without systemd nothing starts it again, and it does not wait.

        Args:
            reason: why; the service's status shows it meanwhile.
            seconds: to wait.
        """
        if self._socket is None:
            return
        self._tell(f"STATUS=ends in {seconds:.0f} s: {' '.join(reason.split())}")
        self._clock.wait_until(self._clock.now() + seconds)

    def close(self) -> None:
        """Say that the run ends, and nothing after that."""
        self.stopping()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _progress(self) -> None:
        now = self._clock.now()
        if not self._ready:
            longer = ""
            if not self._predicted and self.limit is not None:  # the camera is out; the first step is still to come
                longer = f"\nWATCHDOG_USEC={round(1e6 * max(self.limit, self._first))}"
            self._ready = self._tell(f"READY=1{longer}")
        if self.limit is not None and now - self._pinged >= min(PING, self.limit / 4) and self._tell("WATCHDOG=1"):
            self._pinged = now

    def _tell(self, message: str) -> bool:
        """Send a message; whether it was sent. What was not is sent again with the next progress."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            _log.info("cannot tell systemd %s: %s", message.splitlines()[0], error)
            return False
        return True


def longest_start(timeout: float, step_limit: float) -> float:
    """Seconds that a run may take to its first prediction once it has begun.

    Args:
        timeout: seconds for the first frame.
        step_limit: seconds for a step; the first one may compile.
    """
    return timeout + COMPILING * step_limit
