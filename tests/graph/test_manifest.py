"""The manifest: which fields are read, ignored or refused; an error is one line and comes on opening."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from framecast.errors import ArtifactError
from framecast.graph.artifact import read
from framecast.graph.manifest import FORMAT, KEY, Manifest
from framecast.runtime.engines import open_engine

from ..manifests import PLAIN, WHOLE  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


def fields(**changes: Any) -> dict[str, Any]:
    """The fields of WHOLE's JSON, with changes; ``None`` stays ``null``."""
    return {**json.loads(WHOLE.to_json()), **changes}


def text(**changes: Any) -> str:
    return json.dumps(fields(**changes))


def artifact(path: Path, manifest: str | bytes) -> Path:
    """Write a minimal artifact that predicts the frame itself and keeps a count, with any bytes as its manifest."""
    shapes = {"frame": (3, 4, 6), "state.count": (1,), "prediction": (1, 3, 4, 6), "next.count": (1,)}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name, shape in shapes.items()
    }
    nodes = [
        helper.make_node("Unsqueeze", ["frame", "one"], ["prediction"]),
        helper.make_node("Identity", ["state.count"], ["next.count"]),
    ]
    ones = numpy_helper.from_array(np.array([1]), "one")
    inputs, outputs = [values["frame"], values["state.count"]], [values["prediction"], values["next.count"]]
    graph = helper.make_graph(nodes, "still", inputs, outputs, [ones])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    marker = "the manifest, of as many bytes ".ljust(len(manifest), ".")[: len(manifest)]
    helper.set_model_props(model, {KEY: marker})
    raw = manifest.encode() if isinstance(manifest, str) else manifest
    path.write_bytes(model.SerializeToString().replace(marker.encode(), raw))  # protobuf itself writes only UTF-8
    return path


def still(**changes: Any) -> str:
    """The manifest of :func:`artifact`, with changes."""
    return json.dumps({**json.loads(PLAIN.to_json()), **changes})


def test_a_written_manifest_reads_back_equal() -> None:
    assert Manifest.from_json(WHOLE.to_json()) == WHOLE
    assert Manifest.from_json(WHOLE.to_json().encode()) == WHOLE
    least = Manifest("M", "m", (1, 1, 1), (), 0, 0, "random", "", "none", channel_order="GRAY")
    assert Manifest.from_json(least.to_json()) == least


def test_numbers_that_json_cannot_hold_are_refused() -> None:
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            dataclasses.replace(WHOLE, interval=bad).to_json()


def test_fields_of_a_newer_version_are_ignored_at_every_level() -> None:
    new: dict[str, Any] = {"new": {"a": [1, None, {"b": "c\n"}]}, "newer": None, "newest": 1e300}
    raw = {**fields(), **new}
    raw["state"] = [{**spec, **new} for spec in raw["state"]]
    raw["quality"] = {**raw["quality"], **new}
    assert Manifest.from_json(json.dumps(raw)) == WHOLE


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Manifest) if f.name not in ("format",)])
def test_a_field_of_a_newer_version_may_have_any_unused_name(name: str) -> None:
    assert Manifest.from_json(text(**{f"{name}_2": [[]]})) == WHOLE
    with pytest.raises(ArtifactError, match=r"export it again|update framecast"):
        Manifest.from_json(text(**{name: [[]]}))


def test_only_a_newer_format_asks_for_an_update() -> None:
    newer = {"format": FORMAT + 1, "state": "of another kind", "frame": None}
    for raw in (json.dumps(newer), text(format=FORMAT + 1)):
        message = f"its manifest has format {FORMAT + 1}, this framecast reads up to {FORMAT}: update framecast"
        with pytest.raises(ArtifactError, match=f"^{message}$"):
            Manifest.from_json(raw)
    # No version of framecast writes these.
    for bad in (0, -1, None, "1", True, 1.5, [1]):
        with pytest.raises(ArtifactError, match=r"cannot be read \(format: expected int.*\): export it again"):
            Manifest.from_json(text(format=bad))
    without = fields()
    del without["format"]
    with pytest.raises(ArtifactError, match="missing required field format"):
        Manifest.from_json(json.dumps(without))


