"""The PTX interpreter itself: the result of each instruction, and every fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .ptx.machine import launch  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .ptx.memory import Memory  # noqa: TID252
from .ptx.parse import Fault  # noqa: TID252

Array = np.ndarray[Any, Any]
MODULE = """
.version 8.7
.target sm_90a
.extern .shared .align 16 .b8 smem[];
.visible .entry kernel(
	.param .u64 .ptr .global .align 1 kernel_param_0,
	.param .u64 .ptr .global .align 1 kernel_param_1
)
.reqntid {threads}
{{
	.reg .pred %p<9>;
	.reg .b16 %rs<9>;
	.reg .b32 %r<19>;
	.reg .b64 %rd<19>;
	ld.param.b64 %rd1, [kernel_param_0];   // input
	ld.param.b64 %rd2, [kernel_param_1];
	mov.u32 %r0, %tid.x;
	mov.u32 %r17, %ctaid.x;
	mad.lo.s32 %r18, %r17, {threads}, %r0; // the thread's number
{body}
	ret;
}}
"""
ROOM = 8  # bytes per thread, for each of its three inputs and for its output


def run(body: str, *inputs: Array, threads: int = 32, blocks: int = 2, shared: int = 1024, dtype: str = "u4") -> Array:
    """Each thread's output. In ``body``, ``%rd3`` is the address of its inputs, and ``%rd4`` that of its output."""
    lanes = threads * blocks
    given = np.zeros((lanes, 3), np.uint64)
    for i, values in enumerate(inputs):
        given[:, i] = np.resize(values, lanes).view(f"u{values.itemsize}")
    memory = Memory()
    pointers = [memory.add("input", given), memory.space("output", ROOM * lanes)]
    start = "mad.wide.u32 %rd3, %r18, 24, %rd1; mad.wide.u32 %rd4, %r18, 8, %rd2;"
    launch(memory, MODULE.format(threads=threads, body=start + body), "kernel", (blocks, 1), threads, shared, pointers)
    return memory.read(pointers[1], np.uint64, lanes).view(dtype).reshape(lanes, -1)[:, 0]


F32 = np.array(
    [0.0, -0.0, 1.5, -2.25, 3e38, -1e-40, np.inf, -np.inf, np.nan, 1 / 3, -7.0, 65519.0, 1e-8, 2.0**-25], "f4"
)
OTHER = np.array([2.0, 1.0, -0.0, np.nan, 5.0, 1e30, 0.5, 3e-39, -1.0, 1 / 3, 1.0, 2.5, -4.0], "f4")
S32 = np.array([0, 1, -1, 7, -7, 2**31 - 1, -(2**31), 123456789, -40], "i4")
BY = np.array([1, 3, 31, 32, 40, 2, 5], "i4")
S64 = np.array([5, -5, 2**40, -(2**63), 2**63 - 1], "i8")
HALF = np.array([0x3F80, 0xC049, 0x4300, 0x8000, 0x3C01], "u2")  # bits of bfloat16
F16 = np.array([1.5, -0.333, 65504, 6e-8, -0.0, np.inf, np.nan], "f2")


def halved(x: Array) -> Array:
    """Bits of the nearest bfloat16, found by comparing both neighbours."""
    low = (x.view("u4") >> 16).astype("u4")
    near = np.stack([((low + i) << 16).view("f4").astype("f8") for i in range(2)])
    off = np.abs(near - x)
    up = (off[1] < off[0]) | ((off[1] == off[0]) & (low % 2 == 1))
    return np.asarray(low + up).astype("u2")


def widened(bits: Array) -> Array:
    return np.asarray(bits.astype("u4") << 16).view("f4")


def field(word: Array, place: Array, length: Array) -> Array:
    parts = zip(word.tolist(), place.tolist(), length.tolist(), strict=True)
    return np.array([(a >> b) & ((1 << c) - 1) for a, b, c in parts], "u4")


def wide(x: Array) -> Array:
    return x.astype("f8")


