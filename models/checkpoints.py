"""The authors' released checkpoints, read strictly, into our networks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framecast.errors import ArtifactError
from framecast.models.step import StepModel

OTHER = "(another configuration, or other --set options?)"
PREFIXES = ("model.", "module.")  # of OpenSTL's Lightning module, of DataParallel


@dataclass(frozen=True)
class Checkpoint:
    """What a file held.

    Attributes:
        tensors: ours, by our names, in float32.
        unused: the file's keys that no computation of the released network reads: they were left out.
    """

    tensors: Mapping[str, Tensor]
    unused: tuple[str, ...]


def read_checkpoint(path: Path, model: StepModel, config: str) -> Checkpoint:
    """Read a released checkpoint of STIP, STAU or MAU (STIPHR, STAU, MAU), or of OpenSTL's TAU or MAU.

    The file is read as plain tensors, so that it cannot run code. Every key must be known, every parameter present, and
    every shape right.

    Args:
        path: of the file: a state dict, bare, under ``net_param``, or under ``state_dict`` as Lightning keeps it.
        model: the network whose weights it should hold; may be on the meta device.
        config: the configuration's name, for messages.

    Raises:
        ArtifactError: the file cannot be read, or does not hold exactly this network's weights.
    """
    kind = type(model).__name__
    if not model.released:
        raise ArtifactError(f"no checkpoint of {config} was ever released: there is no format of it to import")
    unfit = f"{path} does not hold weights of {config}"
    own = model.state_dict()
    tensors: dict[str, Tensor] = {}
    unused: list[str] = []
    content = _state_dict(path)
    prefix = next((p for p in PREFIXES if all(key.startswith(p) for key in content)), "")
    for key, value in content.items():
        name = _rename(key.removeprefix(prefix), model)
        if name is None:
            unused.append(key)
            continue
        if name not in own or not isinstance(value, Tensor):
            raise ArtifactError(f"{unfit}: {key!r} is no key of a released {kind} (another network?)")
        if name in tensors:
            raise ArtifactError(f"{unfit}: {key!r} gives {name} a second time")
        found, want = list(value.shape), list(own[name].shape)
        if value.is_floating_point() != own[name].is_floating_point():
            raise ArtifactError(f"{unfit}: {key!r} holds {value.dtype}")
        if not value.isfinite().all():
            raise ArtifactError(f"{path} holds weights that are not finite: {key!r}; download it again")
        if found[2:] == [2, 1, 1] and len(want) == 4:  # a Conv3d over two frames, here in the channels: one, the next
            value = value.permute(0, 2, 1, 3, 4).flatten(1, 2)
        if list(value.shape) != want:
            raise ArtifactError(f"{unfit}: {key!r} has shape {found}, {want} is needed {OTHER}")
        tensors[name] = value.float() if value.is_floating_point() else value
    if missing := sorted(own.keys() - tensors.keys()):
        rest = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ArtifactError(f"{unfit}: nothing in it gives {missing[0]}{rest} {OTHER}")
    return Checkpoint(tensors, tuple(unused))


def _rename(key: str, model: StepModel) -> str | None:
    """Our name of a released key; None where it is unused, and empty where it is not known."""
    for pattern, replacement in model.released:
        if match := re.fullmatch(pattern, key):
            return match.expand(replacement) if replacement is not None else None
    return ""


def _state_dict(path: Path) -> dict[str, Any]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error} (give the path of a checkpoint)") from error
    try:
        with file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other kinds of files, beside the error
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch raise anything, IndexError and struct.error too
        raise ArtifactError(
            f"{path} is no checkpoint of plain tensors: "
            "download it again, or save its state_dict() alone with torch.save"
        ) from error
    for holder in ("net_param", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(holder), dict):
            content = content[holder]
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        raise ArtifactError(
            f"{path} holds no state dict (bare, 'net_param' or 'state_dict'): give the model's checkpoint"
        )
    return content