@pytest.mark.parametrize("name", ["model", "config", "frame", "state", "warmup", "parameters", "weights", "licence"])
def test_fields_that_every_version_writes_are_required(name: str) -> None:
    raw = fields()
    del raw[name]
    with pytest.raises(ArtifactError, match=f"missing required field {name}.*: export it again"):
        Manifest.from_json(json.dumps(raw))


def spec(**changes: Any) -> list[dict[str, Any]]:
    return [{"name": "s", "shape": [2], "kind": "carry", "slots": 0, **changes}]


DAMAGE: list[tuple[dict[str, Any], str]] = [
    ({"frame": [3, 4]}, "frame: expected array of length 3"),
    ({"frame": [3, 0, 6]}, r"frame\[1\]: expected int >= 1"),
    ({"frame": [3, -4, 6]}, r"frame\[1\]: expected int >= 1"),
    ({"frame": [3, 1 << 29, 6]}, r"frame\[1\]: expected int <="),
    ({"frame": [3, 1 << 27, 1 << 27]}, "more than 2147483648 elements"),
    ({"frame": [3, 10**40, 6]}, r"frame\[1\]: expected int <="),
    ({"frame": ["3", 4, 6]}, r"frame\[0\]: expected int, got str"),
    ({"frame": [4, 4, 6]}, "no usable frame shape or channel order"),
    ({"channel_order": "HSV"}, "no usable frame shape or channel order"),
    ({"visible": [5, 6]}, "no usable frame shape or channel order"),
    ({"visible": [0, 6]}, r"visible\[0\]: expected int >= 1"),
    ({"renders": "frames"}, "an unknown kind of state or model, or an invalid value range: update framecast"),
    ({"renders": 1}, "renders: expected str, got int"),
    ({"outputs": 0}, "outputs: expected int >= 1"),
    ({"outputs": 10**9}, "outputs: expected int <= 4096"),
    ({"warmup": -1}, "warmup: expected int >= 0"),
    ({"warmup": 10**9}, "warmup: expected int <= 4096"),
    ({"parameters": -1}, "parameters: expected int >= 0"),
    ({"interval": 0}, "interval: expected float > 0"),
    ({"interval": -1}, "interval: expected float > 0"),
    ({"interval": 1e300}, "interval: expected float <= "),
    ({"interval": float("inf")}, "malformed"),
    ({"interval": float("nan")}, "malformed"),
    ({"value_range": [0, float("inf")]}, "malformed"),
    ({"value_range": [0, 1e300]}, r"value_range\[1\]: expected float <="),
    ({"value_range": [1, 1]}, "an invalid value range: update framecast"),
    ({"value_range": None}, "value_range: expected array, got null"),
    ({"options": None}, "options: expected object, got null"),
    ({"stored": "fp8"}, "stored: invalid enum value 'fp8'"),
    ({"precomputed": None}, "precomputed: expected object, got null"),
    ({"precomputed": {"a": [0]}}, r"expected int >= 1"),
    ({"precomputed": {"a": [1 << 20, 1 << 20]}}, "more than 2147483648 elements"),
    ({"precomputed": {"frame": [1]}}, "two of its inputs have the same name"),
    ({"state": None}, "state: expected array, got null"),
    ({"state": [None]}, r"state\[0\]: expected object, got null"),
    ({"state": spec(shape=[1] * 9)}, r"state\[0\].shape: expected array of length <= 8"),
    ({"state": spec(shape=[-1])}, r"state\[0\].shape\[0\]: expected int >= 1"),
    ({"state": spec(shape=[1 << 28] * 8)}, "more than 2147483648 elements"),
    ({"state": spec(kind="history", slots=10**7)}, r"state\[0\].slots: expected int <= 4096"),
    ({"state": spec(kind="history", slots=-1)}, r"state\[0\].slots: expected int >= 0"),
    ({"state": spec(kind="history", slots=0)}, "an unknown kind of state .*: update framecast"),
    ({"state": spec(kind="stack")}, "an unknown kind of state .*: update framecast"),
    ({"state": spec() * 2}, "two of its inputs have the same name"),
    ({"state": spec() * 4097}, "state: expected array of length <= 4096"),
    ({"state": spec(name="a.0") + spec(name="a", kind="history", slots=1)}, "two of its inputs have the same name"),
    ({"state": [{**s, "name": str(i)} for i in range(3) for s in spec(kind="history", slots=2000)]}, "4096 slots"),
    ({"quality": {}}, "quality: object missing required field data"),
    ({"quality": {"data": "d", "prediction": "30", "copy_last": 1}}, "quality.prediction: expected float, got str"),
    ({"quality": {"data": "d", "prediction": 1, "copy_last": 1, "clips": {"a": [1]}}}, "expected array of length 2"),
    ({"config": "two\nlines"}, "one of its strings has control characters"),
    ({"weights": "\x1b[2J"}, "one of its strings has control characters"),
    ({"options": {"a": [{"\x07": 1}]}}, "one of its strings has control characters"),
    ({"licence": None}, "licence: expected str, got null"),
]


