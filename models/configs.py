"""Every configuration by name. This table needs no torch: a network is imported when it is built."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from framecast.errors import ArtifactError

if TYPE_CHECKING:
    from framecast.models.step import StepModel


@dataclass(frozen=True)
class Entry:
    """One configuration.

    Attributes:
        network: ``module:Class`` of the network.
        config: ``module:Class`` of its frozen config.
        options: what is set in that config.
        parameters: how many the network has and uses.
        about: one line for a list.
        parity: the largest error that an export may show over its check, in units of the value range.
    """

    network: str
    config: str
    options: Mapping[str, Any]
    parameters: int
    about: str
    parity: float = 1e-5


def _stip(parameters: int, about: str, **options: Any) -> Entry:
    return Entry("framecast.models.stip:STIP", "framecast.models.stip:STIPConfig", options, parameters, about)


CONFIGS: Mapping[str, Entry] = {
    "stip-ucf": _stip(17_913_860, "STIP as published for UCF Sports, 512×512", height=512, width=512, patch=2),
    "stip-h36m": _stip(17_932_112, "STIP as published for Human3.6M, 1024×1024", height=1024, width=1024, patch=4),
    "stip-4k": _stip(22_218_496, "STIP as published for SJTU4K, 3840×2176", height=2176, width=3840, patch=8),
    "stip-edge": Entry(
        "framecast.models.stip_edge:STIPEdge",
        "framecast.models.stip:STIPConfig",
        {"height": 192, "width": 256, "patch": 4, "layers": 3, "kernel": 3, "stages": 2, "bounded": True},
        1_941_128,
        "STGRU core around a motion prior, 256×192, for two CPU cores; not a published network",
        # On noise a warp turns the last bit of a flow into a grey value, and the flow itself is ill-conditioned there.
        parity=1e-3,
    ),
}


def find(name: str) -> Entry:
    """The configuration of that name.

    Raises:
        ArtifactError: there is none.
    """
    if name not in CONFIGS:
        raise ArtifactError(f"no configuration {name!r}: there are {', '.join(CONFIGS)}")
    return CONFIGS[name]


def build(name: str) -> StepModel:
    """The network of a configuration, with fresh random weights.

    Raises:
        ArtifactError: no such configuration.
    """
    entry = find(name)
    network, config = (_resolve(path) for path in (entry.network, entry.config))
    model: StepModel = network(config(**entry.options))
    return model


def _resolve(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
