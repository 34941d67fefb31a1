"""Our Triton kernels, cross-compiled for other GPUs: they compile, fit the hardware, and match their launchers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from framecast.errors import EngineError, OptionError
from framecast.models.configs import build

triton = pytest.importorskip("triton", reason="Triton is for Linux: pip install 'framecast[triton]'")
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("Triton interprets in this process, and cannot compile", allow_module_level=True)

from framecast.kernels.cross import ARCHS, DTYPES, KERNELS, Compiled, compile_for  # noqa: E402 (needs Triton)

ROOT = Path(__file__).parents[2]
SHAPES = {
    "stgru": (64, 17, 30),
    "eifag": (128, 16, 16),
    "stau": (64, 17, 30),
}  # the largest states of each kind of network
USUAL = (87, 120)  # Orin (in every type) and the newest; the others are slow tests
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


@pytest.fixture(autouse=True, scope="module")
def empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def check(compiled: Compiled, arch: int, dtype: str) -> None:
    """Check what a launcher relies on and what makes a kernel fast."""
    assert f".target sm_{arch}" in compiled.ptx
    assert compiled.cubin[:4] == b"\x7fELF"
    entries = re.findall(r"\.visible \.entry (\w+)\((.*?)\)", compiled.ptx, re.DOTALL)
    assert [name for name, _ in entries] == [compiled.name]
    parameters = re.findall(r"\.param \.(\w+)", entries[0][1])
    assert parameters == ["u64"] * (len(compiled.parameters) + 2)  # plus two pointers to scratch memory
    assert f".reqntid {32 * compiled.num_warps}" in compiled.ptx
    assert compiled.spills == 0
    assert 2 * compiled.registers * 32 * compiled.num_warps <= 65536  # at least two programs per SM
    assert compiled.shared <= 48 * 1024  # more would have to be requested from the driver
    assert compiled.load_bits >= 4 * 8 * BYTES[dtype]  # four elements at once


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "arch", [arch if arch in USUAL else pytest.param(arch, marks=pytest.mark.slow) for arch in ARCHS]
)
def test_every_generation(kernel: str, arch: int) -> None:
    shape = SHAPES[kernel.partition("_")[0]]
    for dtype in DTYPES if arch == 87 else ("fp16",) if arch != 90 else ("fp16", "fp32"):
        check(compile_for(kernel, arch, dtype, shape), arch, dtype)


@pytest.mark.parametrize("config", ["stip-ucf", "stip-edge", "stau-kitti", "astm-mnist"])
def test_every_size(config: str) -> None:
    model = build(config)
    shapes = {**model.state_shapes, **{name: ring.shape for name, ring in model.histories.items()}}
    channels, height, width = shapes["t1" if config[0] == "s" else "c1"]
    for kernel in KERNELS:
        if kernel.partition("_")[0] == {"sti": "stgru", "sta": "stau", "ast": "eifag"}[config[:3]]:
            check(compile_for(kernel, 87, "fp16", (channels, height, width)), 87, "fp16")


@pytest.mark.parametrize("kernel", ["stgru_statistics", "stgru_norm_gates"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_forms_for_tensor_cores(kernel: str, dtype: str) -> None:
    """Channels-last, with the convolutions' biases and overlapping passes: loads stay wide, and nothing spills."""
    types = {"t": "fp32", "s": "fp32", "new_t": "fp32", "new_s": "fp32"}
    for arch, overlap in ((87, False), (90, True), (120, True)):
        compiled = compile_for(kernel, arch, dtype, (64, 16, 16), last=True, added=True, overlap=overlap, types=types)
        check(compiled, arch, dtype)
        assert [name for name, _ in compiled.parameters[-2:]] == ["added_t", "added_s"]
        waits = "griddepcontrol.wait" in compiled.ptx, "griddepcontrol.launch_dependents" in compiled.ptx
        assert waits == (overlap and kernel == "stgru_norm_gates", overlap and kernel == "stgru_statistics")


@pytest.mark.parametrize("kernel", ["stgru_statistics", "stau_scores"])
def test_large_states_take_several_tiles(kernel: str) -> None:
    compiled = compile_for(kernel, 90, "fp32", (64, 135, 240), batch=2)
    assert compiled.spills == 0
    assert compiled.grid[0] <= 256
    assert compiled.load_bits == 128


@pytest.mark.slow
def test_launchers_pass_the_arguments_that_kernels_take(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.kernels.launched"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    errors = [line for line in lines if line[0] == "="]
    launched = [line for line in lines if line[0] != "="]
    assert len(errors) == 10
    assert [line for line in errors if not float(line[3]) <= 1] == []
    # Parameters: the tensors and two pointers to scratch memory. Vectors: all loads but counts and first elements.
    expected = {
        "statistics_kernel": (5, 2),
        "norm_gates_kernel": (13, 26),
        "gates_kernel": (8, 10),
        "eifag_kernel": (12, 8),
        "scores_kernel": (9, 6),
        "fuse_kernel": (11, 7),
    }
    assert [name for name, _, _ in launched] == 3 * list(expected) + ["statistics_kernel", "norm_gates_kernel"]
    del launched[-2:]  # the overlapped form
    for name, parameters, vectors in launched:
        assert int(parameters) == expected[name][0]
        assert int(vectors) >= expected[name][1]


def test_parameters_are_in_the_order_of_the_launch() -> None:
    compiled = compile_for("eifag", 87, "fp16", (4, 3, 5), slots=2, batch=3, types={"count": "fp16"})
    names = ["cells[0]", "cells[1]", "count", "input", "forget", "candidate", "new"]
    assert compiled.parameters == tuple((name, "*fp16") for name in names)
    assert compiled.grid == (1, 3)
    types = dict(compile_for("stgru_norm_gates", 87, "fp16", (4, 3, 5)).parameters)
    assert (types["conv_t"], types["weight_t"], types["partials"], types["new_s"]) == (
        "*fp16",
        "*fp32",
        "*fp32",
        "*fp16",
    )


def test_ptx_for_an_older_driver() -> None:
    assert ".version 8.5" in compile_for("stgru_gates", 87, "fp16", (64, 16, 16), ptx_version=85).ptx


def test_a_build_compiles_its_kernels_without_torch(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["torch"] = None
import framecast.export.tensorrt, framecast.export.plugins.aot
from framecast.kernels.cross import KERNELS, compile_for
assert all(compile_for(kernel, 87, "fp16", (4, 3, 5)).cubin for kernel in KERNELS)
"""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_bad_input() -> None:
    with pytest.raises(OptionError, match="no kernel 'gates'"):
        compile_for("gates", 87, "fp16", (1, 1, 1))
    with pytest.raises(OptionError, match="fp32, fp16, bf16"):
        compile_for("eifag", 87, "fp64", (1, 1, 1))
    with pytest.raises(OptionError, match="sizes of at least 1"):
        compile_for("eifag", 87, "fp16", (1, 0, 1))


def test_an_interpreter_cannot_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(EngineError, match="unset TRITON_INTERPRET"):
        compile_for("eifag", 87, "fp16", (1, 1, 1))


def test_compiling_again_gives_the_same_ptx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compile_for("eifag", 90, "bf16", (64, 16, 16))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert compile_for("eifag", 90, "bf16", (64, 16, 16)).ptx == first.ptx
