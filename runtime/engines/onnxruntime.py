"""ONNX Runtime on the CPU: runs everywhere, with two state buffers and no copies between them."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from framecast.errors import ArtifactError, EngineError, first_line
from framecast.graph.contents import graph_bytes
from framecast.graph.manifest import BEFORE, RENDER, Manifest, beside, check_halves, read_metadata
from framecast.runtime.convert import Tensor
from framecast.runtime.engines.engine import (
    Engine,
    Moment,
    State,
    field_buffers,
    state_buffers,
    step_buffers,
)
from framecast.runtime.engines.phases import Phases

_FULL = "is smaller than requested bytes"  # in ONNX Runtime's error when an allocator's limit is reached


class OnnxRuntimeEngine(Engine):
    """See :class:`Engine`. It binds inputs and outputs to the states' buffers, once for each phase of their ring."""

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, artifact: Path, *, threads: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(f"onnxruntime cannot be loaded ({first_line(error)}): pip install onnxruntime") from error

        self.version: str = onnxruntime.__version__
        _bound_memory()
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.use_env_allocators", "1")  # the one of _bound_memory
        options.intra_op_num_threads = threads
        # Threads that spin between steps take CPU time from the camera's thread. stip-edge on the demo at 27 fps, on
        # two cores (AMD EPYC, onnxruntime 1.31): 60 % of a core and 15.7 ms p50. With spinning: 140 % and 14.3 ms.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # no logs: we raise failures as one-line errors
        options.add_session_config_entry("session.load_model_format", "ONNX")  # not its own format, which is unchecked
        self._session: Any = open_session(artifact, graph_bytes(artifact), options)
        self._running = Running(onnxruntime)
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy
        metadata = _metadata(artifact, self._session)
        self.manifest = read_metadata(artifact, metadata)
        try:
            check_boundary(self.manifest, self._session.get_inputs(), self._session.get_outputs())
        except ArtifactError as error:
            raise ArtifactError(f"{artifact}: {error}") from error
        self._before: Any = None
        self._render: Any = None

        def opened(key: str) -> Any:
            half = beside(artifact, key)
            session = open_session(half, graph_bytes(half), options)
            check_halves(artifact, metadata, _metadata(half, session), key)
            return session

        if self.manifest.precomputed:
            self._before = opened(BEFORE)
        if self.manifest.renders == "moments":
            self._render = opened(RENDER)
        self._bindings: Phases[Any] = Phases()

    def _bind(self, state_in: State, state_out: State, moment: Moment) -> Any:
        binding = self._session.io_binding()
        reads, writes = step_buffers(self.manifest, state_in, moment, state_out)
        for name, tensor in reads.items():
            binding.bind_ortvalue_input(name, self._value(tensor))
        for name, tensor in writes.items():
            binding.bind_ortvalue_output(name, self._value(tensor))
        return binding

    def precompute(self, state: State) -> None:
        """See :meth:`Engine.precompute`."""
        if self._before is None or state.is_precomputed:
            return
        binding = self._before.io_binding()
        buffers = state_buffers(self.manifest, state)
        for value in self._before.get_inputs():
            binding.bind_ortvalue_input(value.name, self._value(buffers[value.name]))
        for name, tensor in state.precomputed.items():
            binding.bind_ortvalue_output(name, self._value(tensor))
        self._run(self._before, binding)
        state.is_precomputed = True

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """See :meth:`Engine.step`."""
        self.perceive(frame, state_in, state_out)
        if self._render is not None:
            self.draw(state_out, self.since(state_out))
        prediction: Tensor = state_out.prediction
        return prediction

    def perceive(self, frame: Tensor, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.perceive`; for a network it is the step."""
        if self._session is None:
            raise EngineError(f"{self.manifest.config} is closed: load it again")
        binding = self._bindings.at(state_in, state_out, lambda moment: self._bind(state_in, state_out, moment))
        self.precompute(state_in)
        binding.bind_cpu_input("frame", frame)
        if self._render is not None:
            binding.bind_cpu_input("elapsed", np.full(len(frame), self.since(state_out), np.float32))
        self._run(self._session, binding)

    def draw(self, state: State, ahead: float) -> None:
        """See :meth:`Engine.draw`."""
        if self._render is None:
            raise EngineError(f"{self.manifest.config} is closed: load it again")
        binding = self._render.io_binding()
        for name, tensor in field_buffers(self.manifest, state).items():
            binding.bind_ortvalue_input(name, self._value(tensor))
        binding.bind_cpu_input("ahead", np.full(len(state.prediction), ahead, np.float32))
        binding.bind_ortvalue_output("prediction", self._value(state.prediction))
        self._run(self._render, binding)

    def _run(self, session: Any, binding: Any) -> None:
        self._running.run(session, binding, self.manifest.config)

    def interrupt(self, reason: str) -> bool:
        """See :meth:`Engine.interrupt`. ONNX Runtime looks between two operators, also inside a loop."""
        return self._running.interrupt(reason)

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        self._bindings.clear()
        self._session = self._before = self._render = None


class Running:
    """Runs sessions, and can end a run from another thread."""

    def __init__(self, onnxruntime: Any) -> None:
        self.options = onnxruntime.RunOptions()
        self.options.log_severity_level = 4  # no logs: we raise failures as one-line errors
        self._reason = ""

    def run(self, session: Any, binding: Any, config: str) -> None:
        """Run a session on bound buffers.

        Raises:
            EngineError: it failed, or was interrupted.
        """
        try:
            session.run_with_iobinding(binding, self.options)
        except Exception as error:
            if not self._reason and _FULL in str(error):
                raise EngineError(
                    f"{config} needs more than {most_memory() >> 20} MB of memory, half of this machine's: use a "
                    "smaller model, or another engine"
                ) from error
            raise EngineError(self._reason or f"onnxruntime could not run {config}: {first_line(error)}") from error

    def interrupt(self, reason: str) -> bool:
        """See :meth:`Engine.interrupt`."""
        self._reason = reason
        self.options.terminate = True
        return True


def most_memory() -> int:
    """The bytes that ONNX Runtime may take in this process for weights and values: half of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@functools.cache
def _bound_memory() -> None:
    """Give all sessions of the process one allocator with a limit: a graph of 1 kB can ask for any amount of memory."""
    import onnxruntime

    onnxruntime.create_and_register_allocator(
        onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        ),
        onnxruntime.OrtArenaCfg(most_memory(), -1, -1, -1),
    )


def open_session(artifact: Path, data: bytes, options: Any) -> Any:
    """Open a graph's bytes on the CPU; ``artifact`` names the file in messages.

    Raises:
        ArtifactError: ONNX Runtime refuses it.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # its allocator does not log through the session
    try:
        # With fallback enabled, ONNX Runtime prints some failures and tries the same again.
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises many types, some directly from C++
        reason = first_line(error)
        raise ArtifactError(
            f"{artifact} is not an ONNX file that can be run ({reason}): make one with 'framecast export'"
        ) from error


def _metadata(artifact: Path, session: Any) -> dict[str, str | bytes]:
    """The metadata of a session's file.

    Raises:
        ArtifactError: the metadata is not UTF-8.
    """
    try:
        metadata: dict[str, str | bytes] = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{artifact}: its metadata is damaged ({first_line(error)}): export it again") from error
    return metadata


def check_boundary(manifest: Manifest, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Check that a graph's inputs and outputs, from ONNX or ONNX Runtime, match the manifest.

    Raises:
        ArtifactError: they do not.
    """
    expected = {
        "frame": manifest.frame,
        **manifest.precomputed,
        **{name: s.shape for s in manifest.state for name in s.inputs},
    }
    promised: dict[str, tuple[int, ...]] = {f"next.{s.name}": s.shape for s in manifest.state}
    if manifest.renders == "moments":
        expected["elapsed"] = ()
        promised |= {f"fields.{name}": manifest.fields[name] for name in manifest.made_fields}
    else:
        promised["prediction"] = (manifest.outputs, *manifest.frame)
    if _shapes(inputs) != expected:
        raise ArtifactError("its inputs do not match its manifest: export it again")
    if _shapes(outputs) != promised:
        raise ArtifactError("its outputs do not match its manifest: export it again")


def _shapes(values: Sequence[Any]) -> dict[str, tuple[Any, ...]] | None:
    """The names and shapes of a graph's inputs or outputs; None if one has a name that is not UTF-8."""
    try:
        return {value.name: _shape(value) for value in values}
    except UnicodeDecodeError:  # ONNX Runtime decodes a name, also a dimension's, only when it is asked for
        return None


def _shape(value: Any) -> tuple[Any, ...]:
    """The shape without the batch."""
    if hasattr(value, "shape"):
        return tuple(value.shape[1:])
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])
