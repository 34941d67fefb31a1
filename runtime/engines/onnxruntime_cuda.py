"""ONNX Runtime on CUDA. States stay bound on the device; only pictures go in and come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.errors import ArtifactError, EngineError, first_line
from framecast.graph.manifest import RENDER, beside, check_halves
from framecast.runtime.engines.device import Buffer, DeviceEngine
from framecast.runtime.engines.onnxruntime import check_boundary

_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class _OrtBuffer(Buffer):
    def __init__(self, value: Any, zeros: NDArray[Any]) -> None:
        self.value, self.shape, self.dtype = value, zeros.shape, zeros.dtype
        self.address: int = value.data_ptr()
        self._zeros = zeros  # on a CPU the value uses this memory

    def upload(self, array: NDArray[Any]) -> None:
        self.value.update_inplace(np.ascontiguousarray(array))

    def download(self) -> NDArray[Any]:
        return np.array(self.value.numpy())


class OnnxRuntimeCudaEngine(DeviceEngine):
    """See :class:`Engine`.

    Args:
        artifact: path of the ONNX file.
        threads: CPU threads for operators that run on the CPU; 0 means one per core.
        device: ``cuda``; ``cpu`` checks the same path on a machine that has no GPU.
        precision: ``fp32``; or ``tf32``, in which convolutions and products round their inputs to 10 bits. ONNX Runtime
            computes in TF32 unless it is told not to.

    Raises:
        ArtifactError: the file is not a usable artifact.
        EngineError: this ONNX Runtime has no CUDA, or finds no GPU.
    """

    name = "onnxruntime-cuda"

    def __init__(self, artifact: Path, *, threads: int = 0, device: str = "cuda", precision: str = "fp32") -> None:
        super().__init__()
        try:
            import onnx
            import onnxruntime

            from framecast.graph.artifact import manifest_of, metadata_of
            from framecast.graph.device import device_graph
        except ImportError as error:
            raise EngineError(
                f"onnxruntime-cuda needs {error.name}: pip install onnxruntime-gpu onnx (in place of onnxruntime)"
            ) from error
        self.version: str = onnxruntime.__version__
        self.device, self.precision = device, precision
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy
        provider = _PROVIDERS[device]
        if provider not in onnxruntime.get_available_providers():
            raise EngineError(
                f"this onnxruntime {self.version} was built without CUDA: pip uninstall onnxruntime, then pip install "
                "onnxruntime-gpu (or use --engine onnxruntime)"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # no logs: failures are raised in one line
        try:
            proto = onnx.load(str(artifact))
            self.manifest = manifest_of(proto)
            check_boundary(self.manifest, proto.graph.input, proto.graph.output)
            graphs = [device_graph(proto).SerializeToString()]
            if self.manifest.renders == "moments":
                render = onnx.load(str(beside(artifact, RENDER)))
                check_halves(artifact, metadata_of(proto), metadata_of(render), RENDER)
                graphs.append(device_graph(render).SerializeToString())
        except ArtifactError as error:
            raise ArtifactError(f"{artifact}: {error}") from error
        except Exception as error:  # from protobuf, onnx's checker, or the file system
            reason = first_line(error)
            raise ArtifactError(
                f"{artifact} is not an ONNX file that can be run ({reason}): make one with 'framecast export'"
            ) from error
        try:
            choices = {"use_tf32": str(int(precision == "tf32"))} if device == "cuda" else {}
            providers = [(provider, choices)]
            self._sessions = [onnxruntime.InferenceSession(g, options, providers=providers) for g in graphs]
        except Exception as error:  # ORT raises many kinds, some of them bare C++ ones
            raise EngineError(
                f"onnxruntime cannot use this GPU ({first_line(error)}): see 'framecast doctor'"
            ) from error
        if provider not in self._sessions[0].get_providers():
            raise EngineError("onnxruntime finds no usable GPU: check the driver with 'framecast doctor'")

    def allocate(self, shape: tuple[int, ...], dtype: type[Any]) -> Buffer:
        """See :meth:`DeviceEngine.allocate`."""
        zeros = np.zeros(shape, dtype)
        return _OrtBuffer(self._value(zeros, self.device, 0), zeros)

    def bind(
        self, reads: Mapping[str, Buffer], writes: Mapping[str, Buffer], *, render: bool = False
    ) -> Callable[[], None]:
        """See :meth:`DeviceEngine.bind`."""
        session = self._sessions[render]
        binding = session.io_binding()
        for bind, buffers in ((binding.bind_input, reads), (binding.bind_output, writes)):
            for name, buffer in buffers.items():
                bind(name, self.device, 0, buffer.dtype.type, list(buffer.shape), buffer.address)

        def run(_: Any = (reads, writes)) -> None:  # the default keeps the buffers alive: they are bound by address
            try:
                session.run_with_iobinding(binding)
            except Exception as error:
                raise EngineError(f"onnxruntime could not run {self.manifest.config}: {first_line(error)}") from error

        return run

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        super().close()
        self._sessions.clear()
