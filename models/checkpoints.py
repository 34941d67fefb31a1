"""Reads the authors' released checkpoints into our networks, and rejects any that do not match exactly."""

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
from framecast.models.configs import CONFIGS
from framecast.models.step import StepModel

PREFIXES = ("model.", "module.")  # from OpenSTL's Lightning module, and from DataParallel


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file.

    Attributes:
        tensors: tensors of our network by our names; floating-point tensors are float32.
        unused: keys of the file that the released network stores but never uses; they are left out.
    """

    tensors: Mapping[str, Tensor]
    unused: tuple[str, ...]


def read_checkpoint(path: Path, model: StepModel, config: str) -> Checkpoint:
    """Read a released checkpoint of STIP, STAU or MAU (STIPHR, STAU, MAU), or of OpenSTL's TAU or MAU.

    The file is read as plain tensors, so that it cannot run code. Every key must be known, every parameter must be
    present, and every shape must match.

    Args:
        path: file with a state dict: bare, under ``net_param``, or under ``state_dict`` as Lightning stores it.
        model: network that the weights should fit; it may be on the meta device.
        config: name of the configuration, for messages.

    Raises:
        ArtifactError: the file cannot be read, or does not hold exactly this network's weights.
    """
    kind = type(model).__name__
    if not model.released:
        raise ArtifactError(f"cannot import weights of {config}: no checkpoint was ever released for it")
    unfit = f"{path} does not hold weights of {config}"
    check = _check(config)
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
            raise ArtifactError(f"{unfit}: {key!r} is not a key of a released {kind} {check}")
        if name in tensors:
            raise ArtifactError(f"{unfit}: {key!r} and another key both stand for {name}")
        found, want = list(value.shape), list(own[name].shape)
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            raise ArtifactError(f"{unfit}: {key!r} is not a plain tensor (save its state_dict() again)")
        if value.is_floating_point() != own[name].is_floating_point():
            raise ArtifactError(f"{unfit}: {key!r} has type {value.dtype}, not {own[name].dtype}")
        if found[2:] == [2, 1, 1] and len(want) == 4:  # Conv3d over two frames, which we stack as channels
            value = value.permute(0, 2, 1, 3, 4).flatten(1, 2)
        if list(value.shape) != want:
            raise ArtifactError(f"{unfit}: {key!r} has shape {found}, not {want} {check}")
        if not value.isfinite().all():  # a file may name a shape of any size: it fits by now
            raise ArtifactError(f"{path} has weights that are not finite ({key!r}): download it again")
        tensors[name] = value.float() if value.is_floating_point() else value
    if missing := sorted(own.keys() - tensors.keys()):
        rest = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ArtifactError(f"{unfit}: it lacks {missing[0]}{rest} {check}")
    return Checkpoint(tensors, tuple(unused))


def _check(config: str) -> str:
    """Return what to check if a file does not fit a configuration."""
    if config in CONFIGS and (released := CONFIGS[config].released):
        options = " ".join(f"--set {name}={value}" for name, value in released.items())
        return f"(the checkpoint released for {config} needs {options})"
    return "(check the configuration and the --set options: is it another network's?)"


def _rename(key: str, model: StepModel) -> str | None:
    """Return our name for a released key: None if the key is unused, empty if it is unknown."""
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
            warnings.simplefilter("ignore")  # torch would also warn about other kinds of files; our error is enough
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch may raise anything for damaged bytes, even IndexError
        raise ArtifactError(
            f"{path} is not a checkpoint of plain tensors: "
            "download it again, or save only its state_dict() with torch.save"
        ) from error
    for holder in ("net_param", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(holder), dict):
            content = content[holder]
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        raise ArtifactError(
            f"{path} has no state dict (bare, in 'net_param' or in 'state_dict'): give the model's checkpoint"
        )
    return content
