"""A fresh Debian in a virtual machine (QEMU, by emulation), with systemd: made, booted, and given commands.

The image has what Debian's installer puts there. The packages that ``docs/unattended.md`` asks for are downloaded
before, into apt's cache and into a folder of wheels, because the machine has no network.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PREPARE = ROOT / "tests" / "vm" / "prepare"
PACKAGES = "systemd,systemd-sysv,udev,dbus,kmod,v4l-utils,procps,sudo,openssl,ca-certificates,python3-minimal"
WANTED = ("python3-venv", "libgl1", "libglib2.0-0")  # as the page installs
PATIENCE = 900.0  # seconds for a command: emulation is slow, and more so if others use the processor
AGENT = """[Unit]
Description=Runs the commands that come over the second serial port
[Service]
ExecStart=/bin/sh -c 'stty -F /dev/ttyS1 raw -echo; exec /usr/local/bin/agent < /dev/ttyS1 > /dev/ttyS1 2>&1'
[Install]
WantedBy=multi-user.target
"""
# A busy host's timer comes too late for the kernel's check of it.
KERNEL = "console=ttyS0 quiet panic=-1 no_timer_check disk"
# Reads one command in base64 a line, runs it, and writes its output and its exit code.
LOOP = """#!/bin/sh
export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
echo READY
while read -r line; do
    echo "$line" | base64 -d > /run/command
    sh /run/command > /run/output 2>&1 < /dev/null
    echo "CODE $? $(base64 -w0 < /run/output)"
done
"""


class MissingError(Exception):
    """The machine cannot be made here, and why."""


def debian() -> Path:
    """Make the root folder of a fresh Debian, beside the kernel, once. Takes some minutes and the network.

    Raises:
        MissingError: a tool is missing.
    """
    done = subprocess.run([str(PREPARE)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingError(f"{done.stdout}{done.stderr}".strip())
    if os.geteuid() != 0:
        raise MissingError("making a Debian needs root")
    for tool in ("mmdebstrap", "mkfs.ext4"):
        if shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            raise MissingError(f"no {tool} (on Debian: apt-get install mmdebstrap e2fsprogs)")
    fresh = Path(done.stdout.strip().splitlines()[-1]) / "debian"
    if fresh.exists():
        return fresh
    part = fresh.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    _call("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(part))
    shutil.copy("/etc/resolv.conf", part / "etc")
    for words in (["update"], ["install", "-y", "--download-only", *WANTED]):
        _call("chroot", str(part), "apt-get", "-qq", *words)
    files = {
        "etc/systemd/system/agent.service": AGENT,
        "usr/local/bin/agent": LOOP,
        "etc/hostname": "box\n",
        "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
        # pip has no network, but the wheels.
        "etc/pip.conf": "[global]\nno-index = true\nfind-links = /host/wheels\ndisable-pip-version-check = true\n",
    }
    for name, text in files.items():
        (part / name).write_text(text)
    (part / "usr/local/bin/agent").chmod(0o755)
    (part / "host").mkdir()
    _call("systemctl", f"--root={part}", "enable", "agent.service")
    _call("systemctl", f"--root={part}", "mask", "serial-getty@ttyS0.service")
    return part.rename(fresh)


def disk(root: Path) -> Path:
    """Make a disk with the contents of a root folder, beside it."""
    made = root.with_suffix(".img")
    made.unlink(missing_ok=True)
    _call("/usr/sbin/mkfs.ext4", "-q", "-d", str(root), str(made), "4G")
    return made


def call_in(root: Path, command: str) -> str:
    """Run a shell command in a root folder, at this machine's speed, and return its output."""
    mounts = f"mount -t proc proc {root}/proc; mount --bind /dev {root}/dev; mount --bind {root.parent} {root}/host"
    words = ["unshare", "-m", "sh", "-ec", f'{mounts}; exec chroot {root} sh -c "$1"', "sh", command]
    return _call("env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", *words)


