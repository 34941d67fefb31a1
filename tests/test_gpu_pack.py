"""``benchmarks/gpu_pack.py`` and the ``unpack.py`` that it writes, with packages missing and present."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("gpu_pack")


def wheel(folder: Path, name: str) -> None:
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}/__init__.py", "")
        file.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


def test_unpack_unpacks_only_missing_packages_and_names_those_that_fail_to_import(
    script: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "unpack.py").write_text(script.UNPACK)
    wheel(tmp_path, "triton")
    wheel(tmp_path, "elsewhere")
    (tmp_path / "there").mkdir()
    wheel(tmp_path / "there", "elsewhere")
    with zipfile.ZipFile(tmp_path / "there" / "elsewhere-1.0-py3-none-any.whl") as file:
        file.extractall(tmp_path / "there")
    command = [sys.executable, "-S", str(tmp_path / "unpack.py")]  # -S: ignore the packages installed here
    environment = {"PYTHONPATH": str(tmp_path / "there")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[:3] == [
        "elsewhere: 1.0 is already installed",
        "triton: unpacked 1.0",
        "torch cannot be imported: No module named 'torch'",
    ]
    assert "triton cannot" not in done.stdout
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == ["triton", "triton-1.0.dist-info"]


def test_a_folder_that_is_not_a_pack_is_left_alone(script: ModuleType, tmp_path: Path) -> None:
    kept, pack, mnist = tmp_path / "kept", tmp_path / "pack", tmp_path / "pack" / "mnist"
    kept.mkdir()
    (kept / "unpack.py").write_text("mine")
    mnist.mkdir(parents=True)
    (pack / "unpack.py").write_text(script.UNPACK)
    file = tmp_path / "file"
    file.touch()
    command = [sys.executable, str(BENCHMARKS / "gpu_pack.py")]
    for words, printed in (
        ([kept], f"{kept} is not empty and has no unpack.py of an earlier pack"),
        ([pack, "--work", kept], f"{kept} is not empty and has no gpu_pack.txt of an earlier pack"),
        ([file], f"{file} is not a folder"),
        ([pack, "--mnist", mnist], f"{mnist} is inside {pack}, which is recreated"),
    ):
        done = subprocess.run([*command, *map(str, words)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: {printed}: give")
        assert done.stderr.count("\n") == 1
    assert (kept / "unpack.py").is_file()
    assert mnist.is_dir()
    assert not script.refused(pack, "unpack.py", script.UNPACK)
    assert not script.refused(tmp_path / "new", "unpack.py", script.UNPACK)


def test_a_python_with_headers_is_of_the_right_version(script: ModuleType) -> None:
    for python in script.pythons():
        printed = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout
        assert printed.startswith("Python 3.12.")
