"""The disk of a fresh Debian with framecast as ``docs/unattended.md`` installs it, kept in ~/.cache/framecast-ci/vm.

The image has what Debian's installer puts there. The packages that the page asks for are downloaded before, into apt's
cache and into a folder of wheels, because the machine has no network.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PREPARE = ROOT / "tests" / "vm" / "prepare"
PACKAGES = "systemd,systemd-sysv,udev,dbus,kmod,v4l-utils,procps,sudo,openssl,ca-certificates,python3-minimal"
WANTED = ("python3-venv", "libgl1", "libglib2.0-0")  # as the page installs
# Of the clone; the installed framecast has none of it.
APART = ("tests/", "benchmarks/", "docs/", ".ci/", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile")
DOWNLOAD = 1200.0  # seconds for a command that downloads or installs
AGENT = """[Unit]
Description=Runs the commands that come over the second serial port
[Service]
ExecStart=/bin/sh -c 'stty -F /dev/ttyS1 raw -echo; exec /usr/local/bin/agent < /dev/ttyS1 > /dev/ttyS1 2>&1'
[Install]
WantedBy=multi-user.target
"""
# Reads a limit in seconds and a command in base64 a line, runs it, and writes its exit code and its output.
LOOP = """#!/bin/sh
export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
echo READY
while read -r limit line; do
    echo "$line" | base64 -d > /run/command
    timeout -k 10 "$limit" sh /run/command > /run/output 2>&1 < /dev/null
    echo "CODE $? $(base64 -w0 < /run/output)"
done
"""
FILES = {
    "etc/systemd/system/agent.service": AGENT,
    "usr/local/bin/agent": LOOP,
    "etc/hostname": "box\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    # pip has no network, but the wheels.
    "etc/pip.conf": "[global]\nno-index = true\nfind-links = /host/wheels\ndisable-pip-version-check = true\n",
}


class MissingError(Exception):
    """The machine cannot be made here, and why."""


def folder() -> Path:
    """Make the folder of kernel, initrd and disks, once.

    Raises:
        MissingError: a tool is missing.
    """
    done = subprocess.run([str(PREPARE)], capture_output=True, text=True, check=False, timeout=DOWNLOAD)
    if done.returncode:
        raise MissingError(f"{done.stdout}{done.stderr}".strip())
    if os.geteuid() != 0:
        raise MissingError("cannot make a Debian: it needs root (use sudo)")
    for tool in ("mmdebstrap", "mkfs.ext4"):
        if shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            raise MissingError(f"no {tool} (on Debian: apt-get install mmdebstrap e2fsprogs)")
    return Path(done.stdout.strip().splitlines()[-1])


@contextlib.contextmanager
def alone(work: Path) -> Iterator[None]:
    """Hold the folder: two runs would remove each other's disks.

    Raises:
        MissingError: another run holds it.
    """
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MissingError(f"another run uses {work}: wait until it has ended") from error
        yield


def debian(work: Path) -> Path:
    """Make the root folder of a fresh Debian, once. Takes some minutes and the network."""
    key = hashlib.sha256(repr((PACKAGES, WANTED, sorted(FILES.items()))).encode()).hexdigest()[:12]
    fresh = work / f"debian-{key}"
    if fresh.exists():
        return fresh
    for old in work.glob("debian*"):
        call("rm", "-rf", "--one-file-system", str(old))  # what broke off may have mounts in it
    part = work / "debian.part"
    call("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(part))
    shutil.copy("/etc/resolv.conf", part / "etc")
    for words in (["update"], ["install", "-y", "--download-only", *WANTED]):
        call("chroot", str(part), "apt-get", "-qq", *words)
    for name, text in FILES.items():
        (part / name).write_text(text)
    (part / "usr/local/bin/agent").chmod(0o755)
    (part / "host").mkdir()
    call("systemctl", f"--root={part}", "enable", "agent.service")
    call("systemctl", f"--root={part}", "mask", "serial-getty@ttyS0.service")
    return part.rename(fresh)


def clone(work: Path) -> tuple[Path, str]:
    """Copy this clone's files, and return the copy and a hash of those that an installed framecast comes from."""
    copy = work / "clone"
    shutil.rmtree(copy, ignore_errors=True)
    digest = hashlib.sha256()
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        file, target = ROOT / name, copy / name
        if not file.is_symlink() and not file.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target, follow_symlinks=False)
        if not name.startswith(APART):
            digest.update(f"{name}\0".encode())
            digest.update(str(file.readlink()).encode() if file.is_symlink() else file.read_bytes())
    return copy, digest.hexdigest()


def wheels(work: Path) -> None:
    """Download the wheels of framecast's dependencies into the folder that pip uses in the machine."""
    (work / "wheels").mkdir(exist_ok=True)
    # Debian 12's Python is 3.11: pip chooses its wheels, whatever Python runs this.
    pip = [sys.executable, "-m", "pip", "download", "-q", "-c", str(ROOT / "constraints.txt"), "-d"]
    pip += [str(work / "wheels"), "--python-version", "3.11", "--only-binary", ":all:", "setuptools>=77"]
    call(*pip, *_requirements())


def filled(root: Path, image: Path) -> None:
    """Make a disk with the contents of a root folder."""
    image.unlink(missing_ok=True)
    call("/usr/sbin/mkfs.ext4", "-q", "-d", str(root), str(image), "4G")


def call_in(root: Path, command: str) -> str:
    """Run a shell command in a root folder, at this machine's speed, and return its output."""
    mounts = f"mount -t proc proc {root}/proc; mount --bind /dev {root}/dev; mount --bind {root.parent} {root}/host"
    words = ["unshare", "-m", "sh", "-ec", f'{mounts}; exec chroot {root} sh -c "$1"', "sh", command]
    return call("env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", *words)


def call(*words: str) -> str:
    """Run a program here and return its output.

    Raises:
        RuntimeError: it failed, with what it said, or did not end.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=DOWNLOAD)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no end of {' '.join(words)} in {DOWNLOAD:g} s") from error
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def _requirements() -> Sequence[str]:
    """The package's dependencies, from pyproject.toml (Python 3.10 has no tomllib)."""
    found = re.search(r"^dependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return re.findall(r'"([^"]+)"', found[1])
