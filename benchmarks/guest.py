"""framecast as a systemd service on a fresh Debian, in a virtual machine with a webcam (Linux's vivid driver).

The commands of ``docs/unattended.md`` ("On a CPU box") install it: from apt's cache and a folder of wheels, since the
machine has no network. Emulation would make that take most of an hour, so those before ``systemctl`` run in the same
Debian as a chroot, unless ``--emulate`` is given; the disk is kept for the next run of the same code. Then the
service is killed, stopped, and short of memory, its camera is unplugged and stalls, the wall clock jumps, the machine
is suspended and starts again. Each step has a limit; one that fails is a row, and the next one finds the service as it
should be. ``out/guest`` has the console, every command with its output, and the journal.

All times in the machine are of its own clock, under emulation (no KVM): a real one is many times faster, except for
what only waits (RestartSec, WatchdogSec, --stall). Needs root, and the packages that it names if they are missing.

    python benchmarks/guest.py [--emulate] [--patience FACTOR] [STEP…]

Exit code 1 if a row is not as expected; 77 if the machine cannot be made here.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import _guest_disk as disk
from _guest_machine import BOOT, GuestError, Machine, StuckError
from _guest_service import Service, Table
from _guest_steps import STEPS, Step, enabled, rebooted
from _machine import header

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "out" / "guest"
CAMERA = "v4l2:///dev/video0?size=320x180&fps=15"
ADDRESS = "rtsp://user:password@camera/stream"  # the page's example
ENABLE = 600.0  # seconds for the step that starts the service
EMULATED = 3600.0  # seconds for a command of the page in the machine
REBOOT = ("reboot", 900.0)  # a step, and its limit in seconds
Install = list[tuple[str, float]]  # commands, and the seconds that they took

sys.path.insert(0, str(ROOT))  # for tests


def commands() -> list[str]:
    """The commands of the page, with this machine's camera."""
    page = (ROOT / "docs" / "unattended.md").read_text()
    block = re.search(r"## On a CPU box\n(?:(?! {4}).*\n)+((?: {4}.*\n)+)", page)
    assert block
    return [line.strip().replace(ADDRESS, CAMERA) for line in block[1].splitlines()]


def installed(work: Path, native: list[str]) -> tuple[Path, Install, str]:
    """A disk of a fresh Debian in which commands of the page have run, in a chroot; kept for the next run.

    Args:
        work: the folder of the disks.
        native: the commands; none for a disk with only the clone.

    Returns:
        The disk, what each command took, and when that was.
    """
    fresh, (copy, digest) = disk.debian(work), disk.clone(work)
    key = hashlib.sha256(repr((fresh.name, digest, native)).encode()).hexdigest()[:12]
    image, notes = work / f"box-{key}.img", work / f"box-{key}.json"
    if image.exists() and notes.exists():
        took, when = json.loads(notes.read_text())
        return image, [(command, seconds) for command, seconds in took], when
    for old in work.glob("box*"):
        disk.call("rm", "-rf", "--one-file-system", str(old))
    disk.wheels(work)
    box = work / "box"
    disk.call("cp", "-a", str(fresh), str(box))
    disk.call("cp", "-a", str(copy), str(box / "root" / "framecast"))
    took = []
    for command in native:
        begun = time.monotonic()
        disk.call_in(box, f"cd /root/framecast && {command}")
        took.append((command, time.monotonic() - begun))
    disk.filled(box, image)
    shutil.rmtree(box)
    when = time.strftime("%Y-%m-%d")
    notes.write_text(json.dumps([took, when]))
    return image, took, when


class Guest:
    """The machine, started again whenever it has ended.

    Args:
        image: its disk, which it changes.
        patience: a factor of all limits.
    """

    def __init__(self, image: Path, patience: float) -> None:
        self._image, self._patience = image, patience
        self._machine: Machine | None = None

    def machine(self) -> Machine:
        """The machine, booted if it is not."""
        if self._machine is None:
            self._machine = Machine(self._image, LOGS, self._patience)
        return self._machine

    def end(self, how: str | None = None) -> bool:
        """Shut it down (see :meth:`Machine.shut`), or take its power away. Returns whether it went by itself."""
        machine, self._machine = self._machine, None
        if machine is None:
            return False
        if how is not None:
            return machine.shut(how)
        machine.kill()
        return False

    def attempt(self, name: str, limit: float, step: Step, table: Table, *, usual: bool = False) -> bool:
        """Take a step within a limit. One that fails is a row of the table, and the next one can go on.

        Args:
            name: of the step.
            limit: seconds.
            step: what to do.
            table: for the rows.
            usual: whether the service must first be as the page has installed it.

        Returns:
            Whether it was taken to its end, whatever its rows say.
        """
        begun, taken = time.monotonic(), False
        try:
            machine = self.machine()
            service = Service(machine)
            machine.deadline = begun + limit * self._patience
            if usual:
                service.usual()
            step(service, table)
            taken = True
        except (RuntimeError, ValueError, LookupError, OSError) as error:
            table.row(name, f"FAILED after {time.monotonic() - begun:.0f} s: {_line(error)}", "no failure", False)
            if isinstance(error, StuckError):
                self.end()
        with (LOGS / "steps.log").open("a") as log:
            log.write(f"{name}: {time.monotonic() - begun:.0f} s\n")
        return taken

    def note(self) -> None:
        """Keep the machine's journal."""
        if self._machine is not None:
            self._machine.deadline = None
            with contextlib.suppress(GuestError):
                journal = self._machine.run("journalctl -b -q --no-hostname -o short-monotonic | tail -n 3000")[1]
                with (LOGS / "journal.log").open("a") as log:
                    log.write(f"{journal}\n")