SOME = F32[np.isfinite(F32) & (np.abs(F32) < 1e30)]
CASES: list[tuple[str, tuple[Array, ...], Callable[..., Array]]] = [
    # The instruction, its inputs, and a function of them that gives the expected result.
    ("add.f32", (F32, OTHER), lambda a, b: (wide(a) + b).astype("f4")),
    ("sub.rn.f32", (F32, OTHER), lambda a, b: (wide(a) - b).astype("f4")),
    ("mul.f32", (F32, OTHER), lambda a, b: (wide(a) * b).astype("f4")),
    ("fma.rn.f32", (F32, OTHER, F32[::-1]), lambda a, b, c: (wide(a) * b + c).astype("f4")),
    ("div.full.f32", (F32, OTHER), lambda a, b: (wide(a) / b).astype("f4")),
    ("max.f32", (F32, OTHER), lambda a, b: np.where(np.isnan(a) | (b > a), np.where(np.isnan(b), a, b), a)),
    ("min.f32", (F32, OTHER), lambda a, b: np.where(np.isnan(a) | (b < a), np.where(np.isnan(b), a, b), a)),
    ("neg.f32", (F32,), lambda a: (a.view("u4") ^ np.uint32(1 << 31)).view("f4")),
    ("sqrt.approx.ftz.f32", (np.abs(F32),), lambda a: np.where(a < 1.2e-38, 0, np.sqrt(wide(a))).astype("f4")),
    ("ex2.approx.f32", (F32,), lambda a: (2.0 ** wide(a)).astype("f4")),
    ("rcp.rn.f32", (F32,), lambda a: (1 / wide(a)).astype("f4")),
    ("add.s32", (S32, BY), lambda a, b: (a.astype("i8") + b).astype("i4")),
    ("sub.s32", (S32, S32[::-1]), lambda a, b: (a.astype("i8") - b).astype("i4")),
    ("mul.lo.s32", (S32, S32[::-1]), lambda a, b: (a.astype("i8") * b).astype("i4")),
    ("mul.hi.u32", (S32.view("u4"), S32.view("u4")), lambda a, b: ((a.astype("u8") * b) >> 32).astype("u4")),
    ("mul.hi.s32", (S32, S32[::-1]), lambda a, b: ((a.astype("i8") * b) >> 32).astype("i4")),
    ("mul.wide.s32", (S32, S32[::-1]), lambda a, b: a.astype("i8") * b),
    ("mul.wide.u32", (S32.view("u4"), S32.view("u4")), lambda a, b: a.astype("u8") * b),
    ("mad.wide.s32", (S32, BY, np.resize(S64, 9)), lambda a, b, c: a.astype("i8") * b + c),
    ("add.s64", (S64, S64[::-1]), lambda a, b: (a.view("u8") + b.view("u8")).view("i8")),
    ("max.s32", (S32, BY), np.maximum),
    ("min.u32", (S32.view("u4"), BY.view("u4")), np.minimum),
    ("div.s32", (S32, BY), lambda a, b: np.trunc(wide(a) / b).astype("i4")),
    ("rem.s32", (S32, BY), lambda a, b: np.fmod(wide(a), b).astype("i4")),
    ("and.b32", (S32, BY), np.bitwise_and),
    ("or.b32", (S32, BY), np.bitwise_or),
    ("xor.b32", (S32, BY), np.bitwise_xor),
    ("shl.b32", (S32, BY), lambda a, b: np.where(b > 31, 0, a.astype("i8") << b.clip(0, 31)).astype("i4")),
    ("shr.u32", (S32.view("u4"), BY), lambda a, b: (a.astype("u8") >> b.astype("u8")).astype("u4")),
    ("shr.s32", (S32, BY), lambda a, b: (a.astype("i8") >> b).astype("i4")),
    ("bfe.u32", (S32.view("u4"), BY, BY[::-1]), field),
    ("bfe.s32", (S32, np.array([23], "i4"), np.array([1], "i4")), lambda a, b, c: -((a >> 23) & 1)),
    ("cvt.f32.f16", (F16,), lambda a: a.astype("f4")),
    ("cvt.rn.f16.f32", (F32,), lambda a: a.astype("f2")),
    ("cvt.f32.bf16", (F16.view("u2"),), lambda a: widened(a)),
    ("cvt.rn.bf16.f32", (SOME,), halved),
    ("cvt.rn.f16x2.f32", (F32, OTHER), lambda a, b: np.stack([b, a], 1).astype("f2").view("u4")[:, 0]),
    ("cvt.rn.f32.u32", (S32.view("u4"),), lambda a: a.astype("f4")),
    ("cvt.s64.s32", (S32,), lambda a: a.astype("i8")),
    ("cvt.u64.u32", (S32.view("u4"),), lambda a: a.astype("u8")),
    ("cvt.u32.u64", (S64,), lambda a: a.astype("u4")),
    ("sub.rn.f32.f16", (F16, OTHER), lambda a, b: a.astype("f4") - b),
    ("fma.rn.f32.f16", (F16, F16[::-1], OTHER), lambda a, b, c: (wide(a) * b + c).astype("f4")),
    ("add.rn.f32.f16", (F16, OTHER), lambda a, b: a.astype("f4") + b),
    ("sub.rn.f32.bf16", (F16.view("u2"), OTHER), lambda a, b: widened(a) - b),
    ("fma.rn.f32.bf16", (HALF, HALF[::-1], OTHER), lambda a, b, c: (wide(widened(a)) * widened(b) + c).astype("f4")),
    ("cvt.rn.bf16x2.f32", (SOME, SOME[::-1]), lambda a, b: np.stack([halved(b), halved(a)], 1).view("u4")[:, 0]),
    ("sub.f32", (F32, OTHER), lambda a, b: (wide(a) - b).astype("f4")),
    ("min.s32", (S32, BY), np.minimum),
    ("neg.s32", (S32,), lambda a: (-a.astype("i8")).astype("i4")),
    ("mad.lo.s64", (S64 % 1000, S64[::-1] % 1000, S64), lambda a, b, c: a * b + c),
    ("or.b64", (S64, S64[::-1]), np.bitwise_or),
    ("shl.b64", (S64, BY), lambda a, b: a << b),
    ("add.rn.f32.bf16", (F16.view("u2"), OTHER), lambda a, b: widened(a) + b),
]
LETTER = {"1": "%p", "2": "%rs", "4": "%r", "8": "%rd"}


