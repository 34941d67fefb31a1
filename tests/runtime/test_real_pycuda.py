"""The real pycuda, built by ``make pycuda``, on a driver that is none (``libcuda.c``): what ``cuda.py`` asks of it.

pycuda's rules of threads and contexts are its own here, not our memory of them. TensorRT is still none
(``fake_tensorrt.py``), and neither is there a GPU: what one does is for ``benchmarks/gpu_check.py``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from ..exported import exported  # noqa: F401, TID252 (a mark: not without torch)
from .pycuda_build import place  # noqa: TID252
from .test_tensorrt_engine import artifact, built  # noqa: TID252

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NOTHING = dict.fromkeys(("streams", "events", "memory", "locked", "graphs", "executables", "faults"), 0)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the driver that is none."""
    gcc = shutil.which("gcc")
    if gcc is None or not place().is_dir():
        missing_here = "no pycuda for the tests: make pycuda" if gcc else "no C compiler: apt install gcc"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing_here)
    folder = tmp_path_factory.mktemp("libcuda")
    source = (HERE / "libcuda.c").read_text()
    (module,) = (place() / "pycuda").glob("_driver.*.so")
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", module], check=True, capture_output=True, text=True
    ).stdout
    missing = {name for name in re.findall(r"\bcu[A-Z]\w+", symbols) if not re.search(rf"\b{name}\(", source)}
    (folder / "missing.c").write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in sorted(missing)))
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-pthread", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([gcc, *flags, HERE / "libcuda.c", folder / "missing.c"], check=True)
    return str(folder)


def ran(scenario: str, libraries: str, tmp_path: Path) -> tuple[dict[str, int], str]:
    """What is alive when a process has ended, and what it wrote to stderr."""
    path = artifact("mau", tmp_path)
    environment = {
        **os.environ,
        "FRAMECAST_CACHE": str(tmp_path / "cache"),
        "LD_LIBRARY_PATH": libraries,
        "PYTHONPATH": os.pathsep.join([str(place()), str(ROOT / "src")]),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRAMECAST_CACHE", environment["FRAMECAST_CACHE"])
        built(path)
    command = [sys.executable, "-W", "always::UserWarning", "-m", "tests.runtime.real_pycuda", scenario, str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    alive: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return alive, done.stderr


@pytest.mark.parametrize("scenario", ["engine", "threads"])
def test_all_is_freed_and_nothing_is_said(scenario: str, libraries: str, tmp_path: Path) -> None:
    """The context alone stays: the process's end releases it."""
    assert ran(scenario, libraries, tmp_path) == ({"contexts": 1, **NOTHING}, "")


def test_what_lives_to_the_end_is_the_drivers_and_nothing_is_said(libraries: str, tmp_path: Path) -> None:
    alive, said = ran("at_exit", libraries, tmp_path)
    assert said == ""
    assert alive["memory"] > 0
    assert (alive["contexts"], alive["faults"]) == (1, 0)


def test_what_the_driver_refuses_is_named(libraries: str, tmp_path: Path) -> None:
    alive, said = ran("faults", libraries, tmp_path)
    assert alive == {"contexts": 1, **NOTHING}
    expected = ["the GPU's memory is full", "the page-locked memory is full", "the GPU's memory is full"]
    lines = said.splitlines()
    assert len(lines) == 4
    assert all(line.startswith(begin) for line, begin in zip(lines, expected, strict=False))
    assert "could not run a step (error 700)" in lines[-1]


def test_the_driver_shows_what_pycuda_does_wrong_alone(libraries: str, tmp_path: Path) -> None:
    """So that silence above means something."""
    alive, said = ran("raw", libraries, tmp_path)
    assert (alive["memory"], alive["contexts"]) == (1, 1)
    assert "device_allocation in out-of-thread context could not be cleaned up" in said
    assert "PyCUDA WARNING: a clean-up operation failed" in said
