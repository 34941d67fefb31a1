"""Our kernels run by their PTX on the CPU (``tests/kernels/ptx``), against float64.

Outputs and partial results are NaN beforehand. The grid, the order of parameters and their types are those of a launch.
What a GPU alone can show is left: how fast they are, and its approximate instructions, which are computed exactly here.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="Triton is for Linux: pip install 'framecast[triton]'")
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("Triton interprets in this process, and cannot compile", allow_module_level=True)

from framecast.kernels import cross  # noqa: E402 (needs Triton)
from framecast.kernels.cross import ARCHS, DTYPES, Compiled  # noqa: E402

from .ptx.operators import KERNELS, Case, compiled, off, run  # noqa: E402, TID252 (run from any folder)
from .ptx.parse import Fault  # noqa: E402, TID252

USUAL = (87, 90, 120)  # the others are slow tests
SHAPES = ((64, 16, 16), (64, 17, 30), (7, 9, 11))  # stip-ucf, 4K, and an odd one
SMALL = (7, 9, 11)
STATES = dict.fromkeys(("t", "s", "new_t", "new_s"), "fp32")


@pytest.fixture(autouse=True, scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        patch.setattr(cross, "_resources", lambda ptx, arch: (0, 0))  # ptxas again, for what nobody asks here
        yield


def usual() -> Iterator[Case]:
    """Each operator in each type for each usual GPU, with every shape beside every type."""
    for i, operator in enumerate(KERNELS):
        for j, arch in enumerate(USUAL):
            for k, dtype in enumerate(DTYPES):
                yield Case(operator, arch, dtype, SHAPES[(j + k) % 3], 3 if (i + j + k) % 2 else 1)


def forms() -> Iterator[Case]:
    """The STGRU channels-last, with biases of the convolutions, float32 states, and passes that overlap."""
    for arch, dtype, shape, batch in ((87, "fp16", SMALL, 3), (90, "fp16", SHAPES[0], 1), (120, "bf16", SMALL, 3)):
        options = {"last": True, "added": True, "overlap": arch >= 90, "types": STATES}
        yield Case("stgru", arch, dtype, shape, batch, options)
    yield Case("stgru", 120, "fp32", SMALL, 1, {"added": True})


@pytest.mark.parametrize("case", [*usual(), *forms()], ids=str)
def test_kernels_equal_float64(case: Case) -> None:
    assert off(case, run(case)[0]) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("operator", KERNELS)
def test_every_generation_shape_and_form(operator: str, arch: int) -> None:
    options: list[dict[str, Any]] = [{}]
    if operator == "stgru":
        overlaps = (False, True) if arch >= 90 else (False,)
        flags = [(last, added, overlap) for last in (False, True) for added in (False, True) for overlap in overlaps]
        options = [{"last": last, "added": added, "overlap": overlap} for last, added, overlap in flags]
        options.append({**options[-1], "types": STATES})
    for dtype in DTYPES:
        for shape in SHAPES:
            for batch in (1, 3):
                for more in options:
                    case = Case(operator, arch, dtype, shape, batch, more)
                    assert off(case, run(case)[0]) <= 1, case


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["stgru", "stau"])
def test_large_states_take_several_tiles(operator: str) -> None:
    case = Case(operator, 90, "fp16", (64, 135, 240), 2)
    results, counts = run(case)
    assert counts["bra"]
    assert off(case, results) <= 1


@pytest.mark.parametrize("operator", KERNELS)
def test_an_engine_has_the_same_without_scratch_memory(operator: str) -> None:
    """The two parameters that are struck out of the PTX for a TensorRT engine are not used."""
    case = Case(operator, 87, "fp16", SMALL, 3)
    whole, stripped = run(case), run(case, stripped=True)
    assert whole[1] == stripped[1]
    assert all((x == y).all() for x, y in zip(whole[0], stripped[0], strict=True))


def found(case: Case, alter: Callable[[str, Compiled], Compiled]) -> str:
    """By what a mistake is found; empty if it is not."""
    try:
        return "numbers" if not off(case, run(case, alter)[0]) <= 1 else ""
    except Fault as fault:
        return str(fault)


@pytest.mark.parametrize("operator", KERNELS)
def test_swapped_parameters_are_found(operator: str) -> None:
    """Any two neighbours of any kernel. Five samples: in one of them alone, each cell counts."""
    case = Case(operator, 87, "fp32", (2, 3, 5), 5)
    for kernel in KERNELS[operator]:
        for i in range(len(compiled(case, kernel).parameters) - 1):

            def swap(name: str, built: Compiled, i: int = i, kernel: str = kernel) -> Compiled:
                given = list(built.parameters)
                given[i : i + 2] = given[i + 1], given[i]
                return replace(built, parameters=tuple(given)) if name == kernel else built

            assert found(case, swap), (kernel, i)


@pytest.mark.parametrize("operator", KERNELS)
def test_a_wrong_grid_is_found(operator: str) -> None:
    case = Case(operator, 87, "fp32", SMALL, 2)
    for kernel in KERNELS[operator]:
        for x, y, how in ((-1, 0, "numbers|never written"), (0, -1, "numbers|never written"), (0, 1, "reads")):

            def resize(name: str, built: Compiled, x: int = x, y: int = y, kernel: str = kernel) -> Compiled:
                grid = built.grid[0] + x, built.grid[1] + y
                return replace(built, grid=grid) if name == kernel else built

            assert re.search(how, found(case, resize)), (kernel, x, y)


@pytest.mark.parametrize(
    ("operator", "options"),
    [
        ("stgru", {"forget_bias": 1.0}),
        ("stgru", {"eps": 1e-3}),
        ("gates", {"forget_bias": 1.0}),
        ("eifag", {"forget_bias": 1.0}),
        ("stau", {"scale": 1 / math.sqrt(64 * 16 * 16)}),
    ],
)
def test_a_stale_constant_is_found(operator: str, options: dict[str, float]) -> None:
    assert found(Case(operator, 87, "fp32", SMALL, 2, options), lambda name, built: built) == "numbers"


@pytest.mark.parametrize("operator", KERNELS)
def test_a_kernel_of_another_size_is_found(operator: str) -> None:
    """As an engine would have it that was built for another picture."""
    case = Case(operator, 87, "fp32", SMALL, 2)
    for shape in ((7, 9, 10), (7, 9, 12)):
        other = replace(case, shape=shape)
        assert found(case, lambda name, built, other=other: compiled(other, name))


def changed(pattern: str, by: str, index: int) -> Callable[[str, Compiled], Compiled]:
    """The PTX with one of what matches changed."""

    def change(name: str, built: Compiled) -> Compiled:
        places = list(re.finditer(pattern, built.ptx))
        if index >= len(places):
            return built
        place = places[index]
        return replace(built, ptx=built.ptx[: place.start()] + place.expand(by) + built.ptx[place.end() :])

    return change


@pytest.mark.parametrize("operator", ["stgru", "stau"])
def test_a_missing_barrier_is_found(operator: str) -> None:
    case = Case(operator, 87, "fp32", (16, 16, 16), 5)
    counts = Counter(name for kernel in KERNELS[operator] for name in re.findall("bar.sync", compiled(case, kernel).ptx))
    assert counts["bar.sync"] > 2
    missed = [i for i in range(counts["bar.sync"]) if not found(case, changed(r"bar\.sync\s+0;", "", i))]
    assert missed == []


@pytest.mark.parametrize("operator", KERNELS)
def test_a_missing_mask_is_found(operator: str) -> None:
    """Of the first and the last load and store."""
    case = Case(operator, 87, "fp32", SMALL, 1)
    for what in ("ld", "st"):
        pattern = rf"@%p\d+ ({what}\.global)"
        count = min(len(re.findall(pattern, compiled(case, kernel).ptx)) for kernel in KERNELS[operator])
        for index in {0, count - 1}:
            assert found(case, changed(pattern, r"\1", index)), (what, index)


def test_a_pass_that_does_not_wait_for_the_one_before_is_found() -> None:
    case = Case("stgru", 90, "fp16", SMALL, 1, {"overlap": True})
    assert off(case, run(case)[0]) <= 1
    message = found(case, changed(r"griddepcontrol\.wait;", "", 0))
    assert "before it waits" in message