@pytest.mark.parametrize(("opcode", "inputs", "function"), CASES, ids=[case[0] for case in CASES])
def test_arithmetic(opcode: str, inputs: tuple[Array, ...], function: Callable[..., Array]) -> None:
    lanes = [np.resize(values, 64) for values in inputs]
    with np.errstate(all="ignore"):
        expected = function(*lanes)
    names = [f"{LETTER[str(values.itemsize)]}{i + 5}" for i, values in enumerate(inputs)]
    body = [f"ld.global.b{8 * x.itemsize} {names[i]}, [%rd3 + {8 * i}];" for i, x in enumerate(inputs)]
    result = f"{LETTER[str(expected.itemsize)]}8"
    body += [f"{opcode} {result}, {', '.join(names)};", f"st.global.b{8 * expected.itemsize} [%rd4], {result};"]
    actual = run("\n".join(body), *inputs, dtype=expected.dtype.str)
    assert np.array_equal(actual, expected, equal_nan=expected.dtype.kind == "f")
    if expected.dtype.kind == "f" and opcode[:3] not in ("max", "min"):
        numbers = ~np.isnan(expected)
        assert np.array_equal(np.signbit(actual[numbers]), np.signbit(expected[numbers]))


COMPARED = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal}
STORE = "st.global.b32 [%rd4], %r8;"
LOAD = "ld.global.b32 %r5, [%rd3]; ld.global.b32 %r6, [%rd3 + 8];"
CHOOSE = "selp.b32 %r8, 1, 0, %p1;" + STORE