def _line(error: Exception) -> str:
    return " ".join(f"{error}".split())[:300] or error.__class__.__name__


def faults(guest: Guest, table: Table, chosen: list[str]) -> None:
    """All steps, or those that are chosen, and then a start of the machine."""
    for name, limit, step in STEPS:
        if not chosen or name in chosen:
            guest.attempt(name, limit, step, table, usual=True)
    if chosen and REBOOT[0] not in chosen:
        return
    guest.attempt("back to the usual", REBOOT[1], lambda _, __: None, table, usual=True)
    guest.note()
    clean = guest.end("reboot")
    table.row("systemctl reboot", "shut down" if clean else "DID NOT END", "the machine shuts down by itself", clean)
    guest.attempt(*REBOOT, rebooted, table)


def main() -> int:
    """Print the table; 77 if the machine cannot be made here."""
    names = [name for name, _, _ in STEPS] + [REBOOT[0]]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--emulate", action="store_true", help="run every command in the machine (about an hour)")
    parser.add_argument("--patience", type=float, default=1.0, metavar="FACTOR", help="of all limits, if it is busy")
    arguments = parser.parse_args()
    if unknown := set(arguments.steps) - set(names):
        parser.error(f"no step {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # the machine must not outlive this
    begun = time.monotonic()
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    try:
        work = disk.folder()
        with disk.alone(work):
            wrong = run(work, arguments.steps, emulate=arguments.emulate, patience=arguments.patience)
    except disk.MissingError as error:
        print(error)
        return 77
    print(f"\n{time.monotonic() - begun:.0f} s; not as expected: {', '.join(wrong) or 'nothing'}")
    return 1 if wrong else 0


def run(work: Path, chosen: list[str], *, emulate: bool, patience: float) -> list[str]:
    """Make the disk, take the steps, and return the rows that are not as expected."""
    from tests.runtime.test_watchdog import endless

    print(f"{header()}\n", flush=True)
    listed, table = commands(), Table()
    native = [] if emulate else [command for command in listed if "systemctl" not in command]
    image, took, when = installed(work, native)
    for command, seconds in took:
        table.row(f"$ {command}"[:52], f"{seconds:.1f} s (in a chroot, {when})", "exit code 0", True)
    endless(work / "endless.onnx")
    used = work / "used.img"
    disk.call("cp", "--sparse=always", str(image), str(used))
    guest = Guest(used, patience)
    try:
        if not guest.attempt("boot", BOOT, booted, table):
            return table.wrong
        for command in [command for command in listed if command not in native and "systemctl" not in command]:
            guest.attempt(command, EMULATED, typed(command), table)
        guest.attempt("enable", ENABLE, enabled([command for command in listed if "systemctl" in command]), table)
        faults(guest, table, chosen)
        guest.note()
        guest.end("poweroff")
    finally:
        guest.end()
        used.unlink()
    return table.wrong


def typed(command: str) -> Step:
    """A step that runs a command of the page in the machine."""

    def step(service: Service, table: Table) -> None:
        begun = time.monotonic()
        service.machine.call(f"cd /root/framecast && {command}", EMULATED)
        table.row(f"$ {command}"[:52], f"{time.monotonic() - begun:.1f} s (under emulation)", "exit code 0", True)

    return step


def booted(service: Service, table: Table) -> None:
    """Say what has booted."""
    system = service.machine.call("systemctl --version | head -n 1; uname -r; . /etc/os-release; echo $PRETTY_NAME")
    state = service.machine.run("systemctl is-system-running --wait")[1]
    what = f"{', '.join(system.splitlines())}; 2 cores by emulation (QEMU's TCG)"
    table.row("the machine starts", f"{state}; {what}", "running", state == "running")


if __name__ == "__main__":
    sys.exit(main())
