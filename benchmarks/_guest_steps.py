"""What happens to the service in the virtual machine: each step causes something, and adds its rows to the table."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

from _guest_service import BIND, CLOCK, DROPS, USUAL, VIVID, WAIT, Service, State, Table

PLAYS = "/opt/framecast/bin/python -c 'import av, sys; print(sum(1 for _ in av.open(sys.argv[1]).decode(video=0)))' "
RECORDINGS = "/var/lib/framecast"
BOX = f"""now = true
serve = "127.0.0.1:8000"
record = ["{RECORDINGS}/run.mkv"]
segment = "10min"
keep = "1GB"
json = "{RECORDINGS}/report.json"
conceal = "500ms"
log = "json"
"""
Step = Callable[[Service, Table], None]


def enabled(commands: list[str]) -> Step:
    """A step that takes the page's last commands: it starts the service, and shows its status."""

    def step(service: Service, table: Table) -> None:
        service.machine.call(VIVID)
        enable, *others = commands
        before = service.do(f"cd /root/framecast && {enable}", WAIT)
        returned = service.state()
        state = service.predicts()
        for command in others:
            service.machine.call(command)
        table.row(
            f"$ {enable}",
            f"returns after {returned.now - before:.1f} s; ready {state.ready - state.started:.1f} s after its start",
            "it returns once the service is active, and nothing restarts it",
            state.restarts == 0 and returned.now >= state.ready > before,
        )

    return step


def sandboxed(service: Service, table: Table) -> None:
    """The unit's filters, on the process that runs."""
    state = service.predicts()
    score = service.machine.call("systemd-analyze security framecast | tail -n 1").lstrip("→ ")
    table.row("systemd-analyze security", score, "OK", "OK" in score)
    names = "Seccomp|NoNewPrivs|CapEff|CapBnd|Uid"
    held = dict(
        line.split(":", 1)
        for line in service.machine.call(f"grep -E '^({names}):' /proc/{state.process}/status").splitlines()
    )
    wanted = {"Seccomp": 2, "NoNewPrivs": 1, "CapEff": 0, "CapBnd": 0}
    found = {name: int(held[name], 16) for name in wanted}
    user = held["Uid"].split()[0]
    table.row(
        "its process: filters and privileges",
        ", ".join(f"{name} {value:x}" for name, value in found.items()) + f", user {user}",
        "a system-call filter, no new privileges, no capability, not root",
        found == wanted and user != "0",
    )
    places = {"/etc": False, "/opt/framecast": False, "/usr": False, "/home": False, RECORDINGS: True}
    enter = f"nsenter -t {state.process} -m -S {user} -G {user} touch"
    writes = {place: service.machine.run(f"{enter} {place}/probe && rm {place}/probe")[0] == 0 for place in places}
    table.row(
        "its file system: where it can write",
        ", ".join(place for place, can in writes.items() if can) or "nowhere",
        f"{RECORDINGS}, and not {', '.join(place for place, can in places.items() if not can)}",
        writes == places,
    )


def restarted(what: str, fault: str, result: str, *, mend: str = "true", times: int = 1) -> Step:
    """A step that ends the process, after which systemd starts another."""

    def step(service: Service, table: Table) -> None:
        starts, predictions, results = [], [], []
        for _ in range(times):
            first = service.predicts()
            before = service.do(fault)
            again = service.wait(lambda state, old=first.restarts: state.restarts > old, "a restart")  # type: ignore[misc]
            service.machine.call(mend)
            back = service.predicts(after=before)
            starts.append(again.started - before if again.started > before else back.started - before)
            predictions.append(back.ready - before)
            results += [line.split("'")[1] for line in service.journal(before, "Failed with result '")]
        table.row(
            what,
            f"starts again after {_range(starts)} s ({', '.join(results)}), predicts after {_range(predictions)} s",
            f"systemd restarts it (result {result}), and it predicts",
            len(results) >= times and set(results) == {result},
            times,
        )

    return step


def outage(what: str, fault: str, mend: str, times: int = 2) -> Step:
    """A step that takes the camera away, and gives it back 10 s after that was noticed."""

    def step(service: Service, table: Table) -> None:
        noticed, back = [], []
        first = service.predicts()
        for _ in range(times):
            before = service.do(fault)
            noticed.append(service.wait(lambda state: state.out, "the status says that the camera is out").now - before)
            service.machine.call("sleep 10")
            mended = service.do(mend)
            back.append(service.predicts().now - mended)
        last = service.state()
        table.row(
            what,
            f"noticed after {_range(noticed)} s; predicts {_range(back)} s after its return; {_same(first, last)}",
            "it is noticed, the process goes on, and predicts once the camera is back",
            _same(first, last) == "same process",
            times,
        )

    return step


