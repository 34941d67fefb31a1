"""``framecast build``: a TensorRT engine from an artifact."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framecast.cli.checks import check_numbers, check_outputs, picture_size
from framecast.cli.complete import complete_models, complete_precisions
from framecast.cli.extras import needs_extra
from framecast.cli.progress import progress
from framecast.cli.signals import on_signals
from framecast.errors import EngineError, OptionError

if TYPE_CHECKING:
    from framecast.export.tensorrt import BuildRequest
    from framecast.runtime.engines.tensorrt.cache import Record
    from framecast.runtime.engines.tensorrt.library import Gpu, Library


def build(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="The path of an artifact, or the name of a shipped model.",
            autocompletion=complete_models,
        ),
    ],
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="fp16: float16 where the network tolerates it, float32 elsewhere; or fp32.",
            autocompletion=complete_precisions,
        ),
    ] = "fp16",
    batch: Annotated[int, typer.Option(metavar="N", help="Number of cameras in one step.")] = 1,
    camera: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Resize the camera's pictures of this size in the engine, such as 1920x1080."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="CAPABILITY",
            help="Build for another GPU with this compute capability, such as 8.9. Needs TensorRT for RTX.",
        ),
    ] = None,
    plugins: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="framecast's own kernels as plugins. auto: if they measure faster; aot, v3: always; none.",
        ),
    ] = "auto",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Also write the engine here, with its record next to it."),
    ] = None,
) -> None:
    """Build a TensorRT engine from an artifact.

    The engine goes into this machine's cache, where 'framecast run --engine tensorrt' finds it.
    """
    from framecast.files import check_writable, sha256, write
    from framecast.graph.manifest import RENDER, beside, check_halves, other_half
    from framecast.runtime.engines import ENGINES
    from framecast.runtime.shipped import find

    path = find(model)
    precisions = ENGINES["tensorrt"].precisions
    if precision not in precisions:
        raise OptionError(f"--precision takes {' or '.join(precisions)}, not {precision}")
    if plugins not in ("auto", "aot", "v3", "none"):
        raise OptionError(f"--plugins takes auto, aot, v3 or none, not {plugins}")
    check_numbers(batch=batch)
    size = None if camera is None else picture_size("--camera", camera)
    outputs = [output, _record_of(output)] if output else []
    check_outputs(str(path), outputs)
    with needs_extra("build", "build"):
        from framecast.export import tensorrt
        from framecast.graph.artifact import load, manifest_of, metadata_of, read
        from framecast.graph.device import check_device
    for place in outputs:
        check_writable(place)
    loaded = tensorrt.Loaded(sha256(path), read(path))
    manifest = manifest_of(loaded.graph)
    check_device(manifest)  # checked before the driver, which would not help
    rendering = None
    if manifest.renders == "moments":
        render = beside(path, RENDER)
        rendering = tensorrt.Loaded(sha256(render), load(render))
        check_halves(path, metadata_of(loaded.graph), metadata_of(rendering.graph), RENDER)
    library, gpu = _library(target), _gpu_or_none(target)
    request = tensorrt.BuildRequest(path, model, library, gpu, target, precision, batch, size, plugins, loaded)
    requests = [(request, output)]
    if rendering is not None:
        drawing = replace(request, artifact=render, camera=None, loaded=rendering)
        requests.append((drawing, other_half(output, RENDER) if output else None))
    for wanted, written in requests:
        engine, record = _kept(wanted)
        if written:
            for file, data in ((written, engine), (_record_of(written), record.to_json().encode())):
                write(file, data, "choose another --output")
            print(f"wrote {written} ({len(engine) / 1e6:.1f} MB)")


def _kept(request: BuildRequest) -> tuple[bytes, Record]:
    """The cached engine and its record. It is built first if it is missing."""
    from framecast.export.plugins.candidates import cached
    from framecast.export.plugins.ladder import choose
    from framecast.runtime.engines.tensorrt import cache

    library, gpu, plugins, model = request.library, request.gpu, request.plugins, request.model
    key = request.key()
    cache.folder()
    choose(plugins, library, gpu, has_operators=True)  # True: known only once the graph is read
    measurable = gpu is not None and not library.rtx
    wanted = key if plugins == "none" or (plugins == "auto" and not measurable) else replace(key, rung=plugins)
    try:
        found = cached(key, plugins, library, gpu)
        reason = "" if found else cache.missing(wanted, model, request.artifact, ignore=())
    except EngineError as error:
        found, reason = None, str(error)
    if found is None:
        print(f"{reason}: building it with {library.name} {library.version} for {key.device}", file=sys.stderr)
        found = _built(request)
        _show(found[1])
    else:
        built = found[1]
        print(
            f"up to date: {model} in {request.precision} for {key.device}, built {built.built[:10]}, {_plugins(built)}"
        )
    return found


def _built(request: BuildRequest) -> tuple[bytes, Record]:
    from framecast.export import tensorrt

    stopped: list[bool] = []
    with on_signals(lambda: stopped.append(True)), progress() as show:

        def advance(share: float, phase: str) -> bool:
            show(share, phase)
            return not stopped

        return tensorrt.build(request, advance)


def _show(record: Record) -> None:
    """Print a table about the new engine."""
    from framecast import terminal
    from framecast.runtime.engines.tensorrt import cache

    key, network, engine = record.key, record.layers["network"], record.layers["engine"]
    parsed = f"{network['layers']} layers parsed: {network['float16']} in float16, {network['float32']} in float32"
    parsed += ", the rest constants and shapes"
    if "not_inspected" in engine:
        inside = f"not inspected: {engine['not_inspected']}"
    else:
        types = ", ".join(f"{count} {name}" for name, count in engine["types"].items())
        inside = f"{engine['layers']} layers ({types}), {len(engine['plugins'])} plugins"
    rows = [
        ("model", record.model),
        ("built for", key.device),
        ("library", f"{key.library} {key.version}"),
        ("precision", key.precision),
        ("cameras", f"{key.batch}" + (f", {key.camera[0]}x{key.camera[1]}" if key.camera else "")),
        ("network", parsed),
        ("engine", f"{record.size / 1e6:.1f} MB in {record.seconds:.1f} s; {inside}"),
        ("plugins", _plugins(record)),
        ("kept as", str(cache.folder() / f"{key.digest}.engine")),
    ]
    terminal.table("framecast build", ("what", ""), rows)


def _plugins(record: Record) -> str:
    """The kind of plugins in the engine, and why."""
    why = record.layers.get("plugins", {}).get("why", "")
    rung = {"plain": "no plugins", "aot": "AOT plugins", "v3": "IPluginV3"}.get(record.key.rung, record.key.rung)
    return f"{rung} ({why})" if why else rung


def _library(target: str | None) -> Library:
    """The TensorRT to build with. Only TensorRT for RTX can build for another GPU."""
    from framecast.runtime.engines.tensorrt.library import library

    if target is not None:
        with suppress(EngineError):
            return library("tensorrt_rtx")
    return library()


def _gpu_or_none(target: str | None) -> Gpu | None:
    """This machine's GPU. None if it has none and the engine is for another GPU."""
    from framecast.runtime.engines.tensorrt.library import gpu

    try:
        return gpu()
    except EngineError as error:
        if target is None:
            raise EngineError(f"{error}; to build for another machine's GPU use --for (TensorRT for RTX)") from error
        return None


def _record_of(output: Path) -> Path:
    return output.with_name(output.name + ".json")
