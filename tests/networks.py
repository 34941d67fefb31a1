"""Small networks of every kind, with every option, for the tests that every network must pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from framecast.models.astm import ASTM, ASTMConfig
from framecast.models.configs import build
from framecast.models.edge import Edge, EdgeConfig
from framecast.models.stau import MAU, STAU, MAUConfig, STAUConfig
from framecast.models.step import StepModel
from framecast.models.stip import STIP, STIPConfig
from framecast.models.tau import TAU, TAUConfig


def _stip(**options: Any) -> STIP:
    sizes = {"height": 32, "width": 48, "patch": 2, "hidden": 8, "layers": 3, "stages": 2}
    return STIP(STIPConfig(**{**sizes, **options}))


def _stau(**options: Any) -> STAU:
    sizes = {"height": 24, "width": 32, "channels": 3, "hidden": 6, "layers": 6, "stages": 2}
    return STAU(STAUConfig(**{**sizes, **options}))


def _astm(**options: Any) -> ASTM:
    sizes = {"height": 16, "width": 24, "channels": 1, "patch": 2, "hidden": 4, "layers": 3}
    return ASTM(ASTMConfig(**{**sizes, **options}))


def _tau(**options: Any) -> TAU:
    sizes = {"height": 16, "width": 24, "channels": 3, "frames": 5, "hidden_spatial": 8, "hidden_temporal": 16}
    return TAU(TAUConfig(**{**sizes, "encoder_layers": 4, "translator_layers": 3, **options}))


NETWORKS: dict[str, Callable[[], StepModel]] = {
    "stip": _stip,
    "stip-paper": lambda: _stip(forget_bias=0.0, swapped=False, first_skip=True),
    "stip-without-sted": lambda: _stip(sted=False),
    "stip-without-mgir": lambda: _stip(mgir=False),
    "stip-bounded": lambda: _stip(bounded=True),
    "stip-edge": lambda: build("stip-edge"),
    "stau": _stau,
    "stau-residual-recall": lambda: _stau(residual=True, recall=True, patch=2, stages=1, layers=3),
    "stau-unscaled": lambda: _stau(
        scaled=False, hidden=4, width=16, layers=3
    ),  # unscaled scores grow with the state, and so do rounding errors
    "stau-tau-theta": lambda: _stau(tau=4, theta=2, layers=4),
    "stau-without-tam": lambda: _stau(temporal_attention=False, layers=3),
    "stau-without-both": lambda: _stau(temporal_attention=False, spatial_attention=False, layers=3),
    "mau": lambda: MAU(MAUConfig(height=16, width=16, channels=1, hidden=6, layers=2, stages=1)),
    "astm": _astm,
    "astm-tau": lambda: _astm(tau=2, stages=1, channels=3),
    "astm-without-eifag": lambda: _astm(eifag=False),
    "tau": _tau,
    "tau-block": lambda: _tau(outputs=3),
    "tau-clip": lambda: _tau(outputs=5, channels=1),
    "tau-without-sa": lambda: _tau(spatial_attention=False),
    "tau-without-da": lambda: _tau(dynamical_attention=False),
    "tau-transpose": lambda: _tau(upsample="transpose", encoder_layers=2),
}


SMALL_EDGE = {"height": 64, "width": 96, "reach": 2}


def small_edge() -> Edge:
    """edge for small pictures, as graphs. It has no weights and renders any moment, so it is not in ``NETWORKS``."""
    return Edge(EdgeConfig(**SMALL_EDGE)).eval()


def make(name: str) -> StepModel:
    """A network in ``eval`` mode with random weights. Weights that are zero before training are random, too."""
    model = NETWORKS[name]().eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
        elif name != "stip-edge" and parameter.dim() == 1:  # biases and norms: an error in any of them must show
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.2)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics as after training
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return model
