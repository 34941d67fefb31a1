"""The PTX of our kernels, run on the CPU (``tests/kernels/ptx``) and compared with float64.

Outputs and partial results start as NaN. The grid and the order and types of the parameters are those of a real launch.
Only a GPU can show the rest: speed, and the error of approximate instructions, which are computed exactly here.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

triton = pytest.importorskip("triton", reason="Triton is for Linux: pip install 'framecast[triton]'")
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("Triton interprets in this process, and cannot compile", allow_module_level=True)

from framecast.kernels import cross, launch  # noqa: E402 (needs Triton)
from framecast.kernels.cross import ARCHS, DTYPES, Compiled  # noqa: E402
from framecast.kernels.stau_attention import kernel as stau_attention  # noqa: E402
from framecast.kernels.stgru_gates import kernel as stgru_gates  # noqa: E402

from .ptx.operators import KERNELS, Case, compiled, off, run  # noqa: E402, TID252 (runs from any folder)
from .ptx.parse import Fault  # noqa: E402, TID252

USUAL = (87, 90, 120)  # the others are slow tests
SHAPES = ((64, 16, 16), (64, 17, 30), (7, 9, 11))  # stip-ucf, 4K, and an odd one
SMALL = (7, 9, 11)
STATES = dict.fromkeys(("t", "s", "new_t", "new_s"), "fp32")


@pytest.fixture(autouse=True, scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        patch.setattr(cross, "_resources", lambda ptx, arch: (0, 0))  # saves another run of ptxas
        yield


def usual() -> Iterator[Case]:
    """Each operator on each usual GPU in two types; together they cover every shape with every type and GPU."""
    for i, operator in enumerate(KERNELS):
        for j, arch in enumerate(USUAL):
            for k in range(2):
                yield Case(operator, arch, DTYPES[(j + k) % 3], SHAPES[(i + j + 2 * k) % 3], 3 if (i + k) % 2 else 1)


OVERLAP = Case("stgru", 90, "fp16", SHAPES[0], 1, {"last": True, "added": True, "overlap": True, "types": STATES})
FORMS = (  # channels-last, biases of the convolutions, float32 states, overlapping passes
    OVERLAP,
    replace(OVERLAP, arch=120, dtype="bf16", shape=SMALL, batch=3),
    Case("stgru", 87, "fp32", SMALL, 3, {"added": True}),
)


@pytest.mark.parametrize("case", [*usual(), *FORMS], ids=str)
def test_kernels_equal_float64(case: Case) -> None:
    """On Orin without the parameters for scratch memory, which a TensorRT engine's PTX does not have."""
    assert off(case, run(case, stripped=case.arch == 87)[0]) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("operator", KERNELS)
def test_every_generation_type_shape_and_form(operator: str, arch: int) -> None:
    sizes = list(itertools.product(DTYPES, SHAPES, (1, 3)))
    cases = [Case(operator, arch, *size) for size in sizes]
    if operator == "stgru":
        overlaps = (False, True) if arch >= 90 else (False,)
        for i, (last, added, overlap) in enumerate(itertools.product((False, True), (False, True), overlaps)):
            options = {"last": last, "added": added, "overlap": overlap, "types": STATES if added else None}
            cases += [Case(operator, arch, *size, options) for size in sizes[i % 4 :: 4]]
    found = {str(case): off(case, run(case)[0]) for case in cases}
    assert {case: off for case, off in found.items() if not off <= 1} == {}


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["stgru", "stau"])
def test_large_states_take_several_tiles(operator: str) -> None:
    case = Case(operator, 90, "fp16", (64, 135, 240), 2)
    results, counts = run(case)
    assert counts["bra"]
    assert off(case, results) <= 1


@contextmanager
def planned(**values: int) -> Iterator[None]:
    """Plan launches as for larger tensors."""
    caches = stgru_gates.launches, stau_attention.launches, compiled
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(launch, name, value)
        for cached in caches:
            cached.cache_clear()
        yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize("operator", ["stgru", "stau"])
