"""PyTorch: the reference engine, which also runs our Triton kernels directly.

On CUDA a step is one CUDA graph, from the uploaded picture to the predicted one. There is one graph for each
arrangement of the states' buffers. The state never leaves the device. The host waits once per frame, when it reads the
prediction.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.errors import EngineError, OptionError, first_line
from framecast.graph.manifest import Manifest
from framecast.runtime.convert import Tensor, to_model_size
from framecast.runtime.engines.capturing import CAPTURING
from framecast.runtime.engines.engine import Engine, Moment, State, field_buffers, step_buffers
from framecast.runtime.engines.phases import Phases

if TYPE_CHECKING:
    from framecast.runtime.engines.torch_pictures import Input, Pictures

WARM = 3  # steps before a capture: in the first steps, libraries choose kernels and allocate memory


class Buffer:
    """A tensor in the engine's memory.

    Args:
        tensor: the tensor.
        running: the context of the engine's calls, because a buffer must be filled on the stream that reads it.
    """

    def __init__(self, tensor: Any, running: Callable[[], AbstractContextManager[Any]]) -> None:
        self.tensor = tensor
        self._running = running

    def fill(self, value: float) -> None:
        """Set every element."""
        with self._running():
            self.tensor.fill_(value)


class TorchEngine(Engine):
    """See :class:`Engine`.

    Args:
        network: a :class:`framecast.models.step.StepModel`. The engine runs its form for export or for a GPU, and may
            change it.
        manifest: the network's manifest.
        device: ``cuda`` or ``cpu`` (default: ``cuda`` if available).
        precision: ``fp32``. On CUDA also ``tf32``, which rounds the inputs of convolutions to 10 bits, or ``fp16``,
            which runs convolutions and fully connected layers in float16. Everything else, such as the state, is always
            float32.
        kernels: whether to run our Triton kernels, on CUDA.
        graph: whether to capture steps as CUDA graphs, on CUDA.
        compiled: whether to use ``torch.compile`` for the network.
        branch: whether independent parts of a step run in parallel, as branches of the CUDA graph.
        channels_last: whether convolutions run channels-last, on CUDA, in networks that support it (default: in tf32
            and fp16, because that suits tensor cores).
        overlap: whether a kernel's passes may overlap, on CUDA: see :func:`framecast.kernels.switch.overlapped`.
        threads: CPU threads of a step, for the whole process; 0 means torch's own choice.

    Raises:
        EngineError: there is no such device.
        OptionError: the device does not have this precision.
    """

    name = "torch"
    apart = False
    compiles = True

    def __init__(
        self,
        network: Any,
        manifest: Manifest,
        *,
        device: str = "",
        precision: str = "fp32",
        kernels: bool = True,
        graph: bool = True,
        compiled: bool = False,
        branch: bool = True,
        channels_last: bool | None = None,
        overlap: bool = False,
        threads: int = 0,
    ) -> None:
        import torch

        self._torch: Any = torch
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        on_gpu = self._device.type == "cuda"
        if on_gpu and not torch.cuda.is_available():
            raise EngineError("torch sees no CUDA device: see 'framecast doctor', or use --engine onnxruntime")
        if overlap and on_gpu and torch.cuda.get_device_capability(self._device) < (9, 0):
            raise OptionError("overlap needs a GPU of compute capability 9.0 or higher: leave it out")
        if precision != "fp32" and not on_gpu:
            raise OptionError(f"on a CPU torch runs in fp32 only, not in {precision}: leave the precision out")
        if threads:
            torch.set_num_threads(threads)
        self.device = torch.cuda.get_device_name(self._device) if on_gpu else "cpu"
        self.version: str = torch.__version__
        self.manifest = manifest
        if on_gpu:
            last = precision != "fp32" if channels_last is None else channels_last
            with torch.cuda.device(self._device):
                network = network.on_gpu(branch=branch and not compiled, channels_last=last)
        else:
            network = network.deployed()
        self._network = network.to(self._device).eval()
        if precision == "fp16":
            layers_to_half(self._network)
        self._forward: Any = torch.compile(self._network) if compiled else self._network
        self.precision, self._kernels, self._graph, self._overlap = precision, kernels, graph and on_gpu, overlap
        self._stream = torch.cuda.Stream(self._device) if on_gpu else None
        if self._stream is not None:  # the default stream uploads and rounds the weights
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        self._pool = torch.cuda.graph_pool_handle() if self._graph else None
        self._inputs: dict[Hashable, Input] = {}
        self._taken: Any = None  # pictures on the device, for the next run
        self._phases: Phases[Callable[[], None]] = Phases()
        self._pictures: weakref.WeakKeyDictionary[State, Pictures] = weakref.WeakKeyDictionary()
        self._draws: weakref.WeakKeyDictionary[State, Callable[[], None]] = weakref.WeakKeyDictionary()

    @classmethod
    def open(cls, path: Path, **options: Any) -> TorchEngine:
        """Open a ``.safetensors`` file, or an artifact whose export did not merge or change weights.

        Raises:
            ArtifactError: no network can be made from the file.
            EngineError: torch is missing, or has no such device.
        """
        try:
            from framecast.export.load_network import load_network
        except ImportError as error:
            raise EngineError(
                f"the torch engine needs {error.name}: pip install 'framecast[models]'; in a clone: -e '.[models]'"
            ) from error
        return cls(*load_network(path), **options)

    def zeros(self, shape: tuple[int, ...]) -> Buffer:
        """See :meth:`Engine.zeros`."""
        torch = self._torch
        with self._running():
            last = self._network.channels_last and len(shape) == 4
            layout = torch.channels_last if last else torch.contiguous_format
            return Buffer(torch.zeros(shape, device=self._device).to(memory_format=layout), self._running)

    def new_state(self, batch: int = 1) -> State:
        """See :meth:`Engine.new_state`."""
        from framecast.runtime.engines.torch_pictures import Pictures

        state = super().new_state(batch)
        with self._running():
            self._pictures[state] = Pictures(batch, self.manifest, self._device)
        return state

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """See :meth:`Engine.step`."""
        with self._running():
            self._advance(self._put(frame), None, state_in, state_out)
            if self.manifest.renders == "moments":
                self._draw(state_out, self.since(state_out))
            prediction = state_out.prediction.tensor.cpu().numpy()
        return cast(Tensor, prediction)

    def take(self, images: Sequence[Image], state: State) -> None:
        """See :meth:`Engine.take`. Only bytes are uploaded."""
        state.seen = [to_model_size(image, self.manifest) for image in images]
        with self._running():
            self._taken = self._put(state.seen[0][None] if len(images) == 1 else np.stack(state.seen))

    def run(self, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.run`. On CUDA it only enqueues the step."""
        from framecast.runtime.engines.torch_pictures import to_frame

        with self._running():
            self._advance(self._taken, partial(to_frame, self.manifest), state_in, state_out)

    def feed_back(self, source: State, k: int, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.feed_back`. The prediction stays on the device."""
        with self._running():
            self._advance(source.prediction.tensor[:, k], None, state_in, state_out)

    def render(self, state: State, ahead: Sequence[int]) -> list[list[Image] | None]:
        """See :meth:`Engine.render`. Only bytes are downloaded."""
        with self._running():
            finite, shown = self._pictures[state].fetch()
        return [[row[k - 1] for k in ahead] if finite[i] else None for i, row in enumerate(shown)]

    def render_at(self, state: State, ahead: Sequence[float]) -> list[list[Image]]:
        """See :meth:`Engine.render_at`. Only bytes are downloaded."""
        rows: list[list[Image]] = [[] for _ in range(len(state.prediction.tensor))]
        with self._running():
            for seconds in ahead:
                self._draw(state, seconds)
                for row, pictures in zip(rows, self._pictures[state].fetch()[1], strict=True):
                    row.append(pictures[0])
        return rows

    def copy_row(self, source: Buffer, row: int, target: Buffer, to: int) -> None:
        """See :meth:`Engine.copy_row`. The copy stays on the device."""
        with self._running():
            target.tensor[to].copy_(source.tensor[row])

    def scattered(self, batch: State, row: int, state: State) -> None:
        """See :meth:`Engine.scattered`."""
        del batch, row  # the pictures are made of the prediction again
        with self._running():
            self._pictures[state].show(state.prediction.tensor)

    def _zero_rows(self, tensor: Buffer, rows: Sequence[int]) -> None:
        with self._running():
            tensor.tensor[list(rows)] = 0

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        self._phases.clear()
        self._draws.clear()
        self._inputs.clear()
        self._network = self._forward = None

    @contextmanager
    def _running(self) -> Iterator[None]:
        """The context that every call runs in.

        Raises:
            EngineError: the engine is closed, or torch failed, for instance because the device's memory is full.
        """
        if self._forward is None:
            raise EngineError(f"{self.manifest.config} is closed: load it again")
        with ExitStack() as stack:
            stack.enter_context(self._torch.inference_mode())
            if self._stream is not None:
                stack.enter_context(self._torch.cuda.stream(self._stream))
            try:
                yield
            except RuntimeError as error:
                raise EngineError(f"torch could not run {self.manifest.config}: {first_line(error)}") from error

    def _put(self, array: NDArray[Any]) -> Any:
        from framecast.runtime.engines.torch_pictures import Input

        key = (array.shape, array.dtype)
        if key not in self._inputs:
            self._inputs[key] = Input(array, self._device)
        return self._inputs[key].put(array)

    def _advance(self, source: Any, convert: Callable[[Any], Any] | None, state_in: State, state_out: State) -> None:
        """Run one step on ``source``. If ``convert`` is given, it first converts ``source`` to frames."""
        moments, batch = self.manifest.renders == "moments", len(source)
        elapsed = self._put(np.full(batch, self.since(state_out), np.float32)) if moments else None

        def bind(moment: Moment) -> Callable[[], None]:
            reads, writes = step_buffers(self.manifest, state_in, moment, state_out)
            # A separate tensor for each slot: torch.compile would treat slots that share the zero tensor as one input.
            views = {name: buffer.tensor.view(buffer.tensor.shape) for name, buffer in reads.items()}
            state = {name.removeprefix("state."): view for name, view in views.items()}
            targets = {name.removeprefix("next."): buffer.tensor for name, buffer in writes.items()}
            prediction, pictures = state_out.prediction.tensor, self._pictures[state_out]

            def run() -> None:
                with self._arithmetic():
                    frame = convert(source) if convert else source
                    if moments:
                        fields, written = self._network.perceive(frame, elapsed, state)
                        made = {**written, **{f"fields.{name}": value for name, value in fields.items()}}
                    else:
                        predicted, written = self._forward(frame, state)
                        made = {**written, "prediction": predicted}
                self._torch._foreach_copy_(list(targets.values()), [made[n] for n in targets])
                if not moments:
                    pictures.show(prediction)

            return self._captured(run) if self._graph else run

        self._phases.at(state_in, state_out, bind, source.data_ptr())()

    def _draw(self, state: State, ahead: float) -> None:
        """Render a moment of a model of motion, as the state's prediction and as pictures."""
        when = self._put(np.full(len(state.prediction.tensor), ahead, np.float32))
        if state not in self._draws:
            fields = field_buffers(self.manifest, state)
            given = {name.removeprefix("fields."): buffer.tensor for name, buffer in fields.items()}
            prediction, pictures = state.prediction.tensor, self._pictures[state]

            def run() -> None:
                with self._arithmetic():
                    prediction.copy_(self._network.render(given, when).unsqueeze(1))
                pictures.show(prediction)

            self._draws[state] = self._captured(run) if self._graph else run
        self._draws[state]()

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Apply the precision and the choice of kernels. On CUDA these are global, so threads enter one at a time."""
        if self._device.type != "cuda":
            yield
            return
        from framecast.kernels import switch
        from framecast.runtime.engines.torch_precision import exactly

        with CAPTURING, ExitStack() as stack:
            stack.enter_context(exactly(tf32=self.precision != "fp32"))
            if not self._kernels:
                stack.enter_context(switch.plain())
            if self._overlap:
                stack.enter_context(switch.overlapped())
            yield

    def _captured(self, run: Callable[[], None]) -> Callable[[], None]:
        """Capture ``run`` as a CUDA graph. Repeating it is safe, because it reads one state and writes another."""
        torch = self._torch
        with CAPTURING:
            for _ in range(WARM):
                run()
            graph = torch.cuda.CUDAGraph()
            # In thread-local mode other threads may allocate meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                run()
        return cast(Callable[[], None], graph.replay)


def layers_to_half(network: Any) -> None:
    """Make a network's convolutions and fully connected layers compute in float16, and nothing else.

    Their weights become float16, their inputs are rounded to float16, and their outputs are converted back to float32.
    Each conversion is a pass over memory, so outputs stay float16 where the network's ``halves`` allow it. Autocast
    would also run matrix products in half, but in a least-squares mixture these compute statistics.

    Args:
        network: a :class:`framecast.models.step.StepModel`, changed in place.
    """
    from torch import nn

    def rounded(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value.half() for value in inputs)

    def widened(_: Any, __: Any, output: Any) -> Any:
        return output.float()

    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.half()
            module.register_forward_pre_hook(rounded)
            if not re.fullmatch(network.halves, name):
                module.register_forward_hook(widened)