def undisturbed(what: str, disturb: Callable[[Service], object]) -> Step:
    """A step that does what must change nothing."""

    def step(service: Service, table: Table) -> None:
        first, before = service.predicts(), service.stats()
        disturb(service)
        service.machine.call("sleep 15")
        last, after = service.predicts(), service.stats()
        frames = int(str(after["frames"])) - int(str(before["frames"]))
        names = ("epochs", "resets")
        changed = [f"{name} {before[name]} → {after[name]}" for name in names if before[name] != after[name]]
        table.row(
            what,
            f"{frames} more frames; {', '.join(changed) or 'epochs and resets unchanged'}; {_same(first, last)}",
            "the same process goes on, without a new epoch or a reset",
            frames > 0 and not changed and _same(first, last) == "same process",
        )

    return step


def pause(service: Service) -> None:
    """Stop the whole machine for 10 s."""
    service.machine.tell("stop")
    time.sleep(10)
    service.machine.tell("cont")


def suspended(service: Service, table: Table) -> None:
    """Suspend the machine to RAM for about 20 s."""
    first, before = service.predicts(), _epochs(service)
    lost = _suspended_for(service)
    service.machine.call("! mountpoint -q /host || umount /host")  # Linux's virtio-9p does not survive a suspension
    service.machine.call("(sleep 1; echo mem > /sys/power/state) > /dev/null 2>&1 &")
    time.sleep(20)
    service.machine.tell("system_wakeup")
    woken = service.state()
    lost = _suspended_for(service) - lost
    last = service.wait(lambda state: state.predicts and _epochs(service) > before, "a new epoch")
    epochs = _epochs(service) - before
    table.row(
        "machine suspended to RAM for about 20 s",
        f"asleep for {lost:.1f} s; {epochs} new epoch, predicts {last.now - woken.now:.1f} s after it; "
        f"{_same(first, last)}",
        "a gap: the camera is opened again (a new epoch), no crash",
        lost > 5 and epochs > 0 and _same(first, last) == "same process",
    )


def recorded(service: Service, table: Table) -> None:
    """A configuration file under /etc, with a recording; then the service is stopped."""
    machine = service.machine
    machine.call(f"rm -f {RECORDINGS}/*; printf '%s' '{BOX}' > /etc/framecast/box.toml")
    before = service.configure("MODEL=edge", "ENGINE=auto", "OPTIONS=--config /etc/framecast/box.toml")
    state = service.predicts(after=before)
    machine.call("sleep 15")
    denied = service.journal(before, "ermission denied") + service.journal(before, "not permitted")
    begun = service.do("systemctl stop framecast")
    last = service.state()
    table.row(
        "OPTIONS=--config /etc/framecast/box.toml",
        f"predicts {state.ready - state.started:.1f} s after its start; {len(denied)} refusals in the journal",
        "the unit's filters allow it all",
        not denied,
    )
    code = last.shown["ExecMainStatus"]
    files = machine.call(f"ls {RECORDINGS}").split()
    said = service.journal(begun, "cannot ") if code != "0" else []
    videos = [file for file in files if file.endswith(".mkv")]
    frames = [int(machine.call(f"{PLAYS} {RECORDINGS}/{video}")) for video in videos]
    table.row(
        "systemctl stop while it records",
        f"exit code {code} in {last.now - begun:.1f} s; {len(videos)} recording, {sum(frames)} frames play; "
        f"{'a' if 'report.json' in files else 'NO'} report{': ' * bool(said)}{said[0][:300] if said else ''}",
        "exit code 0 within 20 s (TimeoutStopSec); the recording plays, the report is there",
        code == "0" and last.shown["Result"] == "success" and sum(frames) > 0 and "report.json" in files,
    )


