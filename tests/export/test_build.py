"""``framecast build``: every network becomes an engine, built with TensorRT for RTX, which needs no GPU to build."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from framecast.errors import ArtifactError, EngineError, ExportError, OptionError
from framecast.export import tensorrt
from framecast.export.exporter import export_random
from framecast.export.tensorrt import BuildRequest, build, network_graph, summary
from framecast.graph.manifest import KEY, RENDER, other_half
from framecast.runtime.engines.tensorrt import cache
from framecast.runtime.engines.tensorrt.library import RTX_TARGETS, Gpu, Library, library
from framecast.runtime.shipped import shipped

from ..calls import watched  # noqa: TID252
from ..exported import edge_graphs, exported  # noqa: TID252
from ..networks import NETWORKS  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

Run = Callable[..., tuple[int, str, str]]
FULL = ("stip", "stip-edge", "tau-block")  # built in float32 too
USUAL = (*FULL, "stau", "mau", "astm")  # the other networks take long, and have rarely found more


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("FRAMECAST_CACHE", str(path))
    return path


@pytest.fixture(scope="module")
def rtx() -> Library:
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT for RTX: pip install 'framecast[rtx]'")
    return library("tensorrt_rtx")


def saved(proto: onnx.ModelProto, path: Path) -> Path:
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("name", [n if n in USUAL else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_every_network_builds(name: str, rtx: Library, tmp_path: Path) -> None:
    path = saved(exported(name), tmp_path / "model.onnx")
    for precision in ("fp16", "fp32") if name in FULL else ("fp16",):
        request = BuildRequest(path, name, rtx, target="8.9", precision=precision)
        engine, record = build(request)
        layers = record.layers["network"]
        assert (layers["float16"] > 0) == (precision == "fp16")
        assert layers["float32"] > 0
        assert cache.load(request.key()) == (engine, record)
        # Without a GPU the engine cannot be inspected, and the record says so.
        assert record.layers["engine"] == {"not_inspected": "there is no GPU of compute capability 8.9 here"}


@pytest.mark.slow
def test_a_motion_model_builds_as_two_engines(rtx: Library, run: Run, tmp_path: Path) -> None:
    path, output = edge_graphs(tmp_path), tmp_path / "out" / "edge.engine"
    output.parent.mkdir()
    code, out, err = run("build", path, "--for", "8.9", "--camera", "640x480", "--output", output)
    assert code == 0, err
    names = ["edge.engine", "edge.engine.json", "edge.render.engine", "edge.render.engine.json"]
    assert sorted(file.name for file in output.parent.iterdir()) == names
    step, render = (cache.Record.from_json((output.parent / name).read_text()) for name in names[1::2])
    assert step.manifest == render.manifest
    assert (step.key.camera, render.key.camera) == ((640, 480), None)
    assert out.count("wrote ") == 2
    code, out, _ = run("build", path, "--for", "8.9", "--camera", "640x480")
    assert (code, out.count("up to date")) == (0, 2)
    other_half(path, RENDER).unlink()
    code, _, err = run("build", path, "--for", "8.9")
    assert code == 1
    assert "edge.render.onnx is missing" in err


def test_the_shipped_network_builds(rtx: Library) -> None:
    """At full size, for two cameras whose pictures are resized."""
    shares: list[float] = []
    request = BuildRequest(shipped()["stip-edge"], "stip-edge", rtx, target="8.6", batch=2, camera=(640, 480))

    def progress(share: float, phase: str) -> bool:
        shares.append(share)
        return bool(phase)

    _, record = build(request, progress)
    assert shares == sorted(shares)
    assert 0 <= shares[0] < 0.5
    assert shares[-1] == 1
    assert record.size < 40e6


@pytest.mark.slow
@pytest.mark.parametrize("config", ["stip-ucf", "stau-mnist", "astm-mnist", "tau-kth"])
def test_published_networks_build_at_their_full_size(config: str, rtx: Library, tmp_path: Path) -> None:
    """One of each kind. benchmarks/build.py builds them all."""
    _, record = build(BuildRequest(export_random(config, tmp_path), config, rtx, target="8.9"))
    assert record.layers["network"]["float16"] > 30


def test_the_graph_to_build(rtx: Library) -> None:
    proto = network_graph(
        BuildRequest(shipped()["stip-edge"], "stip-edge", rtx, target="8.9", batch=3, camera=(640, 480))
    )
    sizes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.input}
    assert sizes["image"] == [3, 480, 640, 3]
    assert sizes["state.previous"] == [3, 3, 192, 256]
    assert {o.name for o in proto.graph.output} >= {"prediction", "next.previous", "shown", "finite"}
    kinds = {o.name: o.type.tensor_type.elem_type for o in (*proto.graph.input, *proto.graph.output)}
    assert TensorProto.FLOAT16 not in kinds.values()
    assert "MatMul" in {node.op_type for node in proto.graph.node if node.name.startswith("device.")}  # the resize
    assert not any(
        ".half" in name for node in proto.graph.node if node.name.startswith("device.") for name in node.input
    )


def test_an_interrupted_build_keeps_nothing(rtx: Library, place: Path) -> None:
    def interrupted(share: float, phase: str) -> bool:
        raise KeyboardInterrupt

    for progress in (lambda share, phase: False, interrupted):
        with pytest.raises(KeyboardInterrupt):
            build(BuildRequest(shipped()["stip-edge"], "stip-edge", rtx, target="8.9"), progress)
    assert list(place.iterdir()) == []


def test_ctrl_c_ends_the_command(rtx: Library, place: Path) -> None:
    command = [sys.executable, "-m", "framecast", "build", "stip-edge", "--for", "8.9"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert "building it" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == ""
    assert not list(place.glob("*.engine"))


def test_the_command_builds_once_and_says_why_it_rebuilds(run: Run, rtx: Library, place: Path, tmp_path: Path) -> None:
    path = saved(exported("stip"), tmp_path / "model.onnx")
    output = tmp_path / "stip.engine"
    arguments = ("build", path, "--for", "8.9")
    code, out, err = run(*arguments)
    assert (code, err.count("\n")) == (0, 1)
    assert f"no engine of {path} has been built: building it with tensorrt_rtx {rtx.version}" in err
    assert "not inspected" in out
    assert "float16" in out
    code, out, err = run(*arguments, "--output", output)
    assert (code, err) == (0, "")
    assert "up to date" in out
    (engine,) = place.glob("*.engine")
    assert output.read_bytes() == engine.read_bytes()
    assert json.loads(output.with_name("stip.engine.json").read_text())["key"]["capability"] == "8.9"
    for option, reason in [
        (("--batch", "2"), "for a batch of 1, not of 2"),
        (("--precision", "fp32"), "in fp16, not in fp32"),
        (("--camera", "64x64"), "for pictures of another size"),
    ]:
        code, _, err = run(*arguments, *option)
        assert code == 0
        assert reason in err
    engine.write_bytes(engine.read_bytes()[:-1] + b"!")
    code, _, err = run(*arguments)
    assert code == 0
    assert "is damaged: its SHA-256" in err
    assert "up to date" in run(*arguments)[1]
    saved(exported("stip-paper"), path)
    assert "from another artifact (the file has changed since)" in run(*arguments)[2]


def test_building_needs_no_torch(rtx: Library, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnxscript', 'safetensors', 'triton'): sys.modules[name] = None\n"
        "from framecast.cli import main\n"
        "sys.argv = ['framecast', 'build', 'stip-edge', '--for', '12.0']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1  # TensorRT's messages go to the log


def test_errors_are_one_line_with_a_fix(
    run: Run, rtx: Library, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("text", "plain", "channels", "strange", "invalid", "scattered")
    text, plain, channels, strange, invalid, scattered = (tmp_path / f"{name}.onnx" for name in names)
    onnx.save(onnx.load(shipped()["stip-edge"]), scattered, save_as_external_data=True, size_threshold=0)
    text.write_text("no protobuf")
    proto = onnx.load(shipped()["stip-edge"])
    manifest = next(entry for entry in proto.metadata_props if entry.key == KEY)
    fields = json.loads(manifest.value)
    manifest.value = json.dumps({**fields, "channel_order": "NONE"})
    saved(proto, channels)
    manifest.value = json.dumps(fields)
    proto.graph.node.append(helper.make_node("Unique", ["prediction"], ["unused"], name="levels"))
    saved(proto, strange)
    proto.graph.node[-1].op_type = "Nonesuch"
    saved(proto, invalid)
    proto.graph.node.pop()
    del proto.metadata_props[:]
    saved(proto, plain)
    monkeypatch.setattr("ctypes.CDLL", no_driver)
    cases: list[tuple[list[object], str]] = [
        (["nonesuch"], "'framecast models' describes"),
        (["edge", "--for", "8.9"], "edge is a model of motion, not a network: .*name a network, such as stip-edge"),
        (["stip-edge"], "no NVIDIA driver here .*install the driver.*--for"),
        (
            ["stip-edge", "--for", "9.0"],
            "no compute capability '9.0': --for takes those of TensorRT for RTX \\(7.5, 8.0, 8.6, 8.9, 12.0, 12.1\\)",
        ),
        (["stip-edge", "--for", "8.9", "--precision", "int8"], "--precision takes fp16 or fp32"),
        (["stip-edge", "--for", "8.9", "--batch", "0"], "--batch must be at least 1"),
        (["stip-edge", "--for", "8.9", "--camera", "640"], "--camera takes WIDTHxHEIGHT .*640x480"),
        (["stip-edge", "--for", "8.9", "--camera", "0x480"], "--camera takes WIDTHxHEIGHT"),
        (["stip-edge", "--for", "8.9", "--output", shipped()["stip-edge"]], "among the inputs"),
        (["stip-edge", "--for", "8.9", "--output", "/proc/x.engine"], "cannot write /proc/x.engine: .*another"),
        (["stip-edge", "--for", "8.9", "--plugins", "aot"], "cannot use --plugins aot here"),
        ([text, "--for", "8.9"], "is not an ONNX file: make one with 'framecast export'"),
        ([plain, "--for", "8.9"], "has no framecast manifest: make artifacts with 'framecast export'"),
        ([invalid, "--for", "8.9"], "is not valid ONNX .*Nonesuch.*: export it again"),
        ([scattered, "--for", "8.9"], "keeps its weights in other files"),
        ([channels, "--for", "8.9"], "its channels are not a picture"),
        (
            [strange, "--for", "8.9"],
            "TensorRT does not accept the operator Unique \\(node 'levels'\\).*: run it with another",
        ),
    ]
    for arguments, message in cases:
        code, out, err = run("build", *arguments)
        lines = err.splitlines()
        if arguments[0] == strange:  # this error comes only during the build
            assert "building it with" in lines.pop(0)
        assert (code, out, len(lines)) == (1, "", 1), (arguments, err)
        assert re.search(message, lines[0]), err
    place.chmod(0o777)
    code, _, err = run("build", "stip-edge", "--for", "8.9")
    assert (code, err.count("\n")) == (1, 1)
    assert "chmod 700" in err
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    code, _, err = run("build", "stip-edge", "--for", "8.9")
    assert (code, err.count("\n")) == (1, 1)
    assert "no TensorRT here" in err
    code_ = "import sys; sys.modules['onnx'] = None; sys.argv[0] = 'framecast'; from framecast.cli import main; main()"
    words = [sys.executable, "-c", code_, "build", "stip-edge", "--for", "8.9"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "pip install 'framecast[build]'" in done.stderr


def no_driver(name: str) -> None:
    raise OSError(name)


def test_an_artifact_is_read_once(run: Run, rtx: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[bytes] = []
    monkeypatch.setattr("onnx.load_model_from_string", watched(onnx.load_model_from_string, reads.append))
    code, out, err = run("build", "stip-edge", "--for", "8.9")
    assert code == 0, err
    assert "framecast build" in out
    assert reads == [shipped()["stip-edge"].read_bytes()]


def test_doctor_explains_why_tensorrt_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from framecast.runtime.doctor import examine

    monkeypatch.setattr("ctypes.CDLL", no_driver)
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    (row,) = [finding for finding in examine() if finding.part == "engine tensorrt"]
    assert row.state.startswith("no TensorRT here; no NVIDIA driver here (libcuda.so.1 cannot be loaded)")
    assert "JetPack" in row.cure
    assert "--gpus all" in row.cure


def test_which_device_an_engine_is_built_for(tmp_path: Path) -> None:
    path = shipped()["stip-edge"]
    full, rtx = Library("tensorrt", "10.3.0", None), Library("tensorrt_rtx", "1.7", None)
    orin, ada = Gpu("Orin", "8.7", "12.6"), Gpu("RTX 4090", "8.9", "13.0")
    assert BuildRequest(path, "stip-edge", full, orin).key().device == "Orin (compute capability 8.7)"
    assert BuildRequest(path, "stip-edge", rtx, ada).key().device == "compute capability 8.9"
    assert BuildRequest(path, "stip-edge", rtx, ada, target="12.0").key().capability == "12.0"
    with pytest.raises(OptionError, match="builds for this machine's GPU only; build on the device"):
        BuildRequest(path, "stip-edge", full, orin, target="8.9").key()
    with pytest.raises(EngineError, match=r"no GPU to build for.*--for"):
        BuildRequest(path, "stip-edge", rtx).key()
    with pytest.raises(EngineError, match=r"does not build for compute capability 8\.7 .*: install tensorrt itself"):
        BuildRequest(path, "stip-edge", rtx, orin).key()


def test_the_targets_match_the_library(rtx: Library) -> None:
    known = set(rtx.trt.ComputeCapability.__members__) - {"NONE", "CURRENT"}
    assert set(RTX_TARGETS.values()) == known


def test_full_tensorrt_keeps_its_timing_cache(
    rtx: Library, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A contract test: TensorRT for RTX stands in for TensorRT, whose libraries are not installed here."""
    monkeypatch.setattr(tensorrt, "inspect", lambda request, key, engine: {"layers": 1, "types": {}, "plugins": []})
    full = Library("tensorrt", "10.3.0", rtx.trt)
    request = BuildRequest(saved(exported("mau"), tmp_path / "model.onnx"), "mau", full, Gpu("Orin", "8.7", "12.6"))
    _, record = build(request)
    assert (record.key.library, record.key.gpu, record.key.capability) == ("tensorrt", "Orin", "8.7")
    timings = cache.timing(full, record.key.device)
    assert len(timings.read_bytes()) > 0
    assert timings.stat().st_mode & 0o777 == 0o600
    timings.write_bytes(b"garbage")
    build(request)
    monkeypatch.undo()
    monkeypatch.setenv("FRAMECAST_CACHE", str(place))
    with pytest.raises(EngineError, match="TensorRT could not build mau"):  # reading back the engine needs a driver
        build(request)


