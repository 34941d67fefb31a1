"""framecast as a systemd service on a fresh Debian, in a virtual machine with a webcam (Linux's vivid driver).

The commands of ``docs/unattended.md`` ("On a CPU box") install it: from apt's cache and a folder of wheels, since the
machine has no network. Emulation would make that take most of an hour, so those before ``systemctl`` run in the same
Debian as a chroot, unless ``--emulate`` is given. Then the service is killed, stopped, and short of memory, its camera
is unplugged and stalls, and the wall clock jumps.

All times in the machine are of its own clock, under emulation (no KVM): a real one is many times faster, except for
what only waits (RestartSec, WatchdogSec, --stall). Needs root, and the packages that it names if they are missing.

    python benchmarks/guest.py [--emulate]
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from _guest_machine import Machine, MissingError, booted, call_in, debian, disk, share
from _machine import header

ROOT = Path(__file__).resolve().parents[1]
CAMERA = "v4l2:///dev/video0?size=320x180&fps=15"
ADDRESS = "rtsp://user:password@camera/stream"  # the page's example
WAIT = 600.0  # seconds until a wait is given up
VIVID = "modprobe -d /host/root vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0"
BIND = "echo vivid.0 > /sys/bus/platform/drivers/vivid/{}"
PYTHON = "/opt/framecast/bin/python"
STATS = (
    f"{PYTHON} -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:8000/stats.json\").read().decode())'"
)
PLAYS = f"{PYTHON} -c 'import av, sys; print(sum(1 for _ in av.open(sys.argv[1]).decode(video=0)))' "
OUT, PREDICTS = "the camera is out", "predicting"


def commands() -> list[str]:
    """The commands of the page, with this machine's camera."""
    page = (ROOT / "docs" / "unattended.md").read_text()
    block = re.search(r"## On a CPU box\n(?:(?! {4}).*\n)+((?: {4}.*\n)+)", page)
    assert block
    return [line.strip().replace(ADDRESS, CAMERA) for line in block[1].splitlines()]


def row(what: str, figure: str) -> None:
    """Print a row."""
    print(f"{what:58s} {figure}", flush=True)


class Service:
    """The service in the machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def shows(self, name: str) -> str:
        """A property, as systemd says it."""
        return self.machine.call(f"systemctl show framecast --value -p {name}")

    def now(self) -> float:
        """Seconds of the machine's clock, as systemd's own times."""
        return float(self.machine.call("cut -d' ' -f1 /proc/uptime"))

    def ready(self) -> float:
        """When the service became ready: seconds of the machine's clock."""
        return 1e-6 * int(self.shows("ActiveEnterTimestampMonotonic") or 0)

    def wait(self, done: Callable[[], bool]) -> float:
        """Wait until something is true, and return the machine's time."""
        deadline = time.monotonic() + WAIT
        while not done():
            if time.monotonic() > deadline:
                raise RuntimeError(self.machine.run("systemctl status -n 50 framecast")[1])
            time.sleep(0.1)
        return self.now()

    def status(self, begins: str) -> float:
        """Wait until framecast says this of itself, and return the machine's time."""
        return self.wait(lambda: self.shows("StatusText").startswith(begins))

    def stats(self) -> dict[str, object]:
        """The run's report so far."""
        found: dict[str, object] = json.loads(self.machine.call(STATS))
        return found

    def restarted(self, what: str, fault: str, mend: str = "true") -> None:
        """Do something that ends the process, and measure until the new one is ready."""
        self.status(PREDICTS)
        before, restarts = self.now(), int(self.shows("NRestarts"))
        self.machine.call(fault)
        ended = self.wait(lambda: self.shows("NRestarts") != str(restarts))
        self.machine.call(mend)
        self.wait(lambda: self.shows("SubState") == "running" and self.ready() > before)
        why = self.machine.call(
            "journalctl -u framecast -o cat | sed -n \"s/.*Failed with result '\\(.*\\)'.*/\\1/p\" | tail -n 1"
        )
        row(what, f"{ended - before:.1f} s to the restart ({why}), {self.ready() - before:.1f} s to the prediction")

    def outage(self, what: str, fault: str, mend: str) -> None:
        """Take the camera away for a while, and measure how it is noticed and comes back."""
        self.status(PREDICTS)
        process, before = self.shows("MainPID"), self.now()
        self.machine.call(fault)
        noticed = self.status(OUT) - before
        self.machine.call(f"sleep 10; {mend}")
        mended = self.now()
        back = self.status(PREDICTS) - mended
        same = "the same process" if self.shows("MainPID") == process else "ANOTHER PROCESS"
        row(what, f"noticed after {noticed:.1f} s; predicts {back:.1f} s after the end ({same})")

    def undisturbed(self, what: str, fault: Callable[[], object]) -> None:
        """Compare 20 s before and after something that must change nothing."""
        self.status(PREDICTS)
        process, figures = self.shows("MainPID"), []
        for disturb in (lambda: None, fault):
            begun, first = self.now(), self.stats()
            disturb()
            self.machine.call("sleep 20")
            last, passed = self.stats(), self.now() - begun
            rate = (int(str(last["frames"])) - int(str(first["frames"]))) / passed
            figures.append((rate, {name: last[name] for name in ("epochs", "resets", "events")}, last["latency_ms"]))
        (rate, counts, late), (rate_after, counts_after, late_after) = figures
        same = "the same process" if self.shows("MainPID") == process else "ANOTHER PROCESS"
        row(what, f"{rate:.1f} frames/s before, {rate_after:.1f} after ({same})")
        row("  latency before and after, ms", f"{_middle(late)}, {_middle(late_after)}")
        row(
            "  epochs, resets and events before and after",
            "equal" if counts == counts_after else f"{counts}, {counts_after}",
        )


