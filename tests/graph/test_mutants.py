"""Damaged artifacts: whatever bytes a file has, every way in returns or raises one line that says what is wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from framecast.errors import ArtifactError, EngineError, FramecastError
from framecast.export.inspect import TappedGraph
from framecast.graph.artifact import read
from framecast.runtime.engines import open_engine
from framecast.runtime.stepper import Stepper

from .test_manifest import artifact, still  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

MUTANTS = 300


def mutant(data: bytes, number: int) -> bytes:
    """Change some bytes: replace, flip, remove, insert or repeat them."""
    chance, changed = random.Random(number), bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        at, other = chance.randrange(len(changed)), chance.randrange(len(changed))
        kind = chance.randrange(5)
        if kind == 0:
            changed[at] = chance.randrange(256)
        elif kind == 1:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del changed[at : at + chance.choice([1, 2, 8, 50])]
        elif kind == 3:
            changed[at:at] = chance.randbytes(chance.choice([1, 2, 8]))
        else:
            changed[at : at + 8] = changed[other : other + 8]
    return bytes(changed)


@pytest.mark.parametrize("batch", range(3))
def test_a_damaged_artifact_is_refused_in_one_line(tmp_path: Path, batch: int) -> None:
    whole = artifact(tmp_path / "whole.onnx", still()).read_bytes()
    path, refused = tmp_path / "damaged.onnx", 0
    for number in range(batch, MUTANTS, 3):
        path.write_bytes(mutant(whole, number))
        refused += sum(is_refused(way, path, number) for way in (read, step))
    assert refused > MUTANTS / 3


def is_refused(way: Callable[[Path], object], path: Path, number: int) -> bool:
    """Whether this way in refuses the mutant, in one line. Fails if it raises anything else."""
    try:
        way(path)
    except (ArtifactError, EngineError) as error:
        assert str(error).isprintable(), f"mutant {number}: {error!r}"  # noqa: PT017 (most raise, some do not)
        return True
    except Exception as error:  # noqa: BLE001
        pytest.fail(f"mutant {number}: {error!r}")
    return False


def step(path: Path) -> None:
    """Open an artifact with the engine that runs everywhere, and step if it opens."""
    with open_engine(path, "onnxruntime", threads=1) as engine:
        stepper = Stepper(engine)
        width, height = engine.manifest.size
        if engine.manifest.is_picture and width * height < 1 << 20:
            stepper.advance([np.zeros((height, width, 3), np.uint8)])
            stepper.render()


def test_a_graph_that_opens_but_cannot_step_is_one_line(tmp_path: Path) -> None:
    path = artifact(tmp_path / "still.onnx", still())
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array([99]), "far"))
    model.graph.node.insert(0, helper.make_node("Gather", ["frame", "far"], ["gathered"], axis=1))
    model.graph.node.insert(1, helper.make_node("Add", ["frame", "gathered"], ["sum"]))
    model.graph.node[2].input[0] = "sum"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match=r"^onnxruntime could not run still: [^\n]*$"):
        step(path)
    with pytest.raises(EngineError, match=r"^onnxruntime could not run still: [^\n]*$"):
        TappedGraph(path).step(np.zeros((1, 3, 4, 6), np.float32))


@pytest.mark.parametrize(
    "raw",
    [b"", b"\0", b"{}", b"[" * 100_000, b"\xff\xfe{}", b"\x7fELF" + bytes(64), b"ORTM" * 9, b"PK\x03\x04" + bytes(30)],
    ids=["empty", "zero", "json", "deep", "utf-16", "elf", "ort", "zip"],
)
@pytest.mark.parametrize("suffix", [".onnx", ".json"])
def test_other_files_are_no_artifacts(tmp_path: Path, raw: bytes, suffix: str) -> None:
    import framecast

    path = tmp_path / f"other{suffix}"
    path.write_bytes(raw)
    with pytest.raises(FramecastError) as caught:
        framecast.load(path)
    assert isinstance(caught.value, ArtifactError)
    assert str(caught.value).isprintable()
