"""A real NVIDIA Triton server on this machine, from the PyPI package ``nvidia-pytriton``: CPU, Python backend only.

``make test-server`` installs it, with a NumPy 1 for its Python backend (211 MB), into ``.venv/tritonserver``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from framecast.errors import EngineError

HOME = "FRAMECAST_TRITON"  # variable: where it lies instead
STARTING = 120.0  # seconds that the server may take to be ready


def installed() -> Path | None:
    """The folder that nvidia-pytriton was installed to; None if it is not here."""
    place = Path(os.environ.get(HOME) or Path(sys.prefix) / "tritonserver")
    return place if (place / "pytriton" / "tritonserver" / "bin" / "tritonserver").exists() else None


class TritonServer:
    """A server process. Use it in a ``with``.

    Args:
        repository: the model repository.
        scratch: an empty folder for its backend and log.
        arguments: further arguments of ``tritonserver``.

    Attributes:
        port: of gRPC, on 127.0.0.1; the same after a restart.

    Raises:
        EngineError: it is not installed.
    """

    def __init__(self, repository: Path, scratch: Path, *arguments: str) -> None:
        home = installed()
        if home is None:
            raise EngineError("no tritonserver here: make test-server")
        base = home / "pytriton" / "tritonserver"
        python = scratch / "backends" / "python"
        shutil.copytree(base / "backends" / "python", python)
        stubs = base / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}"
        shutil.copytree(stubs, python, dirs_exist_ok=True)  # without it, the backend does not find its stub
        # The stub is a Python of its own that ignores PYTHONPATH, but imports from its working folder first. There it
        # finds this module, which gives it our path. Its pybind11 is too old for NumPy 2: it would answer with empty
        # tensors. So ``home`` also holds a NumPy 1, which must come first.
        self._shim = scratch / "shim"
        self._shim.mkdir()
        paths = [str(home), *(path for path in sys.path if path)]
        (self._shim / "framecast.py").write_text(
            f"import sys\n\nsys.path[:] = {paths!r} + [path for path in sys.path if path]\n"
            "del sys.modules['framecast']\nimport framecast  # the real one\n"
        )
        self.port, self.http, metrics = free_ports(3)
        self._memory = f"framecast_{os.getpid()}_{self.port}_"
        self.log = scratch / "tritonserver.log"
        self._command = [
            str(base / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={scratch / 'backends'}",
            *(f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc")),
            f"--grpc-port={self.port}",
            f"--http-port={self.http}",
            f"--metrics-port={metrics}",
            "--metrics-address=127.0.0.1",
            "--strict-readiness=true",
            f"--backend-config=python,shm-region-prefix-name={self._memory}",
            *arguments,
        ]
        # The stub wants the package's own libcudart, and a libpython of this version.
        libraries = [home / "nvidia_pytriton.libs", base / "external_libs", base / "lib"]
        libraries.append(Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib"))
        self._environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        """Start the process, and wait until it answers.

        On a busy machine its Python backend may give up a lock after 10 s, and end it: it gets three tries.

        Raises:
            EngineError: it ended, or was not ready in time.
        """
        for _ in range(2 if wait else 0):
            with suppress(EngineError):
                return self._start(wait)
        return self._start(wait)

    def _start(self, wait: bool) -> None:
        with self.log.open("ab") as log:
            # A process group of its own, so that its stubs end with it.
            self.process = subprocess.Popen(  # noqa: S603 (a fixed command)
                self._command, stdout=log, stderr=log, env=self._environment, cwd=self._shim, start_new_session=True
            )
        begun = time.monotonic()
        while wait and not self.ready():
            if self.process.poll() is not None or time.monotonic() - begun > STARTING:
                self.kill()
                raise EngineError(f"tritonserver is not ready: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def ready(self) -> bool:
        """Whether the server and its models are ready."""
        try:
            address = f"http://127.0.0.1:{self.http}/v2/health/ready"
            with urllib.request.urlopen(address, timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """End the process at once, as kill -9 does, with its stubs."""
        if self.process is not None:
            if self.process.poll() is None:
                os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None
            for region in Path("/dev/shm").glob(f"{self._memory}*"):  # noqa: S108 (a killed server leaves them there)
                region.unlink(missing_ok=True)

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