def test_several_tiles_per_program(operator: str) -> None:
    with planned(PARTIALS=2, MOST_REDUCED=128):
        case = Case(operator, 90, "fp16", SMALL, 3)
        results, counts = run(case)
        assert counts["bra"] > 1
        assert off(case, results) <= 1


def broken(operator: str) -> Case:
    """The case that the tests below break. Its samples have five ages, so swapping two EIFAG cells changes a result."""
    return Case(operator, 87, "fp32", SMALL, 5)


def found(case: Case, alter: Callable[[str, Compiled], Compiled]) -> str:
    """How the run detects a mistake: a fault's message, ``numbers``, or an empty string if it does not."""
    try:
        return "numbers" if not off(case, run(case, alter)[0]) <= 1 else ""
    except Fault as fault:
        return str(fault)


@pytest.mark.parametrize("operator", KERNELS)
def test_swapped_parameters_are_detected(operator: str) -> None:
    """Swap any two adjacent parameters of any kernel."""
    case = broken(operator)
    for kernel in KERNELS[operator]:
        for i in range(len(compiled(case, kernel).parameters) - 1):

            def swap(name: str, built: Compiled, i: int = i, kernel: str = kernel) -> Compiled:
                given = list(built.parameters)
                if name == kernel:
                    given[i], given[i + 1] = given[i + 1], given[i]
                return replace(built, parameters=tuple(given))

            assert found(case, swap), (kernel, i)


@pytest.mark.parametrize("operator", KERNELS)
def test_a_wrong_grid_is_detected(operator: str) -> None:
    case = broken(operator)
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
def test_a_stale_constant_is_detected(operator: str, options: dict[str, float]) -> None:
    stale = replace(broken(operator), options=options)
    assert found(broken(operator), lambda name, built: compiled(stale, name)) == "numbers"


@pytest.mark.parametrize("operator", KERNELS)
def test_a_kernel_of_another_size_is_detected(operator: str) -> None:
    """Shapes that do not match the arguments, as in an engine built for another picture size."""
    case = broken(operator)
    other = replace(case, shape=(7, 9, 12))
    assert found(case, lambda name, built: compiled(other, name))


def changed(pattern: str, by: str, only: int | None = None) -> Callable[[str, Compiled], Compiled]:
    """An alteration that replaces matches in the PTX: all of them, or only one."""

    def change(name: str, built: Compiled) -> Compiled:
        count = iter(range(10_000))
        ptx = re.sub(pattern, lambda place: place.expand(by) if only in (None, next(count)) else place[0], built.ptx)
        return replace(built, ptx=ptx)

    return change


@pytest.mark.parametrize("operator", ["stgru", "stau"])
def test_a_missing_barrier_is_detected(operator: str) -> None:
    case = Case(operator, 87, "fp32", SMALL, 1)
    with planned(PROGRAMS=1):  # large programs with many warps
        kernels = [compiled(case, kernel) for kernel in KERNELS[operator]]
        most = max(kernel.ptx.count("bar.sync") for kernel in kernels)
        assert max(kernel.num_warps for kernel in kernels) == 8
        assert most > 2
        assert [i for i in range(most) if not found(case, changed(r"bar\.sync\s+0;", "", i))] == []


@pytest.mark.parametrize("what", ["ld", "st"])
@pytest.mark.parametrize("operator", KERNELS)
def test_missing_masks_are_detected(operator: str, what: str) -> None:
    alter = changed(rf"@%p\d+ ({what}\.global)", r"\1")
    assert re.search("reads|writes", found(broken(operator), alter))


def test_a_pass_that_does_not_wait_for_the_previous_one_is_detected() -> None:
    assert "before it waits" in found(OVERLAP, changed(r"griddepcontrol\.wait;", ""))
