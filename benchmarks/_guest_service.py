"""The service in the virtual machine, as systemd and framecast describe it; and the table of what it does."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from _guest_machine import LIMIT, GuestError, Machine

POLL = 1.0  # seconds between two looks: each costs the machine a part of its processor
WAIT = 300.0  # seconds until a wait is given up
PREDICTS, OUT = "predicting", "out for"  # how framecast's status begins
SHOWN = (
    "ActiveState,SubState,Result,StatusText,MainPID,NRestarts,ExecMainStatus,"
    "ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic"
)
VIVID = "modprobe -d /host/root vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0"
BIND = "echo vivid.0 > /sys/bus/platform/drivers/vivid/{}"
DROPS = "v4l2-ctl -d /dev/video0 -c percentage_of_dropped_buffers={}"
# The time of CLOCK_MONOTONIC in ns, as systemd's stamps: /proc/uptime also counts while the machine is suspended.
CLOCK = "sed -n '/^now at/{s/[^0-9]//g;p;q}' /proc/timer_list"
USUAL = "--serve 127.0.0.1:8000"  # OPTIONS of the page
# By bash: the machine has no curl, and Python would take seconds of its processor.
STATS = (
    "bash -c 'exec 3<>/dev/tcp/127.0.0.1/8000; "
    'printf "GET /stats.json HTTP/1.0\\r\\nHost: 127.0.0.1:8000\\r\\n\\r\\n" >&3; cat <&3\' | sed "1,/^\\r*$/d"'
)


@dataclass
class Table:
    """What was done, how often, what was measured, what was expected, and whether it is that.

    Attributes:
        wrong: the rows that are not as expected.
    """

    wrong: list[str] = field(default_factory=list)

    def row(self, what: str, measured: str, expected: str, right: bool, times: int = 1) -> None:
        """Print a row."""
        verdict = "ok" if right else "WRONG"
        if not right:
            self.wrong.append(what)
        print(f"{verdict:6s}{times:2d} x  {what:52s} {measured}\n{'':62s} expected: {expected}", flush=True)


@dataclass(frozen=True)
class State:
    """The service at a moment of the machine's clock (seconds since it started)."""

    now: float
    shown: dict[str, str]

    @property
    def predicts(self) -> bool:
        """Whether it runs and says that it predicts."""
        return self.shown["SubState"] == "running" and self.shown["StatusText"].startswith(PREDICTS)

    @property
    def out(self) -> bool:
        """Whether it says that its camera is out."""
        return self.shown["StatusText"].startswith(OUT)

    @property
    def restarts(self) -> int:
        """How often systemd has restarted it."""
        return int(self.shown["NRestarts"])

    @property
    def process(self) -> str:
        """Its process."""
        return self.shown["MainPID"]

    @property
    def started(self) -> float:
        """When its process started, as ``now``."""
        return 1e-6 * int(self.shown["ExecMainStartTimestampMonotonic"] or 0)

    @property
    def ready(self) -> float:
        """When it became active, as ``now``."""
        return 1e-6 * int(self.shown["ActiveEnterTimestampMonotonic"] or 0)

    def __str__(self) -> str:
        names = ("ActiveState", "SubState", "Result", "NRestarts", "StatusText")
        return ", ".join(f"{name}={self.shown[name]}" for name in names)


class Service:
    """The service in a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._configured = 0.0  # when it was started with other settings

    def state(self) -> State:
        """Look at it."""
        clock, *lines = self.machine.call(f"{CLOCK}; systemctl show framecast -p {SHOWN}").splitlines()
        shown = dict.fromkeys(SHOWN.split(","), "") | dict(line.split("=", 1) for line in lines if "=" in line)
        return State(1e-9 * int(clock), shown)

    def wait(self, done: Callable[[State], bool], what: str, limit: float = WAIT) -> State:
        """Wait until something is true of it, and return its state then.

        Args:
            done: whether it is true.
            what: in words, for the error.
            limit: seconds.

        Raises:
            GuestError: it does not happen.
        """
        deadline = time.monotonic() + limit * self.machine.patience
        while not done(state := self.state()):
            if time.monotonic() > deadline:
                raise GuestError(f"not seen in {limit * self.machine.patience:g} s: {what} ({state})")
            time.sleep(POLL)
        return state

    def predicts(self, after: float = 0.0) -> State:
        """Wait until it predicts, by a process that is younger than a moment."""
        after = max(after, self._configured)
        return self.wait(lambda state: state.predicts and state.ready >= after, "a prediction")

    def do(self, command: str, limit: float = LIMIT) -> float:
        """Run a command in the machine within a limit in seconds, and return the machine's time just before."""
        return 1e-9 * int(self.machine.call(f"{CLOCK}; {command}", limit).splitlines()[0])

    def stats(self) -> dict[str, object]:
        """The run's report so far, from its page."""
        text = self.machine.call(STATS)
        try:
            found: dict[str, object] = json.loads(text)
        except ValueError as error:
            raise GuestError(f"the page gives no report: {text[:200]}") from error
        return found

    def journal(self, since: float, pick: str) -> list[str]:
        """The journal's lines since a moment of the machine's clock that have a text."""
        text = self.machine.call("journalctl -b -u framecast -o short-monotonic --no-hostname -q | tail -n 2000")
        found = []
        for line in text.splitlines():
            stamp, _, rest = line.lstrip("[ ").partition("]")
            with contextlib.suppress(ValueError):
                if float(stamp) >= since and pick in rest:
                    found.append(rest.split(": ", 1)[-1].strip())
        return found

    def usual(self) -> None:
        """Bring it and its camera back to what the page installs, whatever a step has left; not yet predicting."""
        self.machine.tell("cont")
        there = "test -e /dev/video0"
        plugged = f"{there} || {{ {VIVID}; {there} || {BIND.format('bind')}; }}"
        limits = "rm -rf /run/systemd/system.control/framecast.service.d; systemctl daemon-reload"
        self.machine.call(f"{plugged}; {DROPS.format(0)}; {limits}")
        lines = ("MODEL=edge", "ENGINE=auto", f"OPTIONS={USUAL}")
        active = self.state().shown["ActiveState"] in ("active", "activating")
        if not active or self.machine.call("cat /etc/default/framecast").splitlines() != list(lines):
            self.configure(*lines)

    def configure(self, *settings: str) -> float:
        """Start it with other lines of /etc/default/framecast, without waiting, and return the moment before."""
        lines = " ".join(f"'{line}'" for line in settings)
        self._configured = self.do(
            f"printf '%s\\n' {lines} > /etc/default/framecast; systemctl reset-failed framecast; "
            "systemctl --no-block restart framecast"
        )
        return self._configured