@pytest.mark.parametrize("how", COMPARED)
def test_comparisons(how: str) -> None:
    """With a NaN, only the unordered comparisons are true; signed and unsigned integers compare differently."""
    lanes = [np.resize(F32, 64), np.resize(OTHER, 64)]
    nan = np.isnan(lanes[0]) | np.isnan(lanes[1])
    expected = COMPARED[how](*lanes)
    assert (run(f"{LOAD} setp.{how}.f32 %p1, %r5, %r6; {CHOOSE}", F32, OTHER) == expected).all()
    assert (run(f"{LOAD} setp.{how}u.f32 %p1, %r5, %r6; {CHOOSE}", F32, OTHER) == (expected | nan)).all()
    for type_ in ("i4", "u4"):
        a, b = (np.resize(values, 64).view(type_) for values in (S32, BY - 3))
        name = {"i4": "s32", "u4": "u32"}[type_]
        assert (run(f"{LOAD} setp.{how}.{name} %p1, %r5, %r6; {CHOOSE}", a, b) == COMPARED[how](a, b)).all()


def test_wide_comparisons_and_predicates() -> None:
    wide_load = "ld.global.b64 %rd5, [%rd3]; ld.global.b64 %rd6, [%rd3 + 8];"
    a, b = np.resize(S64, 64), np.resize(S64[::-1], 64)
    both = "setp.lt.s64 %p1, %rd5, %rd6; setp.ne.b64 %p2, %rd5, %rd6; setp.eq.b32 %p3, %r0, 3;"
    less, other, third = a < b, a != b, np.arange(64) % 32 == 3
    for logic, expected in (
        ("and.pred %p1, %p1, %p3;", less & third),
        ("or.pred %p1, %p1, %p3;", less | third),
        ("xor.pred %p1, %p1, %p2;", less ^ other),
        ("not.pred %p1, %p2;", ~other),
        ("mov.pred %p1, -1;", np.ones(64, bool)),
    ):
        assert (run(f"{wide_load} {both} {logic} {CHOOSE}", S64, S64[::-1]) == expected).all()
    picked = run(f"{LOAD} setp.ge.f32 %p1, %r5, %r6; selp.f32 %r8, %r5, %r6, %p1; {STORE}", F32, OTHER, dtype="f4")
    a, b = np.resize(F32, 64), np.resize(OTHER, 64)
    assert np.array_equal(picked, np.where(a >= b, a, b), equal_nan=True)


def test_vectors_and_halves_in_memory() -> None:
    body = """and.b32 %r1, %r0, 1; setp.eq.b32 %p1, %r1, 0; add.s32 %r5, %r18, 100; add.s32 %r6, %r18, 200;
    @%p1 st.global.v4.b32 [%rd4], {%r18, %r5, %r6, %r5};"""
    number = np.arange(0, 64, 2)
    assert (run(body).reshape(-1, 2)[:, 0] == number).all()
    mov = "mov.u16 %rs1, 7; mov.b32 {%rs2, %rs3}, %r0; mov.b32 %r1, smem; mad.lo.s32 %r2, %r0, 2, %r1;"
    body = "st.shared.b16 [%r2], %rs2; bar.warp.sync -1; ld.shared.b16 %rs4, [%r2]; mov.b32 %r8, {%rs4, %rs1};"
    assert (run(mov + body + "st.global.v2.b32 [%rd4], {%r8, %r8};") == np.arange(64) % 32 + (7 << 16)).all()
    assert (run(mov + body + "st.global.b16 [%rd4], %rs4;", dtype="u2") == np.arange(64) % 32).all()


def test_a_conversion_takes_the_low_bits_of_a_wider_register() -> None:
    body = "ld.global.b64 %rd5, [%rd3]; cvt.s64.s32 %rd6, %rd5; st.global.b64 [%rd4], %rd6;"
    values = np.array([5, -5, 2**31, 2**32 + 7, -(2**33) - 1], "i8")
    expected = np.resize(values, 64).astype("i4").astype("i8")
    assert (run(body, values, dtype="i8") == expected).all()