@pytest.mark.parametrize(("changes", "message"), DAMAGE, ids=lambda value: str(value)[:40])
def test_damage_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        Manifest.from_json(text(**changes))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith((": export it again", ": update framecast"))


TEXTS: dict[str, tuple[Callable[[], str | bytes], str]] = {
    "empty": (lambda: "", "truncated"),
    "cut off": (lambda: still()[:-9], "truncated"),
    "two": (lambda: still() * 2, "trailing characters"),
    "no object": (lambda: "[1, 2]", "expected object, got array"),
    "deep": (lambda: "[" * 50_000, "expected object, got array"),
    "deep in options": (lambda: still(options=1).replace('"options": 1', '"options": ' + "[" * 50_000), "deeply"),
    "deep in an ignored field": (lambda: still()[:-1] + ', "new": ' + "[" * 50_000, "deeply"),
    "deep and well formed": (
        lambda: still(options=1).replace('"options": 1', '"options": {"a": ' + "[" * 900 + "]" * 900 + "}"),
        "deeply",
    ),
    "long": (lambda: still(licence="x" * (1 << 20)), "longer than 1048576 characters"),
    "not UTF-8": (lambda: still(new="?").encode().replace(b"?", b"\xb9"), "byte 0xb9|UTF-8"),
}


@pytest.mark.parametrize("reader", [read, open_engine], ids=lambda reader: reader.__name__)
@pytest.mark.parametrize("name", TEXTS)
def test_a_malformed_manifest_is_refused_by_both_readers(tmp_path: Path, reader: Any, name: str) -> None:
    make, message = TEXTS[name]
    with pytest.raises(ArtifactError, match=message) as caught:
        reader(artifact(tmp_path / "m.onnx", make()))
    assert str(caught.value).startswith(str(tmp_path / "m.onnx"))
    assert str(caught.value).endswith("export it again")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reader", [read, open_engine], ids=lambda reader: reader.__name__)
def test_both_readers_accept_and_refuse_the_same(tmp_path: Path, reader: Any) -> None:
    path = artifact(tmp_path / "m.onnx", still(new=[{}]))
    assert onnx.load(path).metadata_props[0].key == KEY
    reader(path)
    for changes in ({"interval": -1}, {"state": spec(kind="history", slots=10**7)}, {"format": FORMAT + 1}):
        with pytest.raises(ArtifactError, match=r"m\.onnx: its manifest "):
            reader(artifact(path, still(**changes)))
