"""``cuda.py`` with the real pycuda, built by ``make pycuda``, on a fake driver (``libcuda.c``).

This tests pycuda's actual rules for threads and contexts, not our reading of them. TensorRT is a fake, too
(``fake_tensorrt.py``), and there is no GPU: ``benchmarks/gpu_check.py`` tests a real one.
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

from ..exported import exported  # noqa: F401, TID252 (marks this file for .ci/test-pythons: needs torch)
from .pycuda_build import place  # noqa: TID252
from .test_tensorrt_engine import artifact, built  # noqa: TID252

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NOTHING = dict.fromkeys(("streams", "events", "memory", "locked", "graphs", "executables", "faults"), 0)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the fake driver."""
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
    """The objects alive when the process of a scenario exits, and its stderr."""
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
def test_everything_is_freed_without_warnings(scenario: str, libraries: str, tmp_path: Path) -> None:
    """Only the context stays, until the process ends."""
    assert ran(scenario, libraries, tmp_path) == ({"contexts": 1, **NOTHING}, "")


def test_objects_alive_at_exit_are_left_to_the_driver_without_warnings(libraries: str, tmp_path: Path) -> None:
    alive, printed = ran("at_exit", libraries, tmp_path)
    assert printed == ""
    assert alive["memory"] > 0
    assert (alive["contexts"], alive["faults"]) == (1, 0)


def test_calls_that_the_driver_refuses_are_reported(libraries: str, tmp_path: Path) -> None:
    alive, printed = ran("faults", libraries, tmp_path)
    assert alive == {"contexts": 1, **NOTHING}
    expected = ["the GPU's memory is full", "the page-locked memory is full", "the GPU's memory is full"]
    lines = printed.splitlines()
    assert len(lines) == 4
    assert all(line.startswith(begin) for line, begin in zip(lines, expected, strict=False))
    assert "could not run a step (error 700)" in lines[-1]


def test_the_driver_shows_leaks_of_pycuda_alone(libraries: str, tmp_path: Path) -> None:
    """This shows that the fake driver detects the faults that the tests above rule out."""
    alive, printed = ran("raw", libraries, tmp_path)
    assert (alive["memory"], alive["contexts"]) == (1, 1)
    assert "device_allocation in out-of-thread context could not be cleaned up" in printed
    assert "PyCUDA WARNING: a clean-up operation failed" in printed