def mistaken(service: Service, table: Table) -> None:
    """A configuration file with a mistake."""
    service.machine.call("echo 'camera_delay = 1' > /etc/framecast/box.toml")
    before = service.configure("MODEL=edge", "ENGINE=auto", "OPTIONS=--config /etc/framecast/box.toml")
    state = service.wait(lambda state: state.shown["ActiveState"] == "failed", "the service has failed")
    service.machine.call("sleep 10")  # RestartSec is 3 s
    last = service.state()
    lines = service.journal(before, "box.toml:1:")
    table.row(
        "a mistake in box.toml",
        f"exit code {state.shown['ExecMainStatus']}, then {last.shown['ActiveState']}; {lines[:1] or 'NO LINE'}",
        "exit code 2 and no restart; the journal has the mistake with its line",
        state.shown["ExecMainStatus"] == "2" and last.shown["ActiveState"] == "failed" and bool(lines),
    )


def endless(service: Service, table: Table) -> None:
    """A model whose step never returns."""
    # Not from /host, which is gone after the suspension.
    model = base64.b64encode((service.machine.host / "endless.onnx").read_bytes()).decode()
    service.machine.call(f"echo {model} | base64 -d > /opt/framecast/endless.onnx")
    before = service.configure("MODEL=/opt/framecast/endless.onnx", "ENGINE=auto", f"OPTIONS={USUAL} --step-limit 10s")
    service.wait(lambda state: state.started > before, "a start")
    first = service.state().restarts
    service.wait(lambda state: state.restarts > first, "a restart")
    said = service.journal(before, "did not return within")
    ended = service.journal(before, "Main process exited")
    table.row(
        "a model that never returns; --step-limit 10s",
        f"{said[0][:110] if said else 'NO LINE'}; {ended[0] if ended else 'still there'}",
        "our watchdog ends it (exit code 1), and systemd restarts it",
        bool(said) and bool(ended) and "status=1/" in ended[0],
    )


def rebooted(service: Service, table: Table) -> None:
    """After a start of the machine: first without a webcam, which is then plugged in."""
    begins = service.wait(lambda state: state.restarts > 0, "attempts without a webcam")
    said = service.journal(0.0, "/dev/video0")
    plugged = service.do(VIVID)
    state = service.predicts(after=plugged)
    table.row(
        "the machine starts, and a webcam is plugged in later",
        f"{begins.restarts} restarts until then ({said[0][:60] if said else 'NO LINE'}); "
        f"predicts {state.ready - plugged:.1f} s after it",
        "the unit starts by itself, tries again, and predicts",
        bool(said),
    )


def _suspended_for(service: Service) -> float:
    """Seconds that the machine has been suspended since it started."""
    clock, uptime = service.machine.call(f"{CLOCK}; cut -d' ' -f1 /proc/uptime").splitlines()
    return float(uptime) - 1e-9 * int(clock)


def _epochs(service: Service) -> int:
    return int(str(service.stats()["epochs"]))


def _same(first: State, last: State) -> str:
    return "same process" if first.process == last.process and first.restarts == last.restarts else "ANOTHER PROCESS"


def _range(seconds: list[float]) -> str:
    low, high = min(seconds), max(seconds)
    return f"{low:.1f}" if len(seconds) == 1 else f"{low:.1f} to {high:.1f}"


# Each step with its name and its limit in seconds. Before each, the service is as the page installs it.
STEPS: tuple[tuple[str, float, Step], ...] = (
    ("sandbox", 180.0, sandboxed),
    ("unplugged", 300.0, outage("webcam unplugged for 10 s", BIND.format("unbind"), BIND.format("bind"))),
    ("stalled", 300.0, outage("webcam stalls for 10 s", DROPS.format(100), DROPS.format(0))),
    ("clock forwards", 180.0, undisturbed("wall clock one hour forwards", lambda s: s.do("date -s '+1 hour'"))),
    ("clock back", 180.0, undisturbed("wall clock one hour back", lambda s: s.do("date -s '-1 hour'"))),
    ("paused", 180.0, undisturbed("machine stands still for 10 s (QEMU's stop, cont)", pause)),
    ("suspended", 240.0, suspended),
    ("killed", 480.0, restarted("kill -9", "systemctl kill -s KILL framecast", "signal", times=2)),
    ("hangs", 480.0, restarted("hang (SIGSTOP); WatchdogSec=60", "systemctl kill -s STOP framecast", "watchdog")),
    (
        "memory",
        480.0,
        restarted(
            "out of memory (MemoryMax=40M until it has ended)",
            "systemctl set-property --runtime framecast MemoryMax=40M",
            "oom-kill",
            mend="systemctl set-property --runtime framecast MemoryMax=4G",
        ),
    ),
    ("box.toml", 480.0, recorded),
    ("mistake", 240.0, mistaken),
    ("endless", 480.0, endless),
)