def _middle(latency: object) -> str:
    return str(latency.get("p50")) if isinstance(latency, dict) else "unknown"


def install(call: Callable[[str], object], chosen: list[str], where: str) -> None:
    """Run commands in the clone, and print how long each took."""
    for command in chosen:
        begun = time.monotonic()
        call(f"cd /root/framecast && {command}")
        row(f"$ {command}"[:57], f"{time.monotonic() - begun:.1f} s ({where})")


def faults(machine: Machine) -> None:
    """What happens to a service, and what it makes of it."""
    service = Service(machine)
    started = 1e-6 * int(service.shows("ExecMainStartTimestampMonotonic"))
    service.wait(lambda: service.shows("SubState") == "running")
    row("start to ready", f"{service.ready() - started:.1f} s")
    row("systemd-analyze security", machine.call("systemd-analyze security framecast | tail -n 1").lstrip("→ "))
    service.restarted("kill -9", "systemctl kill -s KILL framecast")
    service.restarted("hang (SIGSTOP); WatchdogSec=60", "systemctl kill -s STOP framecast")
    service.restarted(
        "out of memory (MemoryMax=40M for a while)",
        "systemctl set-property --runtime framecast MemoryMax=40M",
        "systemctl set-property --runtime framecast MemoryMax=4G",
    )
    service.outage("camera unplugged for 10 s", BIND.format("unbind"), BIND.format("bind"))
    control = "v4l2-ctl -d /dev/video0 -c percentage_of_dropped_buffers={}"
    service.outage("camera stalls for 10 s", control.format(100), control.format(0))
    service.undisturbed("wall clock one hour forwards", lambda: machine.call("date -s '+1 hour'"))
    service.undisturbed("wall clock one hour back", lambda: machine.call("date -s '-1 hour'"))
    service.undisturbed("machine paused for 10 s (QEMU's stop and cont)", lambda: pause(machine, 10))
    recording(service)


def pause(machine: Machine, seconds: float) -> None:
    """Stop the whole machine for a while."""
    machine.tell("stop")
    time.sleep(seconds)
    machine.tell("cont")


def recording(service: Service) -> None:
    """Stop a service that records."""
    machine = service.machine
    options = "OPTIONS=--serve 127.0.0.1:8000 --record /var/lib/framecast/run.mkv"
    machine.call(f"sed -i 's!^OPTIONS=.*!{options}!' /etc/default/framecast; systemctl restart framecast")
    service.status(PREDICTS)
    machine.call("sleep 10")
    begun = service.now()
    machine.call("systemctl stop framecast")
    took = service.now() - begun
    frames = machine.call(PLAYS + "/var/lib/framecast/run.mkv")
    code = service.shows("ExecMainStatus")
    row("systemctl stop while it records", f"exit {code} in {took:.1f} s; {frames} frames play")
    if code != "0" or int(frames) < 1:
        raise RuntimeError("the recording does not play, or the service did not end cleanly")


def rebooted(machine: Machine) -> None:
    """After a start of the machine, without and then with a webcam."""
    service = Service(machine)
    service.wait(lambda: int(service.shows("NRestarts")) > 0)
    machine.call(VIVID)
    plugged = service.now()
    row("machine starts, webcam plugged in later: to ready", f"{service.status(PREDICTS) - plugged:.1f} s after it")


def main() -> int:
    """Print the table; 77 if the machine cannot be made here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emulate", action="store_true", help="run every command in the machine (about an hour)")
    arguments = parser.parse_args()
    try:
        fresh = debian()
    except MissingError as error:
        print(error)
        return 77
    share(fresh.parent)
    print(f"{header()}\n", flush=True)
    box, chosen = fresh.with_name("box"), commands()
    shutil.rmtree(box, ignore_errors=True)
    subprocess.run(["cp", "-a", fresh, box], check=True)
    subprocess.run(["cp", "-a", fresh.with_name("clone"), box / "root" / "framecast"], check=True)
    if not arguments.emulate:
        native = [command for command in chosen if "systemctl" not in command]
        install(lambda command: call_in(box, command), native, "in a chroot")
        chosen = chosen[len(native) :]
    boots = disk(box)
    shutil.rmtree(box)
    with booted(boots) as machine:
        system = machine.call("systemctl --version | head -n 1; uname -r; . /etc/os-release; echo $PRETTY_NAME")
        row("the machine", f"{', '.join(system.splitlines())}; 2 cores by emulation (QEMU's TCG)")
        machine.call(VIVID)
        install(machine.call, chosen, "under emulation")
        faults(machine)
    with booted(boots) as machine:
        rebooted(machine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
