"""TaxiBJ's file: its values arrive exactly, and whatever is wrong with a file is one line that says so."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framecast.camera import taxibj
from framecast.camera.taxibj import open_split, picture
from framecast.errors import SourceError

from ..clips import write_flows  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

NAMES = ("X_train", "Y_train", "X_test", "Y_test")


@pytest.mark.parametrize("test", [False, True])
@pytest.mark.parametrize("kind", ["<f4", "<f8", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_values_are_mapped_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, order: Any, test: bool
) -> None:
    """In the file's precision, as the released loader does it; and in blocks, of which the last is shorter."""
    monkeypatch.setattr(taxibj, "_BLOCK", 2)
    rng = np.random.default_rng()
    arrays: dict[str, Any] = {
        name: np.asarray(rng.uniform(-1.1, 1.1, (5, 4, 2, 6, 7)), kind, order=order) for name in NAMES
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    split = open_split(tmp_path / "a.npz", test=test)
    x, y = (arrays[name] for name in (NAMES[2:] if test else NAMES[:2]))
    expected = np.concatenate([(x + 1) / 2, (y + 1) / 2], axis=1).astype(np.float32).transpose(0, 1, 3, 4, 2)
    assert (split.given, split.shape) == (4, (5, 8, 6, 7, 2))
    found = split.read()
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


def test_the_ends_of_the_range_are_exact(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        name: np.full((1, 4, 2, 3, 3), value, np.float32) for name, value in zip(NAMES, (-1, 1, 0, 1), strict=True)
    }
    np.savez(tmp_path / "a.npz", **arrays)
    assert open_split(tmp_path / "a.npz", test=False).read()[0, :, 0, 0, 0].tolist() == [0] * 4 + [1] * 4


def test_channels_are_drawn_side_by_side() -> None:
    flow = np.zeros((2, 3, 2), np.float32)
    flow[0, 0], flow[1, 2] = (0.5, 2), (-1, 1)
    drawn = picture(flow)
    assert drawn.shape == (2, 6, 3)
    assert drawn.dtype == np.uint8
    assert drawn[..., 1].tolist() == [[128, 0, 0, 255, 0, 0], [0, 0, 0, 0, 0, 255]]


class Trap:
    """Fails the test if it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("unpickled",)


def array(*shape: int, kind: type = np.float32) -> np.ndarray:
    return np.zeros(shape, kind)


GOOD = array(3, 4, 2, 8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Y_train": None}, "a.npz has no Y_train: TaxiBJ's dataset.npz has X_train, Y_train, X_test and Y_test (give"),
        (
            {"X_train": array(3, 4, 2, 8, 8, kind=np.uint8)},
            "X_train of a.npz must hold float32 or float64 [N, T, 2, H, W]",
        ),
        ({"X_train": array(3, 4, 2, 8, 8, kind=np.float16)}, "not float16 [3, 4, 2, 8, 8]: give TaxiBJ's dataset.npz"),
        ({"X_train": array(3, 4, 2, 64)}, "not float32 [3, 4, 2, 64]"),
        (
            {"Y_train": array(3, 4, 3, 8, 8)},
            "Y_train of a.npz must hold float32 or float64 [N, T, 2, H, W], not float32",
        ),
        ({"X_train": np.array([Trap()])}, "not object [1]"),
        ({"X_train": array(0, 4, 2, 8, 8)}, "X_train of a.npz is empty, [0, 4, 2, 8, 8]: give sequences"),
        ({"Y_train": array(3, 0, 2, 8, 8)}, "Y_train of a.npz is empty, [3, 0, 2, 8, 8]: give sequences"),
        (
            {"Y_train": array(2, 4, 2, 8, 8)},
            "X_train and Y_train of a.npz must differ only in their number of frames, not",
        ),
        ({"Y_train": array(3, 4, 2, 8, 9)}, "not [3, 4, 2, 8, 8] and [3, 4, 2, 8, 9]: make the file again"),
        ({"Y_train": GOOD + 1292}, "Y_train of a.npz holds values from 1292 to 1292: scale them to -1…1, as published"),
        ({"X_train": GOOD - np.float32(2.001)}, "X_train of a.npz holds values from -2.001 to -2.001"),
        (
            {"X_train": np.where(np.indices(GOOD.shape).sum(0) == 9, np.nan, GOOD)},
            "X_train of a.npz holds values that are not",
        ),
        ({"X_train": np.where(np.indices(GOOD.shape).sum(0) == 9, -np.inf, GOOD)}, "holds values that are not finite"),
    ],
)
def test_bad_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, np.ndarray | None], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays: dict[str, Any] = {
        name: one for name, one in {**dict.fromkeys(NAMES, GOOD), **changes}.items() if one is not None
    }
    np.savez("a.npz", **arrays)
    with pytest.raises(SourceError) as caught:
        open_split(Path("a.npz"), test=False).read()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert open_split(Path("a.npz"), test=True).read().shape == (3, 8, 8, 8, 2)  # the other split is whole


def test_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = write_flows(Path("whole.npz")).read_bytes()
    Path("folder.npz").mkdir()
    for name, data in {
        "empty": b"",
        "text": b"no archive",
        "cut": whole[: len(whole) // 2],
        "flipped": whole[:9999] + bytes([whole[9999] ^ 1]) + whole[10_000:],
        "magic": whole.replace(b"\x93NUMPY", b"\x93NUMPI", 1),
        "deep": whole.replace(b"{'descr'", b"((((((((", 1),
        "text2": b"PK\x05\x06" + whole[4:],
    }.items():
        Path(f"{name}.npz").write_bytes(data)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 4, 2, 32, 32)}
    )
    claimed = io.BytesIO()
    np.lib.format.write_array_header_1_0(claimed, {"descr": "<f4", "fortran_order": False, "shape": (9, 4, 2, 32, 32)})
    for name, head in (("huge", header), ("short", claimed)):
        with zipfile.ZipFile(f"{name}.npz", "w") as archive:
            archive.writestr("X_train.npy", head.getvalue() + bytes(100))
    for name, message in (
        ("none", "cannot read none.npz as TaxiBJ: No such file or directory (make or download it again)"),
        ("folder", "folder.npz is not a file: give TaxiBJ's dataset.npz"),
        ("empty", "cannot read empty.npz as TaxiBJ: File is not a zip file (make or download it again)"),
        ("text", "cannot read text.npz as TaxiBJ: File is not a zip file"),
        ("cut", "cannot read cut.npz as TaxiBJ: File is not a zip file"),
        ("flipped", "cannot read flipped.npz as TaxiBJ: Bad CRC-32"),
        ("magic", "cannot read magic.npz as TaxiBJ"),
        ("deep", "cannot read deep.npz as TaxiBJ"),
        ("text2", "cannot read text2.npz as TaxiBJ"),
        ("huge", "X_train of huge.npz is too large: "),
        ("short", "X_train of short.npz is damaged: 100 bytes, but [9, 4, 2, 32, 32] has 294912 (make or download it"),
        ("nul\0", "as TaxiBJ: embedded null byte (make"),
    ):
        with pytest.raises(SourceError) as caught:
            open_split(Path(f"{name}.npz"), test=False).read()
        assert message in str(caught.value)
        assert str(caught.value).isprintable()


def test_a_file_beyond_memory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    split = open_split(write_flows(tmp_path / "a.npz"), test=False)
    monkeypatch.setattr(np, "empty", full)
    with pytest.raises(SourceError, match="does not fit into memory: use a machine with more"):
        split.read()
