"""Export of a network's step to one ONNX file."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from framecast.errors import ExportError
from framecast.export.functions import OPSET, function, translations
from framecast.graph.artifact import IR_VERSION, SCOPES
from framecast.graph.manifest import DOMAIN, KEY, RENDER, Manifest, Quality, StateSpec
from framecast.graph.patchify import fuse_patchify
from framecast.models.configs import CONFIGS, appearance
from framecast.models.step import MomentModel, StepModel


class _Flat(nn.Module):
    """The step with its state as positional arguments, in the order of ``init_state``."""

    def __init__(self, model: StepModel, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, frame: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        prediction, new = self.model(frame, dict(zip(self.names, state, strict=True)))
        return prediction, *(new[name] for name in (*self.model.state_shapes, *self.model.histories))


class _Perceive(nn.Module):
    """``MomentModel.perceive`` with its state as positional arguments, in the order of ``init_state``."""

    def __init__(self, model: MomentModel, names: list[str], made: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.made = made

    def forward(self, frame: Tensor, elapsed: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        fields, new = self.model.perceive(frame, elapsed, dict(zip(self.names, state, strict=True)))
        written = (new[name] for name in (*self.model.state_shapes, *self.model.histories))
        return *(fields[name] for name in self.made), *written


class _Render(nn.Module):
    """``MomentModel.render`` with its fields as positional arguments; the picture as a step's only prediction."""

    def __init__(self, model: MomentModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ahead: Tensor, *fields: Tensor) -> Tensor:
        return self.model.render(dict(zip(self.model.fields, fields, strict=True)), ahead).unsqueeze(1)


def weights_hash(model: nn.Module) -> str:
    """Return the SHA-256 of the names and bytes of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def describe(
    model: StepModel,
    config: str,
    changes: Mapping[str, Any] | None = None,
    *,
    weights: str = "random",
    licence: str = "Apache-2.0",
    interval: float | None = None,
    quality: Quality | None = None,
) -> Manifest:
    """Make the manifest of a network: from the network, its configuration, and the keyword arguments."""
    order, visible = appearance(config, model.frame_shape)
    carries = (StateSpec(name, shape) for name, shape in model.state_shapes.items())
    histories = (StateSpec(name, h.shape, "history", h.slots) for name, h in model.histories.items())
    return Manifest(
        model=type(model).__name__,
        config=config,
        frame=model.frame_shape,
        outputs=model.outputs,
        renders="moments" if isinstance(model, MomentModel) else "steps",
        fields=dict(model.fields) if isinstance(model, MomentModel) else {},
        state=(*carries, *histories),
        warmup=model.warmup,
        parameters=(parameters := sum(p.numel() for p in model.parameters())),
        weights=weights if parameters else "none needed",
        weights_sha256=weights_hash(model),
        licence=licence,
        interval=interval,
        quality=quality,
        channel_order=order,
        visible=visible,
        options={**(CONFIGS[config].options if config in CONFIGS else {}), **(changes or {})},
    )


def to_onnx(model: StepModel, manifest: Manifest) -> ModelProto:
    """Trace one step: inputs ``frame``, ``state.*``; outputs ``prediction``, ``next.*``; the batch size may vary.

    A model of motion also reads ``elapsed`` [B], in seconds, and returns ``fields.*`` instead of ``prediction``, except
    for fields that the state carries. :func:`to_render` traces the graph that makes pictures from the fields.

    Raises:
        ExportError: a weight is not finite, or the graph cannot be traced or is not valid.
    """
    for name, value in model.state_dict().items():
        if not value.isfinite().all():  # the runtime could miss it: a warp clamps values that are not finite
            raise ExportError(f"weights of {manifest.config} are not finite ({name}): train again, or use older ones")
    state = model.init_state(2)
    names = ["frame", *(name for spec in manifest.state for name in spec.inputs)]
    inputs = [torch.rand(2, *model.frame_shape), *state.values()]
    if isinstance(model, MomentModel):
        step: nn.Module = _Perceive(model, list(state), manifest.made_fields)
        names.insert(1, "elapsed")
        inputs.insert(1, torch.rand(2))
        made = [f"fields.{name}" for name in manifest.made_fields]
    else:
        step, made = _Flat(model.deployed(), list(state)), ["prediction"]
    proto = _traced(step, manifest, dict(zip(names, inputs, strict=True)), made + manifest.nexts, fixed=len(state))
    proto.doc_string = f"{manifest.config}: one step of {manifest.model}; see the metadata entry {KEY!r}"
    onnx.helper.set_model_props(proto, {KEY: manifest.to_json()})
    return proto


def to_render(model: MomentModel, manifest: Manifest) -> ModelProto:
    """Trace the rendering of a moment: inputs ``ahead`` [B], in seconds, and ``fields.*``; output ``prediction``.

    Raises:
        ExportError: the graph cannot be traced or is not valid.
    """
    fields = {f"fields.{name}": torch.rand(2, *shape) for name, shape in model.fields.items()}
    inputs = {"ahead": torch.rand(2), **fields}
    proto = _traced(_Render(model), manifest, inputs, ["prediction"], fixed=len(fields))
    proto.doc_string = f"{manifest.config}: the picture of a moment; see the metadata entry {RENDER!r}"
    onnx.helper.set_model_props(proto, {RENDER: manifest.to_json()})
    return proto


def _traced(
    module: nn.Module, manifest: Manifest, inputs: Mapping[str, Tensor], outputs: list[str], *, fixed: int
) -> ModelProto:
    """Trace a module, and check the graph. The last ``fixed`` inputs are passed as ``*args`` of its ``forward``."""
    training = module.training
    batch = torch.export.Dim("batch", min=1, max=64)
    own = len(inputs) - fixed
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=(*({0: batch} for _ in range(own)), tuple({0: batch} for _ in range(fixed))),
            custom_translation_table=translations(),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    module.train(training)
    if program is None:
        raise ExportError(f"cannot export {manifest.config}: torch.onnx failed; update torch and onnxscript")
    proto: ModelProto = program.model_proto
    fuse_patchify(proto)
    _forget_source(proto)
    proto.ir_version = min(proto.ir_version, IR_VERSION)
    used = {node.op_type for node in proto.graph.node if node.domain == DOMAIN}
    proto.functions.extend(function(name) for name in sorted(used))
    if DOMAIN not in {entry.domain for entry in proto.opset_import}:
        proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    proto.producer_name = "framecast"
    try:
        onnx.checker.check_model(proto, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the graph of {manifest.config} is not valid ONNX: {str(error).splitlines()[0]}") from error
    return proto


def _forget_source(proto: ModelProto) -> None:
    """Remove what torch's exporter notes about each node and value, but for the scopes, which ``inspect`` reads.

    The notes would take up to 0.2 MB of a small network's file, and contain paths of the machine that wrote it.
    """
    graph = proto.graph
    for node in graph.node:
        scopes = [entry for entry in node.metadata_props if entry.key == SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(scopes)
    for noted in (graph, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del noted.metadata_props[:]


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warnings of torch's exporter about itself (deprecations, missing torchvision)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
