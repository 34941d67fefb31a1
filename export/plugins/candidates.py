"""Builds one engine of a network for each possible rung, and keeps the best."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
from onnx import ModelProto

from framecast.errors import EngineError, ExportError
from framecast.export.plugins.ladder import NO_OPERATOR, PLAIN, Choice, choose, target
from framecast.export.plugins.rewrite import PREFIX, Placed, kernels, with_aot, with_v3
from framecast.runtime.engines.tensorrt import cache, plugin
from framecast.runtime.engines.tensorrt.cache import Key, Record
from framecast.runtime.engines.tensorrt.library import Gpu, Library

_log = logging.getLogger(__name__)
# How much two float16 builds may differ in a step, as a share of the largest prediction, because of their tactics. A
# wrong operator, or inputs in the wrong order, would differ by more.
MOST_OFF = 0.05
_ALIGNED = 256  # bytes: TensorRT's alignment of tensors


@dataclass(frozen=True)
class Built:
    """An engine of one rung, and a summary of its layers."""

    rung: str
    engine: bytes
    layers: dict[str, Any]


def with_plugins(network: ModelProto, rung: str, library: Library, gpu: Gpu | None) -> tuple[ModelProto, list[str]]:
    """Return the graph for a rung and the names of its plugin nodes. This registers the plugins.

    Raises:
        EngineError: a kernel cannot be compiled, or TensorRT rejects the plugins.
        ExportError: a shape is not fixed.
    """
    if rung == PLAIN or gpu is None:
        return network, []
    arch, ptx_version = target(gpu)
    if rung == "aot":
        from framecast.export.plugins import aot

        rewritten, placed = with_aot(network)
        aot.register(library.trt, kernels(placed), arch, ptx_version)
    else:
        rewritten, placed = with_v3(network, plugin.NAME)
        plugin.register(library.trt, [packed(place, arch, ptx_version) for place in placed])
    return rewritten, [place.node for place in placed]


def packed(place: Placed, arch: int, ptx_version: int | None) -> plugin.Plugin:
    """Return a whole operator as one plugin with all its launches. Its partial results are in the workspace.

    Raises:
        EngineError: a kernel cannot be compiled.
    """
    from framecast.export.plugins.operators import compiled

    tensors = {name: tensor for call in place.calls for name, tensor in call.tensors()}
    places = {name: ("input", place.inputs.index(name)) for name in place.inputs}
    places |= {name: ("output", index) for index, name in enumerate(place.outputs)}
    workspace = 0
    launches = []
    for call in place.calls:
        for name in call.outputs:
            if name not in places:
                places[name] = "workspace", workspace
                workspace += -(-tensors[name].size // _ALIGNED) * _ALIGNED
        built = compiled(call.kernel, arch, ptx_version)
        arguments = tuple(places[name] for name in (*call.inputs, *call.outputs))
        threads = 32 * built.num_warps
        launches.append(plugin.Launch(built.name, built.cubin, built.grid, threads, built.shared, arguments))
    return plugin.Plugin(
        launches=tuple(launches),
        types=tuple(tensors[name].dtype for name in (*place.inputs, *place.outputs)),
        like=tuple(_like(tensors[name].shape, [tensors[i].shape for i in place.inputs]) for name in place.outputs),
        workspace=workspace,
    )


def _like(shape: tuple[int, ...], shapes: Sequence[tuple[int, ...]]) -> int:
    return list(shapes).index(shape)


def cached(key: Key, asked: str, library: Library, gpu: Gpu | None) -> tuple[bytes, Record] | None:
    """Return the cached engine that a new build would repeat; None if there is none.

    A run uses the newest engine that fits, so this function marks the returned one as the newest.

    Args:
        key: key of the build; its rung does not matter.
        asked: one of ``CHOICES``.
        library: library that builds.
        gpu: GPU of this machine, or None.

    Raises:
        EngineError: the engine is damaged, or the cache cannot be used.
    """
    fitting = [record for record in cache.records() if not cache.differences(record.key, key, ("rung",))]
    # True: assume operators with a kernel; _settled() handles networks that have none.
    rungs = choose("auto", library, gpu, True).rungs
    if asked == "auto" and len(rungs) > 1:
        found = [record for record in fitting if _settled(record.layers.get("plugins", {}))]
    else:
        rung = PLAIN if asked in ("auto", "none") else asked
        found = [record for record in fitting if record.key.rung == rung]
    if not found:
        return None
    newest = max(found, key=lambda record: record.built)
    loaded = cache.load(newest.key)
    if loaded and any(record.built > newest.built for record in fitting):
        engine, record = loaded
        record = replace(record, built=datetime.now(timezone.utc).isoformat(timespec="milliseconds"))
        cache.put(record, engine)
        return engine, record
    return loaded


def _settled(recorded: dict[str, Any]) -> bool:
    """Return whether an ``auto`` build is final: it measured the rungs, or no operator has a kernel."""
    tried = bool(recorded.get("milliseconds")) or recorded.get("why") == NO_OPERATOR
    return recorded.get("asked") == "auto" and tried


def check(rung: str, expected: Iterable[str], layers: Sequence[str], model: str) -> None:
    """Check that an engine has every requested plugin, and that a plain engine has none of ours.

    Args:
        rung: rung of the engine.
        expected: names of the plugin nodes.
        layers: names of the engine's plugins.
        model: name of the model for the message.

    Raises:
        EngineError: a plugin is missing, or is there but should not be.
    """
    ours = [name for name in layers if PREFIX in name]
    missing = [name for name in expected if not any(_is(name, layer) for layer in ours)]
    if missing or (rung == PLAIN and ours):
        what = f"without {missing[0]} and {len(missing) - 1} others" if missing else f"with {ours[0]}"
        raise EngineError(f"TensorRT built {model} {what}, despite --plugins {rung}: build with --plugins none")


def _is(name: str, layer: str) -> bool:
    """Return whether a layer comes from a node. TensorRT may put other words around the node's name."""
    start = layer.find(name)
    return start >= 0 and not layer[start + len(name) :][:1].isalnum()


