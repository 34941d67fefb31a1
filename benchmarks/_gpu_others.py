"""The last part of ``gpu_check.py``, if time is left: other networks and engines, and whole-network compilation."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from _gpu_run import Found, NotHere, Row
from _gpu_steps import measured, network_of, steps, window
from _gpu_variants import OTHERS

from framecast.errors import EngineError
from framecast.export.onnx import to_onnx
from framecast.graph.artifact import save
from framecast.runtime.engines import open_engine
from framecast.runtime.engines.engine import Engine
from framecast.runtime.shipped import shipped


def rows(configs: Sequence[str], device: str) -> list[Row]:
    """Return the rows: networks in the variants that start quickly, other engines, and slow compiled variants."""
    found: list[Row] = []
    for config in configs:
        found += [*steps(config, device), window(config, device)]
    for config in ("stip-ucf", *configs):
        found += [Row(f"{config} {name}", partial(_other, config, name, device)) for name in OTHERS]
    for config in ("stip-ucf", *configs):
        found += steps(config, device, slow=True)
    return found


def _other(config: str, name: str, device: str) -> Found:
    return measured(config, partial(_from_artifact, config, name, device), device)


@contextmanager
def _from_artifact(config: str, name: str, device: str) -> Iterator[Engine]:
    """Open an engine on an exported artifact. For TensorRT, build the engine first.

    Raises:
        NotHere: the engine's library, or its GPU, is missing.
    """
    prepare = _prepared_tensorrt if name.startswith("tensorrt") else _prepared_onnxruntime
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{config}.onnx"
        if device == "cuda" and config in shipped():
            path = shipped()[config]
        prepare(path, config, name.partition(":")[2], lambda: _export(path, config, device))
        with open_engine(path, name) as opened:
            yield opened


def _export(path: Path, config: str, device: str) -> None:
    if not path.exists():
        save(to_onnx(*network_of(config, device)), path)


def _prepared_tensorrt(path: Path, config: str, precision: str, export: Callable[[], None]) -> None:
    from framecast.export import tensorrt
    from framecast.runtime.engines.tensorrt.library import gpu, library

    try:
        here, found = gpu(), library()
    except EngineError as error:
        raise NotHere(str(error)) from error
    export()
    tensorrt.build(tensorrt.BuildRequest(path, config, found, here, precision=precision))


def _prepared_onnxruntime(path: Path, config: str, precision: str, export: Callable[[], None]) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise NotHere(f"onnxruntime {onnxruntime.__version__} is built without CUDA")
    export()
