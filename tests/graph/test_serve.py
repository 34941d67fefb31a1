"""The server's graph, with its state fed by hand as a server does, predicts to the bit what the local engine does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto

from framecast.camera import Image
from framecast.errors import ExportError
from framecast.graph.artifact import manifest_of, read, save
from framecast.graph.serve import server_graph, state_bytes, state_pairs
from framecast.graph.tensorrt_workarounds import without_moving_rows
from framecast.runtime.engines.onnxruntime import OnnxRuntimeEngine
from framecast.runtime.shipped import find
from framecast.runtime.stepper import Stepper

from ..exported import edge_graphs, exported  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


class Sequences:
    """Runs a server's graph as the server would: it feeds each state output to its input of the next request.

    At a START, ``keep`` is 0. The state is then garbage, as of a server that does not clear its memory.
    """

    def __init__(self, proto: ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.manifest = manifest_of(proto)
        self.session: Any = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.states: dict[int, dict[str, Any]] = {}

    def step(self, images: dict[int, Image], starts: set[int]) -> dict[int, list[Image] | None]:
        """One batch with a picture of each sequence; the pictures of all steps ahead, by sequence."""
        pairs, rows = state_pairs(self.manifest), list(images)
        for row in set(rows) & starts:
            garbage = {name: np.full(shape, np.nan, np.float32) for name, _, shape in pairs}
            self.states[row] = self.states.get(row, garbage)
        later = max(1, self.manifest.slots)
        feeds = {
            "image": np.stack([images[row] for row in rows]),
            "keep": np.array([[0.0 if row in starts else later] for row in rows], np.float32),
            **{name: np.stack([self.states[row][name] for row in rows]) for name, _, _ in pairs},
        }
        names = [output.name for output in self.session.get_outputs()]
        out = dict(zip(names, self.session.run(names, feeds), strict=True))
        assert set(names) == {"shown", "finite", *(output for _, output, _ in pairs)}
        for i, row in enumerate(rows):
            self.states[row] = {name: out[output][i] for name, output, _ in pairs}
        return {row: list(out["shown"][i]) if out["finite"][i, 0] else None for i, row in enumerate(rows)}


def pictures(manifest: Any, count: int, seed: int) -> list[Image]:
    random = np.random.default_rng(seed)
    width, height = manifest.size
    images = [random.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]
    if manifest.channel_order == "GRAY":  # a network in grey gets grey pictures, as from to_model_size
        images = [np.repeat(image[..., :1], 3, axis=2) for image in images]
    return images


@pytest.mark.parametrize(("name", "steps"), [("stip", 1), ("stip", 3), ("stau", 3), ("astm", 2), ("tau-block", 1)])
def test_it_equals_the_local_engine(name: str, steps: int, tmp_path: Path) -> None:
    proto = exported(name)
    save(proto, tmp_path / "it.onnx")
    served = Sequences(server_graph(proto, steps))
    assert served.manifest.outputs == steps * manifest_of(proto).outputs
    with OnnxRuntimeEngine(tmp_path / "it.onnx", threads=1) as engine:
        stepper = Stepper(engine)
        for i, image in enumerate(pictures(served.manifest, 21, 1)):
            if start := i in (0, 9):  # also in mid-stream
                stepper.reset()
            stepper.advance([image])
            (expected,) = stepper.look_ahead(served.manifest.outputs)
            got = served.step({7: image}, {7} if start else set())[7]
            assert expected is not None
            assert got is not None
            assert all(np.array_equal(one, other) for one, other in zip(got, expected, strict=True)), i


def test_sequences_of_a_batch_do_not_mix() -> None:
    proto = server_graph(exported("stau"), 2)
    together, alone = Sequences(proto), {row: Sequences(proto) for row in (1, 2)}
    streams = {row: pictures(together.manifest, 8, row) for row in (1, 2)}
    for i in range(8):
        starts = {row for row in (1, 2) if i in (0, 3 * row)}
        got = together.step({row: streams[row][i] for row in (1, 2)}, starts)
        for row in (1, 2):
            expected = alone[row].step({row: streams[row][i]}, starts)[row]
            assert expected is not None
            for one, other in zip(got[row] or [], expected, strict=True):  # a batch may be summed in another order
                assert np.abs(one.astype(int) - other.astype(int)).max() <= 1


def test_a_history_is_shifted_and_a_carried_tensor_replaced() -> None:
    manifest = manifest_of(exported("stau"))
    pairs = state_pairs(manifest)
    history = next(spec for spec in manifest.state if spec.kind == "history")
    assert [pair[:2] for pair in pairs if f".{history.name}" in pair[0]][:2] == [
        (f"state.{history.name}.0", f"next.{history.name}"),
        (f"state.{history.name}.1", f"next.{history.name}.1"),
    ]
    assert state_bytes(manifest) == 4 * sum(int(np.prod(shape)) for _, _, shape in pairs) > 0


def test_what_a_server_cannot_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="use the Python backend"):
        server_graph(read(edge_graphs(tmp_path)))
    with pytest.raises(ExportError, match="leave out the number of steps"):
        server_graph(exported("tau-block"), 2)


@pytest.mark.slow
def test_tensorrt_builds_it_with_batches() -> None:
    """TensorRT for RTX parses and builds it without a GPU; nothing runs it here."""
    trt: Any = pytest.importorskip("tensorrt_rtx", reason="no TensorRT for RTX: pip install 'framecast[rtx]'")
    proto = without_moving_rows(server_graph(read(find("stip-edge")), 2))
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(proto.SerializeToString()), parser.get_error(0).desc()
    settings, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for given in map(network.get_input, range(network.num_inputs)):
        sizes = tuple(given.shape)[1:]
        profile.set_shape(given.name, (1, *sizes), (8, *sizes), (8, *sizes))
    settings.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, settings) is not None
