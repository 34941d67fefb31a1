"""What a training run is told, and the network that comes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framecast.errors import EngineError, FramecastError, OptionError
from framecast.models.configs import build
from framecast.models.step import StepModel
from framecast.models.tau import TAU
from framecast.training.recipes import Recipe


@dataclass(frozen=True)
class Settings:
    """What a run is told; see ``framecast train --help``.

    Attributes:
        options: of the configuration, where they are changed.
        name: of the recipe.
        minutes: of wall time, scoring included, all sessions together; None to count updates.
        every: minutes between checkpoints.
        start: name, SHA-256 and tensors of the weights to begin with.
        command: by which it was called.
    """

    config: str
    data: Path
    out: Path
    options: Mapping[str, Any]
    name: str
    recipe: Recipe
    cache: Path
    val: Path | None = None
    minutes: float | None = None
    every: float = 15
    seed: int = 1
    device: str = "auto"
    licence: str = "unknown"
    resume: bool = False
    start: tuple[str, str, Mapping[str, Tensor]] | None = None
    command: str = ""

    def __post_init__(self) -> None:
        for name in ("minutes", "every"):
            if (value := getattr(self, name)) is not None and not 0 < value < float("inf"):
                raise OptionError(f"{name} must be above 0, not {value}")
        if not 0 <= self.seed < 2**32:
            raise OptionError(f"seed must be from 0 to {2**32 - 1}, not {self.seed}")


def network(settings: Settings) -> tuple[StepModel, StepModel | None, Recipe]:
    """The network where it is trained, the one that sees whole frames if that sees crops, and the recipe as it fits.

    Raises:
        OptionError: it is to be trained on crops, and cannot be.
    """
    device, recipe = _device(settings.device), settings.recipe

    def built(options: Mapping[str, Any]) -> StepModel:
        torch.manual_seed(settings.seed)
        return build(settings.config, options)

    model, whole = built(settings.options), None
    if recipe.crop:
        whole, model = model, built({**settings.options, "height": recipe.crop, "width": recipe.crop})
        shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in (whole, model)]
        if shapes[0] != shapes[1]:
            raise OptionError(
                f"{settings.config} is bound to the size of its frames, recipe {settings.name} trains on crops: "
                "choose another --recipe"
            )
        whole = whole.to(device).eval()
    if isinstance(model, TAU) and recipe.batching == "sequences":  # it takes T frames at once, and gives T
        frames = model.config.frames
        model = built({**settings.options, "outputs": frames})  # no weight depends on it
        recipe = dataclasses.replace(recipe, given=frames, predicted=frames)
    if settings.start is not None:
        model.load_state_dict(dict(settings.start[2]))
    return model.to(device).train(), whole, recipe


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise OptionError(f"--device must be auto, cpu or cuda, not {name}")
    if name == "cuda" and not torch.cuda.is_available():
        raise EngineError("torch finds no CUDA device: leave out --device, or install a torch with CUDA and its driver")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def enough_memory(settings: Settings) -> Iterator[None]:
    """Say what to lower where memory runs out.

    Raises:
        FramecastError: it ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = ("not enough memory", "can't allocate memory")  # torch's, of the CPU
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(w in str(error) for w in words):
            raise
        recipe = settings.recipe
        long = "unroll" if recipe.batching == "streams" else "frames"
        count = recipe.unroll if recipe.batching == "streams" else recipe.frames
        raise FramecastError(
            f"out of memory with {settings.config} at batch {recipe.batch} and {count} {long}: lower --batch, "
            "take --precision bf16, or make the network smaller with --set"
        ) from error
