"""TensorRT: runs an engine from ``framecast build`` with one CUDA graph for each phase of the state's ring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from framecast.errors import EngineError
from framecast.graph.manifest import RENDER, Manifest, beside
from framecast.runtime.engines.device import Buffer, DeviceEngine
from framecast.runtime.engines.tensorrt import cache, plugin
from framecast.runtime.engines.tensorrt.cuda import DeviceBuffer, Streams, launcher, process_cuda
from framecast.runtime.engines.tensorrt.library import Gpu, Library, gpu, library


class TensorRTEngine(DeviceEngine):
    """See :class:`Engine`.

    Args:
        artifact: path of the ONNX file that the engine was built from.
        precision: ``fp16`` or ``fp32`` (default: that of the most recently built engine).
        batch: the number of streams per step. An engine must have been built for this number. Those built for other
            numbers are opened when they are needed (:meth:`runs`), and then hold the weights as well.

    Raises:
        EngineError: the driver, TensorRT, pycuda or an engine for this GPU and version is missing, the engine is
            damaged, or there is no memory for it.
    """

    name = "tensorrt"
    compiles = True

    def __init__(self, artifact: Path, *, precision: str | None = None, batch: int = 1) -> None:
        super().__init__()
        found = gpu()  # check before loading TensorRT: without a driver, parts of TensorRT end the process
        trt = library()
        self._cuda = process_cuda()
        self.device, self.version = found.name, f"{trt.name} {trt.version}"
        data, self.record = cache.find(artifact, artifact.stem, trt, found, precision=precision, batch=batch)
        self.precision = self.record.key.precision
        self.camera = self.record.key.camera
        self.batch = self.record.key.batch
        self.manifest = Manifest.from_json(self.record.manifest)
        if self.record.key.rung == "v3":
            plugin.register(trt.trt)
        self._streams = Streams(self._cuda)
        self._runtime: Any = None
        self._engines: list[Any] = []
        self._name = artifact.stem
        self._context = self._loaded(trt, data)
        self._find = partial(cache.find, artifact, artifact.stem, trt, found, precision=self.precision)
        self._trt = trt
        self._contexts: dict[int, Any] = {self.batch: self._context}  # by batch; None if no engine was built for it
        self._rendering: Any = None
        if self.manifest.renders == "moments":
            self._rendering = self._loaded(trt, self._render_engine(artifact, trt, found))

    def _render_engine(self, artifact: Path, trt: Library, found: Gpu) -> bytes:
        """Find the engine that renders a model of motion."""
        key = self.record.key
        data, record = cache.find(
            beside(artifact, RENDER), artifact.stem, trt, found, precision=key.precision, batch=key.batch
        )
        if record.manifest != self.record.manifest:
            raise EngineError(
                f"the two engines of {self.manifest.config} were not built together: build them again with "
                f"'{cache.cure(artifact.stem, key)}'"
            )
        return data

    def _loaded(self, trt: Library, data: bytes) -> Any:
        """Load an engine and return its execution context."""
        with self._cuda.current(), trt.errors() as errors:
            self._runtime = self._runtime or trt.trt.Runtime(trt.logger())
            engine = self._runtime.deserialize_cuda_engine(data)
            context = engine.create_execution_context() if engine else None
            # TensorRT may still copy weights on the default stream, and our streams do not wait for that one.
            self._cuda.synchronize()
        if context is None:
            reason = errors[-1] if errors else "it gave no reason"
            raise EngineError(
                f"TensorRT could not load the engine of {self.manifest.config} ({reason}): build it again with "
                f"'{cache.cure(self._name, self.record.key)}'"
            )
        self._engines.append(engine)
        return context

    def runs(self, batch: int) -> bool:
        """See :meth:`Engine.runs`. It opens the engine that was built for this batch, if there is one."""
        if batch not in self._contexts and self.manifest.renders == "steps":
            self._contexts[batch] = None
            with suppress(EngineError):  # there is none
                data, record = self._find(batch=batch)
                if (record.manifest, record.key.camera) == (self.record.manifest, self.camera):
                    self._contexts[batch] = self._loaded(self._trt, data)
        return self._contexts.get(batch) is not None

    def allocate(self, shape: tuple[int, ...], dtype: type[Any]) -> Buffer:
        """See :meth:`DeviceEngine.allocate`."""
        return DeviceBuffer(self._streams, shape, dtype)

    def bind(
        self, reads: Mapping[str, Buffer], writes: Mapping[str, Buffer], *, render: bool = False
    ) -> Callable[[], None]:
        """See :meth:`DeviceEngine.bind`."""
        cuda, streams = self._cuda, self._streams
        context = self._rendering if render else self._contexts[reads["keep"].shape[0]]
        addresses = {name: buffer.address for name, buffer in {**reads, **writes}.items()}
        failure = (
            f"TensorRT could not run {self.manifest.config}: build it again with 'framecast build' (for details, use "
            "--verbose)"
        )
        with cuda.current():
            try:
                launch = launcher(streams, context, addresses, lambda: failure)
            finally:
                streams.step_ends()  # even after a failure: part of the step may be running

        def run() -> None:
            with cuda.current():
                try:
                    launch()
                finally:
                    streams.step_ends()

        return run

    def copy(self, to: int, of: int, size: int) -> None:
        """See :meth:`DeviceEngine.copy`."""
        self._streams.copy(to, of, size)

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        super().close()
        with self._cuda.current():
            with suppress(Exception):  # a GPU that has failed runs nothing any more
                self._streams.synchronize()  # the GPU must be done with TensorRT's objects before they die
            self._contexts.clear()
            self._context = self._rendering = self._runtime = None
            self._engines.clear()
