"""A virtual machine (QEMU, by emulation) with systemd: booted from a disk of ``_guest_disk.py``, and given commands.

Every command has a limit, in the machine and outside it: a machine that does not answer is an error, never a wait.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

# A busy host's timer comes too late for the kernel's check of it.
KERNEL = "console=ttyS0 quiet panic=-1 no_timer_check disk"
LIMIT = 120.0  # seconds for a command, if it is given no other limit
BOOT = 600.0  # seconds until systemd runs the agent
# On a busy host, a command or its answer once did not come through the serial port; why is not known. An empty line
# brings what is held up. The agent's answer to it is ignored.
NUDGE = 20.0  # seconds
GRACE = 60.0  # seconds that a machine may take to end a command that is over its limit


class GuestError(RuntimeError):
    """Something in the machine failed, or did not happen in time."""


class StuckError(GuestError):
    """The machine does not answer any more, or has ended."""


class Machine:
    """A running machine.

    Args:
        disk: its disk; its folder has kernel and initrd, and is the machine's /host.
        logs: the console goes to ``console.log`` there, commands with their output to ``commands.log``; both grow.
        patience: a factor of all limits.

    Attributes:
        host: the folder of the disk.
        deadline: when all that is done in it must have ended, in seconds of ``time.monotonic``; None for no such limit.

    Raises:
        StuckError: it does not boot in time.
    """

    def __init__(self, disk: Path, logs: Path, patience: float = 1.0) -> None:
        self.host = work = disk.parent
        self.deadline: float | None = None
        self._heard, self._number = b"", 0
        self.patience = patience
        self._folder = tempfile.TemporaryDirectory(prefix="framecast-guest-")  # sockets have short paths
        folder = Path(self._folder.name)
        self._console = folder / "console.log"
        self._logs = logs
        agent, monitor = folder / "agent", folder / "monitor"
        call: list[str | Path] = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"]
        call += ["-m", "3G", "-smp", "2"]
        call += ["-display", "none", "-no-reboot", "-nic", "none", "-kernel", work / "vmlinuz", "-initrd"]
        call += [work / "initrd.gz", "-append", KERNEL, "-serial", f"file:{self._console}"]
        call += ["-serial", f"unix:{agent},server=on,wait=off", "-qmp", f"unix:{monitor},server=on,wait=off"]
        call += ["-drive", f"file={disk},if=virtio,format=raw,cache=unsafe", "-virtfs"]
        call += [f"local,path={work},mount_tag=host,security_model=none,readonly=on,multidevs=remap"]
        self._process = subprocess.Popen([str(word) for word in call], stdin=subprocess.DEVNULL)
        try:
            self._agent, self._channel = _connect(agent), _connect(monitor)
            self._channel.settimeout(GRACE * patience)
            self._monitor = self._channel.makefile("rw")
            self._monitor.readline()
            self.tell("qmp_capabilities")
            self._line("READY", BOOT * patience)
        except BaseException:
            self.kill()
            raise

    def run(self, command: str, limit: float = LIMIT) -> tuple[int, str]:
        """Run a shell command as root and return its exit code (124: over its limit) and its output.

        Args:
            command: for ``sh``.
            limit: seconds that it may take.

        Raises:
            GuestError: the deadline has passed.
            StuckError: the machine has ended or does not answer.
        """
        limit *= self.patience
        if self.deadline is not None:
            limit = min(limit, self.deadline - time.monotonic())
        if limit <= 0:
            raise GuestError("the step is over its limit")
        begun, self._number = time.monotonic(), self._number + 1
        self._send(f"{limit:.1f} {base64.b64encode(f'echo {self._number}; {command}'.encode()).decode()}\n")
        over = begun + limit + GRACE * self.patience
        number = ""
        while number != str(self._number):  # that of a nudge has no number
            found = re.search(r"CODE (\d+) (\S*)", self._line("CODE", over - time.monotonic()))
            assert found
            code, text = int(found[1]), base64.b64decode(found[2]).decode(errors="replace")
            number, _, output = text.partition("\n")
        output = output.strip()
        with self._log("commands.log") as log:
            log.write(f"{time.strftime('%X')} [{code}, {time.monotonic() - begun:.1f} s] {command}\n{output}\n")
        return code, output

    def call(self, command: str, limit: float = LIMIT) -> str:
        """Run a shell command that must not fail, and return its output. See :meth:`run`."""
        code, output = self.run(command, limit)
        if code:
            reason = "no end of" if code == 124 else f"exit code {code} of"  # timeout(1)
            raise GuestError(f"{reason}: {command}\n{output}")
        return output

    def tell(self, command: str) -> Any:
        """Give QEMU's monitor a command, such as ``stop`` or ``cont``, and return its answer."""
        try:
            self._monitor.write(json.dumps({"execute": command}) + "\n")
            self._monitor.flush()
            while "return" not in (answer := json.loads(self._monitor.readline() or '{"error": "QEMU has ended"}')):
                if "error" in answer:
                    raise GuestError(f"QEMU's {command}: {answer['error']}")
        except OSError as error:
            raise StuckError(f"QEMU does not answer {command}: {error}") from error
        return answer["return"]

    def shut(self, how: str = "poweroff") -> bool:
        """Shut the machine down, with systemd's ``poweroff`` or ``reboot``. Returns whether it went by itself."""
        with contextlib.suppress(OSError):
            self._agent.sendall(b"30 " + base64.b64encode(f"systemctl --no-block {how}".encode()) + b"\n")
        try:
            self._process.wait(2 * GRACE * self.patience)
        except subprocess.TimeoutExpired:
            return False
        finally:
            self.kill()
        return True

    def kill(self) -> None:
        """Take the machine's power away, and keep what its console said."""
        self._process.kill()
        self._process.wait()
        if self._console.exists():
            with self._log("console.log") as log:
                log.write(f"--- a machine that ended at {time.strftime('%X')}\n")
                log.write(self._console.read_text(errors="replace") + "\n")
            self._folder.cleanup()

    def _log(self, name: str) -> TextIO:
        return (self._logs / name).open("a", encoding="utf-8")

    def _send(self, text: str) -> None:
        try:
            self._agent.sendall(text.encode())
        except OSError as error:
            raise StuckError(f"the machine takes no command: {error}") from error

    def _line(self, word: str, limit: float) -> str:
        """The next whole line with a word."""
        over, booting = time.monotonic() + limit, word == "READY"
        while True:
            while b"\n" in self._heard:
                line, _, self._heard = self._heard.partition(b"\n")
                if word.encode() in line:
                    return line.decode(errors="replace")
            self._agent.settimeout(min(NUDGE, max(0.1, over - time.monotonic())))
            try:
                heard = self._agent.recv(65536)
            except TimeoutError as error:
                if time.monotonic() >= over:
                    raise StuckError("the machine does not answer: see console.log") from error
                if not booting:
                    self._send("\n")
                continue
            except OSError as error:
                raise StuckError(f"the machine has ended: {error}") from error
            if not heard:
                raise StuckError("the machine has ended: see console.log")
            self._heard += heard


def _connect(path: Path) -> socket.socket:
    for _ in range(600):
        with contextlib.suppress(OSError):
            found = socket.socket(socket.AF_UNIX)
            found.connect(str(path))
            return found
        time.sleep(0.1)
    raise StuckError(f"QEMU does not start: no {path.name}")