def test_an_engine_is_not_kept_if_its_artifact_changed_meanwhile(
    rtx: Library, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(exported("mau"), tmp_path / "model.onnx")
    request = BuildRequest(path, "mau", rtx, target="8.9")

    real = tensorrt.network_graph

    def changed(request: BuildRequest) -> onnx.ModelProto:
        proto = real(request)
        path.write_bytes(b"another")
        return proto

    monkeypatch.setattr(tensorrt, "network_graph", changed)
    with pytest.raises(ArtifactError, match="has changed during the build: build it again"):
        build(request)
    assert list(place.iterdir()) == []


def test_build_failures_are_one_line() -> None:
    for error in ("[defaultAllocator.cpp] Error Code 1: Cuda Runtime (out of memory)", "std::bad_alloc"):
        message = tensorrt._failure("stip-edge", ["first", error])
        assert "not enough memory to build stip-edge: end other programs" in message
    assert "(Error Code 10: no implementation): try --verbose" in tensorrt._failure(
        "stip-edge", ["Error Code 10:\n no implementation."]
    )
    assert "gives no reason" in tensorrt._failure("stip-edge", [])


def test_a_parser_that_gives_no_reason_is_an_export_error() -> None:
    parser = SimpleNamespace(parse=lambda data: False, num_errors=0)
    with pytest.raises(ExportError, match="does not accept the graph of stip-edge \\(it gives no reason\\)"):
        tensorrt._parse(parser, [], onnx.ModelProto(), "stip-edge")


def test_the_inspectors_report_is_summarised() -> None:
    """A contract test: the format follows TensorRT's documentation, because inspecting an engine needs a GPU."""

    def layer(name: str, kind: str, type_: str) -> dict[str, Any]:
        output = {"Name": "x", "Location": "Device", "Dimensions": [1, 8, 4, 4], "Format/Datatype": type_}
        return {"Name": name, "LayerType": kind, "Inputs": [], "Outputs": [output]}

    layers = [
        layer("conv", "CaskConvolution", "Channel major FP16 format where channel % 8 == 0"),
        layer("gates", "PluginV3", "Row major linear FP32"),
        layer("norm", "kgen", "Float"),
    ]
    found = summary(json.dumps({"Layers": layers, "Bindings": []}))
    assert (found["layers"], found["plugins"]) == (3, ["gates"])
    assert found["types"] == {"float16": 1, "float32": 2}
    assert summary(json.dumps({"Layers": ["conv", "gates"]})) == {"layers": 2, "types": {}, "plugins": []}
    for one in layers:  # TensorRT 11 splits that field; a format's description may still name another type
        (output,) = one["Outputs"]
        type_ = "Half" if "FP16" in output.pop("Format/Datatype") else "Float"
        output |= {"Format": "Row major linear FP32 format (kLINEAR)", "DataType": type_}
    assert summary(json.dumps({"Layers": layers, "I/O Tensors": []})) == found
