"""The settings of a training run, and the network for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from framecast.errors import EngineError, FramecastError, OptionError
from framecast.models.configs import build
from framecast.models.step import StepModel
from framecast.models.tau import TAU
from framecast.training.recipes import Recipe


class Start(NamedTuple):
    """Weights to start from.

    Attributes:
        name: name of the file.
        sha256: its SHA-256.
        made: how they were made, as the file says.
        tensors: the weights.
    """

    name: str
    sha256: str
    made: str
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """Settings of a run; see ``framecast train --help``.

    Attributes:
        options: changed options of the configuration.
        name: name of the recipe.
        minutes: wall time of all sessions together, including scoring; None if the number of updates ends the run.
        every: minutes between checkpoints.
        layout: layout of the data set in ``data`` and in ``val``; None for videos, digits or traffic.
        start: initial weights; None for random ones.
        command: the command line of the run.
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
    layout: str | None = None
    device: str = "auto"
    licence: str = "unknown"
    resume: bool = False
    start: Start | None = None
    command: str = ""

    def __post_init__(self) -> None:
        for name in ("minutes", "every"):
            if (value := getattr(self, name)) is not None and not 0 < value < float("inf"):
                raise OptionError(f"{name} must be above 0, not {value}")
        if not 0 <= self.seed < 2**32:
            raise OptionError(f"seed must be from 0 to {2**32 - 1}, not {self.seed}")


def network(settings: Settings) -> tuple[StepModel, Recipe]:
    """Return the network on its device, and the adapted recipe.

    Raises:
        OptionError: no network can be built with these options.
        EngineError: there is no CUDA device.
    """
    device, recipe = _device(settings.device), settings.recipe

    def built(options: Mapping[str, Any]) -> StepModel:
        torch.manual_seed(settings.seed)
        return build(settings.config, options)

    model = built(settings.options)
    if isinstance(model, TAU) and recipe.batching == "sequences":  # TAU takes T frames at once and predicts T
        frames = model.config.frames
        predicted = recipe.predicted if recipe.given == frames else frames
        model = built({**settings.options, "outputs": min(predicted, frames)})  # no weight depends on ``outputs``
        recipe = dataclasses.replace(recipe, given=frames, predicted=predicted)
    if settings.start is not None:
        model.load_state_dict(dict(settings.start.tensors))
    return model.to(device).train(), recipe


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise OptionError(f"--device must be auto, cpu or cuda, not {name}")
    if name == "cuda" and not torch.cuda.is_available():
        raise EngineError("torch finds no CUDA device: leave out --device, or install the driver and a torch with CUDA")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def enough_memory(settings: Settings) -> Iterator[None]:
    """Turn an out-of-memory error into a message that says what to lower.

    Raises:
        FramecastError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = ("not enough memory", "can't allocate memory")  # torch's messages on the CPU
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(w in str(error) for w in words):
            raise
        recipe = settings.recipe
        long = "unroll" if recipe.batching == "streams" else "frames"
        count = recipe.unroll if recipe.batching == "streams" else recipe.frames
        raise FramecastError(
            f"out of memory with {settings.config} at batch {recipe.batch} and {count} {long}: lower --batch, "
            "use --precision bf16, or make the network smaller with --set"
        ) from error
