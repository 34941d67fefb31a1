"""Int8 layers: which ones, their error, that no CPU saturates their sums, and that calibration includes the states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from framecast.errors import ArtifactError, ExportError
from framecast.evaluation.parity import drift
from framecast.export import quantize as module
from framecast.export.load_network import load_network
from framecast.export.pair_sums import pair_sums
from framecast.export.quantize import layers, quantize
from framecast.graph.artifact import save
from framecast.graph.device import device_graph
from framecast.graph.manifest import LARGEST_SUM
from framecast.graph.split import split_artifact
from framecast.models.stip import STIP, STIPConfig
from framecast.runtime.engines import open_engine
from framecast.runtime.shipped import find

from ..clips import moving_pictures  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from ..exported import exported, shared  # noqa: TID252


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with layers that are wide enough for int8."""
    model = STIP(STIPConfig(height=32, width=48, patch=2, hidden=16, layers=3, stages=2, kernel=3)).eval()
    path = tmp_path_factory.mktemp("wide") / "wide.onnx"
    save(shared("wide", model, config="stip-ucf"), path)
    return path


def pictures(count: int) -> list[np.ndarray]:
    return moving_pictures((48, 32), count)


@pytest.fixture(scope="module")
def small(wide: Path) -> Path:
    path = wide.with_name("int8.onnx")
    done, count = quantize(wide, path, [pictures(12), pictures(6)], "patterns")
    assert 0 < done < count
    return path


def test_which_layers_stay_float(wide: Path) -> None:
    proto = onnx.load(wide)
    weights = {i.name: numpy_helper.to_array(i).shape for i in proto.graph.initializer}
    chosen = layers(proto)
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    stay = [node for node in convolutions if node.name not in chosen]
    # The first layers of both encoders. The last layer is a transposed convolution.
    assert [weights[node.input[1]] for node in stay] == [(16, 24, 1, 1), (16, 24, 1, 1)]
    assert [node.name for node in convolutions] == layers(proto, ends=True)
    assert layers(onnx.load(find("stip-edge")), ends=True)
    assert not layers(exported("stip"), ends=True)  # eight channels: too few


def test_int8_stays_close_over_a_rollout(wide: Path, small: Path) -> None:
    assert small.stat().st_size < wide.stat().st_size
    with open_engine(wide) as reference, open_engine(small) as engine:
        assert engine.manifest.precision == "int8"
        assert engine.manifest.calibration == "patterns, 18 frames"
        assert engine.manifest.quality is None
        found = drift(reference, engine, pictures(40))
        assert 0 < found.mean < 0.05
        assert np.isfinite(found.max)
    kinds = [node.op_type for node in onnx.load(small).graph.node]
    assert kinds.count("QuantizeLinear") > 4


def largest_adjacent(path: Path) -> dict[str, int]:
    """Each layer's largest ``|a₀w₀ + a₁w₁|`` of adjacent weights, for activations from 0 to 255."""
    proto = onnx.load(path)
    constants = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    weights = {n.output[0]: constants.get(n.input[0]) for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    found = {}
    for node in proto.graph.node:
        if node.op_type == "Conv" and (w := weights.get(node.input[1])) is not None:
            assert w.dtype == np.int8
            taps = w.astype(np.int64).transpose(0, 2, 3, 1)  # ONNX Runtime's packing: channels are adjacent
            pairs = taps.reshape(-1, 2)
            found[node.name] = int(255 * max(np.abs(pairs).max(), np.abs(pairs.sum(1)).max()))
    return found


def test_no_cpu_can_saturate_a_sum(wide: Path, small: Path, tmp_path: Path) -> None:
    """VPMADDUBSW, which CPUs with AVX2 but without VNNI use, adds two products in 16 bits."""
    exact = largest_adjacent(small)
    assert exact
    assert max(exact.values()) <= LARGEST_SUM
    bounds = pair_sums(onnx.load(small))
    assert bounds.keys() == exact.keys()
    assert all(exact[name] <= bounds[name] <= LARGEST_SUM for name in exact)
    with open_engine(small) as engine:
        assert engine.manifest.pair_sum == max(bounds.values())
        assert not engine.manifest.may_saturate
    full = tmp_path / "full.onnx"
    quantize(wide, full, [pictures(4)], "patterns", scheme="u8s8")
    assert max(largest_adjacent(full).values()) > LARGEST_SUM
    with open_engine(full) as engine:
        assert engine.manifest.may_saturate


def test_calibration_samples_hold_real_states(wide: Path) -> None:
    """Every sample holds the state after the frames before it, and each clip starts from zeros."""
    with open_engine(wide) as engine:
        manifest = engine.manifest
        taken = list(module._samples(wide, manifest, [pictures(3), pictures(2)]))
        states = engine.new_state(), engine.new_state()
        expected = []
        for sample in taken[:3]:
            expected.append(states[0].tensors["t2"].copy())
            engine.step(sample["frame"], *states)
            states = states[::-1]
    assert len(taken) == 5
    for sample, value in zip(taken[:3], expected, strict=True):
        assert np.array_equal(sample["state.t2"], value)
    assert [bool(sample["state.t2"].any()) for sample in taken] == [False, True, True, False, True]


def test_an_int8_artifact_can_be_split(wide: Path, small: Path, tmp_path: Path) -> None:
    output = tmp_path / "both.onnx"
    split_artifact(small, output)
    with open_engine(small) as one, open_engine(output) as other:
        assert other.manifest.precision == "int8"
        found = drift(one, other, pictures(12))
    # The cut changes the last bit of some float32 values. Rarely, that rounds one to another int8 level: 1 of 52
    # networks differed, by up to 5e-4 (mean 6e-8; seen since: 1.4e-5). Saturating sums would change every picture
    # (mean 1.5e-3).
    assert found.mean < 2e-4
    assert found.max < 5e-3
    split_artifact(wide, output)
    with pytest.raises(ExportError, match="is half of a step: quantize the whole artifact, then split that"):
        quantize(output, tmp_path / "out.onnx", [pictures(2)], "x")


def test_bad_input(wide: Path, small: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    with pytest.raises(ExportError, match="is int8 already: quantize the float32 artifact"):
        quantize(small, output, [pictures(2)], "x")
    with pytest.raises(ExportError, match="no frames to calibrate on: give clips that have frames"):
        quantize(wide, output, [[]], "x")
    with pytest.raises(ArtifactError, match="is not an ONNX file"):
        quantize(Path(__file__), output, [pictures(2)], "x")
    with pytest.raises(ExportError, match="is int8, which runs only on a CPU: use the whole float32 artifact"):
        device_graph(onnx.load(small))
    with pytest.raises(ArtifactError, match=r"cannot load a network from .*: it is int8"):
        load_network(small)
    assert not output.exists()


def test_a_network_without_layers_for_int8_is_refused(tmp_path: Path) -> None:
    from ..exported import exported  # noqa: TID252

    path = tmp_path / "mau.onnx"
    save(exported("mau"), path)
    with pytest.raises(ExportError, match=r"cannot quantize .*: its .* layers are first, last, narrow or transposed"):
        quantize(path, tmp_path / "out.onnx", [pictures(2)], "x")