def best(
    choice: Choice,
    build: Callable[[str, float, float], Built],
    measured: Callable[[bytes], Any],
) -> tuple[Built, dict[str, Any]]:
    """Build each rung and keep the faster one; return the engine and the record of the choice.

    Args:
        choice: the rungs to build.
        build: builds a rung's engine. It also receives the start and the end of its share of the whole build.
        measured: measures an engine, as :func:`framecast.export.plugins.measure.measure`.

    Raises:
        EngineError: a requested rung failed. A rung that was only a candidate is left out, and the record says why.
    """
    if len(choice.rungs) == 1:
        built = build(choice.rungs[0], 0.0, 1.0)
        return built, {"rung": built.rung, "why": choice.why, "milliseconds": {}}
    plain = build(PLAIN, 0.0, 0.5)
    try:
        other = build(choice.rungs[1], 0.5, 1.0)
        first, second = measured(plain.engine), measured(other.engine)
    except (EngineError, ExportError) as error:
        _log.warning("no plugins (%s): the engine uses plain operators", error)
        return plain, {"rung": PLAIN, "why": f"{choice.rungs[1]} failed: {error}", "milliseconds": {}}
    times = {PLAIN: round(first.milliseconds, 4), other.rung: round(second.milliseconds, 4)}
    off = float(np.abs(first.prediction - second.prediction).max() / max(1e-6, np.abs(first.prediction).max()))
    recorded = {"milliseconds": times, "difference": off}
    if not off <= MOST_OFF:
        _log.warning("with plugins the prediction is off by %.3g: the engine uses plain operators", off)
        return plain, recorded | {"rung": PLAIN, "why": f"with {other.rung} the prediction is off by {off:.3g}"}
    kept = other if second.milliseconds < first.milliseconds else plain
    return kept, recorded | {"rung": kept.rung, "why": f"measured faster: {_words(times)}"}


def _words(times: dict[str, float]) -> str:
    return ", ".join(f"{rung} {milliseconds:.3f} ms" for rung, milliseconds in times.items())