def share(work: Path) -> None:
    """Put the clone and its wheels where the machine sees them, in /host."""
    wheels, clone = work / "wheels", work / "clone"
    wheels.mkdir(exist_ok=True)
    shutil.rmtree(clone, ignore_errors=True)
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        target = clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink() or (ROOT / name).exists():
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
    # Debian 12's Python is 3.11: pip chooses its wheels, whatever Python runs this.
    pip = [sys.executable, "-m", "pip", "download", "-q", "-c", str(ROOT / "constraints.txt"), "-d", str(wheels)]
    pip += ["--python-version", "3.11", "--only-binary", ":all:", "setuptools>=77", *requirements()]
    _call(*pip)


def requirements() -> list[str]:
    """The package's dependencies, from pyproject.toml (Python 3.10 has no tomllib)."""
    found = re.search(r"^dependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return re.findall(r'"([^"]+)"', found[1])


class Machine:
    """A running machine.

    Args:
        disk: its disk; its folder has kernel and initrd.
        folder: for sockets and the console's log.
    """

    def __init__(self, disk: Path, folder: Path) -> None:
        work = disk.parent
        self.console = folder / "console.log"
        agent, monitor = folder / "agent", folder / "monitor"
        call: list[str | Path] = [
            "qemu-system-x86_64",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-m",
            "3G",
            "-smp",
            "2",
        ]
        call += ["-display", "none", "-no-reboot", "-nic", "none", "-kernel", work / "vmlinuz", "-initrd"]
        call += [work / "initrd.gz", "-append", KERNEL, "-serial", f"file:{self.console}"]
        call += ["-serial", f"unix:{agent},server=on,wait=off", "-qmp", f"unix:{monitor},server=on,wait=off"]
        call += ["-drive", f"file={disk},if=virtio,format=raw,cache=unsafe", "-virtfs"]
        call += [f"local,path={work},mount_tag=host,security_model=none,readonly=on,multidevs=remap"]
        self._process = subprocess.Popen([str(word) for word in call], stdin=subprocess.DEVNULL)
        self._agent, self._monitor = _connect(agent), _connect(monitor).makefile("rw")
        self._lines = self._agent.makefile("r", errors="replace")
        self._monitor.readline()
        self.tell("qmp_capabilities")
        self._agent.settimeout(PATIENCE)
        while "READY" not in self._line():
            pass

    def run(self, command: str) -> tuple[int, str]:
        """Run a shell command as root and return its exit code and its output."""
        self._agent.sendall(base64.b64encode(command.encode()) + b"\n")
        while True:
            found = re.search(r"CODE (\d+) (\S*)", self._line())
            if found:
                return int(found[1]), base64.b64decode(found[2]).decode(errors="replace").strip()

    def call(self, command: str) -> str:
        """Run a shell command that must not fail, and return its output."""
        code, output = self.run(command)
        if code:
            raise RuntimeError(f"exit code {code} of: {command}\n{output}")
        return output

    def tell(self, command: str) -> Any:
        """Give QEMU's monitor a command, such as ``stop`` or ``cont``, and return its answer."""
        self._monitor.write(json.dumps({"execute": command}) + "\n")
        self._monitor.flush()
        while "return" not in (answer := json.loads(self._monitor.readline())):
            pass  # an event
        return answer["return"]

    def _line(self) -> str:
        if line := self._lines.readline():
            return line
        raise RuntimeError(f"the machine has ended:\n{self.console.read_text(errors='replace')[-2000:]}")

    def end(self) -> None:
        """Switch the machine off."""
        with contextlib.suppress(OSError):
            self._agent.sendall(base64.b64encode(b"systemctl --no-block poweroff") + b"\n")
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def booted(disk: Path) -> Iterator[Machine]:
    """Boot a machine for a while. What it writes stays on the disk."""
    with tempfile.TemporaryDirectory(prefix="framecast-guest-") as folder:
        machine = Machine(disk, Path(folder))
        try:
            yield machine
        finally:
            machine.end()


def _connect(path: Path) -> socket.socket:
    for _ in range(600):
        with contextlib.suppress(OSError):
            found = socket.socket(socket.AF_UNIX)
            found.connect(str(path))
            return found
        time.sleep(0.1)
    raise RuntimeError(f"QEMU does not start: no {path.name}")


def _call(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout
