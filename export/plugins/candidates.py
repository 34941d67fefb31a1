"""The engines of a network, one for each rung that comes into question, and the one that is kept."""

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
# Of the largest prediction: what the tactics of two builds in float16 may differ by in a step. Another operator, or
# inputs in another request, are off by more.
MOST_OFF = 0.05
_ALIGNED = 256  # bytes: as TensorRT aligns tensors


@dataclass(frozen=True)
class Built:
    """An engine of one rung, and what was found in it."""

    rung: str
    engine: bytes
    layers: dict[str, Any]


def with_plugins(network: ModelProto, rung: str, library: Library, gpu: Gpu | None) -> tuple[ModelProto, list[str]]:
    """The graph as a rung takes it, with its plugins registered, and the names of the plugins' nodes.

    Raises:
        EngineError: a kernel cannot be compiled, or TensorRT does not take the plugins.
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
    """A whole operator as one plugin: its launches, with its partial results in the workspace.

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
    """The engine in the cache that a build would give; it becomes the newest, for the newest is the one that runs.

    Args:
        key: of the build, whatever its rung.
        asked: one of ``CHOICES``.
        library: that builds.
        gpu: at hand, or None.

    Raises:
        EngineError: it is damaged, or the cache cannot be used.
    """
    fitting = [record for record in cache.records() if not cache.differences(record.key, key, ("rung",))]
    rungs = choose("auto", library, gpu, True).rungs  # with has_operators: what has none says so in its record
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
    """Whether ``auto`` would choose the same again: it has measured, or there was, and is, nothing to measure."""
    tried = bool(recorded.get("milliseconds")) or recorded.get("why") == NO_OPERATOR
    return recorded.get("asked") == "auto" and tried


def check(rung: str, expected: Iterable[str], layers: Sequence[str], model: str) -> None:
    """Hold an engine to what was asked for: each plugin is there, and no other of ours.

    Args:
        rung: that was built.
        expected: names of the plugins' nodes.
        layers: names of the engine's plugins.
        model: for the message.

    Raises:
        EngineError: a plugin is missing, or one is there that should not be.
    """
    ours = [name for name in layers if PREFIX in name]
    missing = [name for name in expected if not any(_is(name, layer) for layer in ours)]
    if missing or (rung == PLAIN and ours):
        what = f"without {missing[0]} and {len(missing) - 1} others" if missing else f"with {ours[0]}"
        raise EngineError(f"TensorRT built {model} {what}, against --plugins {rung}: build with --plugins none")


def _is(name: str, layer: str) -> bool:
    """Whether a layer is that of a node; TensorRT may put other words around its name."""
    start = layer.find(name)
    return start >= 0 and not layer[start + len(name) :][:1].isalnum()


def best(
    choice: Choice,
    build: Callable[[str, float, float], Built],
    measured: Callable[[bytes], Any],
) -> tuple[Built, dict[str, Any]]:
    """Build each rung, and keep the faster: the engine, and what is recorded of the choice.

    Args:
        choice: what to build.
        build: a rung's engine; told from which share of the whole build on it runs, and up to which.
        measured: :func:`framecast.export.plugins.measure.measure` of an engine.

    Raises:
        EngineError: a rung that was asked for fails. One that only came into question is left out, with the reason.
    """
    if len(choice.rungs) == 1:
        built = build(choice.rungs[0], 0.0, 1.0)
        return built, {"rung": built.rung, "why": choice.why, "milliseconds": {}}
    plain = build(PLAIN, 0.0, 0.5)
    try:
        other = build(choice.rungs[1], 0.5, 1.0)
        first, second = measured(plain.engine), measured(other.engine)
    except (EngineError, ExportError) as error:
        _log.warning("no plugins (%s): the engine is of plain operators", error)
        return plain, {"rung": PLAIN, "why": f"{choice.rungs[1]} failed: {error}", "milliseconds": {}}
    times = {PLAIN: round(first.milliseconds, 4), other.rung: round(second.milliseconds, 4)}
    off = float(np.abs(first.prediction - second.prediction).max() / max(1e-6, np.abs(first.prediction).max()))
    recorded = {"milliseconds": times, "difference": off}
    if not off <= MOST_OFF:
        _log.warning("with plugins the prediction is off by %.3g: the engine is of plain operators", off)
        return plain, recorded | {"rung": PLAIN, "why": f"with {other.rung} the prediction is off by {off:.3g}"}
    kept = other if second.milliseconds < first.milliseconds else plain
    return kept, recorded | {"rung": kept.rung, "why": f"measured faster: {_words(times)}"}


def _words(times: dict[str, float]) -> str:
    return ", ".join(f"{rung} {milliseconds:.3f} ms" for rung, milliseconds in times.items())