def test_pairs() -> None:
    pack = f"{LOAD} mov.b64 %rd5, {{%r5, %r6}}; mov.b64 %rd6, {{%r6, %r6}};"
    a, b = np.resize(F32, 64), np.resize(OTHER, 64)
    with np.errstate(all="ignore"):
        for opcode, low in (("add", a + b), ("sub", a - b), ("mul", a * b)):
            body = f"{pack} {opcode}.f32x2 %rd7, %rd5, %rd6; mov.b64 {{%r8, _}}, %rd7; {STORE}"
            assert np.array_equal(run(body, F32, OTHER, dtype="f4"), low, equal_nan=True)
    body = f"{pack} fma.rn.f32x2 %rd7, %rd5, %rd6, %rd6; mov.b64 {{_, %r8}}, %rd7; {STORE}"
    with np.errstate(all="ignore"):
        assert np.array_equal(run(body, F32, OTHER, dtype="f4"), (wide(b) * b + b).astype("f4"), equal_nan=True)
    halves = "mov.b32 {%rs1, %rs2}, %r5; mov.b32 %r8, {%rs2, %rs1};"
    words = np.resize(S32.view("u4"), 64)
    assert (run(f"{LOAD} {halves} {STORE}", S32) == ((words >> 16) | (words << 16))).all()


@pytest.mark.parametrize(
    ("how", "by", "limits", "expected"),
    [
        ("bfly", 4, 31, lambda lane: lane ^ 4),
        ("down", 3, 31, lambda lane: np.where(lane + 3 > 31, lane, lane + 3)),
        ("up", 3, 0, lambda lane: np.where(lane - 3 < 0, lane, lane - 3)),
        ("idx", 5, 31, lambda lane: 0 * lane + 5),
        ("idx", 5, 0x181F, lambda lane: lane // 8 * 8 + 5),  # in groups of 8
        ("down", 3, 0x181F, lambda lane: np.where(lane % 8 > 4, lane, lane + 3)),
    ],
)
def test_shuffles(how: str, by: int, limits: int, expected: Callable[[Array], Array]) -> None:
    actual = run(f"shfl.sync.{how}.b32 %r8, %r18, {by}, {limits}, -1; {STORE}", threads=64)
    lane = np.arange(128)
    assert (actual == lane // 32 * 32 + expected(lane % 32)).all()


def test_matrices() -> None:
    """A thread gets two adjacent elements of row ``lane // 4``, starting at column ``2 · (lane % 4)``."""
    body = """shl.b32 %r1, %r0, 4; mov.b32 %r2, smem; add.s32 %r3, %r2, %r1;
    mul.lo.s32 %r4, %r0, 4; add.s32 %r5, %r4, 1; add.s32 %r6, %r4, 2; add.s32 %r7, %r4, 3;
    st.shared.v4.b32 [%r3], {%r4, %r5, %r6, %r7};
    bar.sync 0;
    ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r9, %r10, %r11, %r12}, [%r3];
    add.s32 %r8, %r11, 0;"""
    lane = np.arange(32)
    expected = 4 * (2 * 8 + lane // 4) + lane % 4  # the third matrix, whose rows are addressed by threads 16 to 23
    assert (run(body + STORE) == np.resize(expected, 64)).all()


def test_branches_and_loops() -> None:
    """Each thread loops as often as its number says, and odd threads count each time twice."""
    body = """mov.b32 %r8, 0; mov.b32 %r1, 0; and.b32 %r2, %r18, 1; setp.eq.b32 %p2, %r2, 1;
    $again: setp.ge.u32 %p1, %r1, %r18; @%p1 bra $done; add.s32 %r8, %r8, 1;
    @!%p2 bra $even; add.s32 %r8, %r8, 1; $even: add.s32 %r1, %r1, 1; bra.uni $again;
    $done: """
    number = np.arange(64)
    assert (run(body + STORE) == number * (1 + number % 2)).all()
    early = "mov.b32 %r8, 7; setp.lt.u32 %p1, %r18, 3; @%p1 st.global.b32 [%rd4], %r18; @%p1 ret;"
    assert (run(early + STORE) == np.where(number < 3, number, 7)).all()
    same = "and.b32 %r1, %r0, 31; mov.b32 %r8, 1; setp.eq.b32 %p1, %r17, 1; @%p1 bra $on; bar.sync 0; $on:"
    assert (run(same + STORE, threads=64) == 1).all()  # only one of the blocks reaches the barrier


UNDEFINED = "setp.lt.u32 %p1, %r0, 9; @%p1 mov.b32 %r8, 1;"
SHARED = "mov.b32 %r1, smem; shl.b32 %r2, %r0, 2; add.s32 %r3, %r1, %r2; st.shared.b32 [%r3], %r0;"
FAULTS = {
    "unknown instruction": f"sin.approx.f32 %r8, %r0; {STORE}",
    "unknown instruction: add.rz": "add.rz.f32 %r8, %r0, %r0;",
    "unknown instruction: ld.volatile": "ld.volatile.global.b32 %r8, [%rd3];",
    "unknown instruction: add.s32 %r8, %r0$": "add.s32 %r8, %r0;",
    "unknown instruction: shfl": "shfl.sync.bfly.b32 %r8, %r0, 1, 31, 15;",
    "unknown instruction: bar.sync 1": "bar.sync 1, 32;",
    "unreadable operand": "add.s32 %r8, %r0, 1.5;",
    "unknown instruction: ld.global.v4.b64": "ld.global.v4.b64 {%rd5, %rd6, %rd7, %rd8}, [%rd1];",
    "branches to an unknown label": "bra $nowhere;",
    "does not end": "$on: bra $on;",
    "reads 4 bytes at byte -4 of input": "ld.global.b32 %r8, [%rd1 + -4];",
    "reads 4 bytes at byte 1536 of input, which has 1536": "ld.global.b32 %r8, [%rd1 + 1536];",
    "reads 16 bytes at byte 1536": "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1 + 1536];",
    "outside every buffer": "mov.b64 %rd5, 0; ld.global.b32 %r8, [%rd5];",
    "not a multiple of 8": "ld.global.v2.b32 {%r1, %r2}, [%rd3 + 4];",
    "writes 4 bytes at byte 512 of output": "st.global.b32 [%rd2 + 512], %r0;",
    "writes input, an input": "st.global.b32 [%rd3], %r0;",
    "writes twice .*output": "st.global.b32 [%rd2], %r0;",
    "writes twice to the same place": f"mov.b32 %r8, 1; {STORE} {STORE}",
    "reads output, which the same launch writes": f"mov.b32 %r8, 1; {STORE} ld.global.b32 %r1, [%rd4];",
    "stores a value that was never written": f"{UNDEFINED} {STORE}",
    "stores a value that was never": f"add.s32 %r8, %r7, 1; {STORE}",
    "stores a value": f"ld.global.b32 %r8, [%rd4]; {STORE}",
    "never written in some threads": f"{UNDEFINED} setp.eq.b32 %p2, %r8, 1; @%p2 bra $on; $on:",
    "depends on %p3, which was never written": "@%p3 bra $on; $on:",
    "uses address .* never written": "ld.global.b32 %r8, [%rd9];",
    "is not declared": "add.s32 %r8, %r77, 1;",
    "reads 32 bits of %rd1, which has 64": "add.s32 %r8, %rd1, 1;",
    "writes 32 bits to": "add.s32 %rs1, %r0, 1;",
    "needs all threads, but some are elsewhere: bar": "setp.lt.u32 %p1, %r0, 9; @%p1 bra $on; bar.sync 0; $on:",
    "needs all threads, but some are elsewhere: @%p1 shfl": "setp.lt.u32 %p1, %r0, 9; "
    "@%p1 shfl.sync.bfly.b32 %r8, %r0, 1, 31, -1;",
    "without a barrier in between: ld": f"{SHARED} ld.shared.b32 %r8, [%r1];",
    "writes what another warp reads": f"{SHARED} bar.sync 0; ld.shared.b32 %r8, [%r1]; st.shared.b32 [%r3], %r0;",
    "writes what another warp writes": "mov.b32 %r1, smem; st.shared.b32 [%r1], %r0;",
    "shared memory from byte 0 to 1028 of 1024": "mov.b32 %r1, smem; mad.lo.s32 %r2, %r0, 16, %r1; "
    "setp.eq.b32 %p1, %r0, 63; @%p1 add.s32 %r2, %r1, 1024; st.shared.b32 [%r2], %r0;",
    "stores": f"mov.b32 %r1, smem; ld.shared.b32 %r8, [%r1]; {STORE}",
}


@pytest.mark.parametrize("message", FAULTS)
def test_faults(message: str) -> None:
    with pytest.raises(Fault, match=message):
        run(FAULTS[message], threads=64, blocks=1)


def test_undefined_values_may_be_passed_on() -> None:
    """Undefined values are no fault as long as no result depends on them."""
    expected = np.where(np.arange(64) % 32 < 9, 1, 5)
    assert (run(f"{UNDEFINED} add.s32 %r8, %r8, 0; selp.b32 %r8, %r8, 5, %p1; {STORE}") == expected).all()
    half = "mov.b64 %rd5, {%r0, %r7}; add.f32x2 %rd5, %rd5, %rd5; mov.b64 {%r8, _}, %rd5;"
    assert (run(half + STORE) == 2 * (np.arange(64) % 32)).all()  # thread numbers, read as the bits of subnormal floats
    assert (run(f"ld.global.b32 %r1, [%rd4]; add.s32 %r2, %r1, 1; mov.b32 %r8, 3; {STORE}") == 3).all()
    met = f"{SHARED} bar.sync 0; xor.b32 %r4, %r2, 252; add.s32 %r4, %r4, %r1; ld.shared.b32 %r8, [%r4]; {STORE}"
    assert (run(met, threads=64) == np.resize(np.arange(64)[::-1], 128)).all()


def test_a_launch_must_fit_the_kernel() -> None:
    memory = Memory()
    ptx = MODULE.format(threads=32, body="")
    pointers = [memory.space("input", 64), memory.space("output", 64)]
    for name, threads, given in (("other", 32, pointers), ("kernel", 64, pointers), ("kernel", 32, pointers[:1])):
        with pytest.raises(Fault, match="takes 2 parameters and 32 threads"):
            launch(memory, ptx, name, (1, 1), threads, 0, given)
    with pytest.raises(Fault, match="with 2 kernels"):
        launch(memory, ptx + ptx, "kernel", (1, 1), 32, 0, pointers)


def test_overlapping_launches() -> None:
    """A launch may read the output of the previous launch only after it waits."""
    ptx = {
        "first": "mad.wide.u32 %rd4, %r18, 4, %rd2; st.global.b32 [%rd4], %r18; griddepcontrol.launch_dependents;",
        "waits": "griddepcontrol.wait; mad.wide.u32 %rd4, %r18, 4, %rd1; ld.global.b32 %r1, [%rd4];",
        "hurries": "mad.wide.u32 %rd4, %r18, 4, %rd1; ld.global.b32 %r1, [%rd4]; griddepcontrol.wait;",
        "never": "mad.wide.u32 %rd4, %r18, 4, %rd1; ld.global.b32 %r1, [%rd4];",
    }
    for second in ("waits", "hurries", "never"):
        memory = Memory()
        old, new = memory.add("old", np.zeros(64, "u4")), memory.space("new", 256)
        arguments = ("kernel", (2, 1), 32, 0)
        launch(memory, MODULE.format(threads=32, body=ptx["first"]), *arguments, [old, new])
        if second == "waits":
            launch(memory, MODULE.format(threads=32, body=ptx[second]), *arguments, [new, old])
            continue
        with pytest.raises(Fault, match="before it waits"):
            launch(memory, MODULE.format(threads=32, body=ptx[second]), *arguments, [new, old])
