"""The updates of a run: the network, the average of its weights, the optimizers, and a checkpoint of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from framecast.errors import FramecastError, OptionError
from framecast.models.step import State, StepModel
from framecast.training.batches import Batch
from framecast.training.discriminator import Discriminator
from framecast.training.objectives import (
    Objective,
    of_discriminator,
    over_sequences,
    over_streams,
    predict_sequences,
)
from framecast.training.recipes import Recipe, length_of_sequences, scale_of_rate, share_of_truth
from framecast.training.view import to_values

PATIENCE = 20  # failed updates in a row that end the run
_AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True)
class Made:
    """The result of one update.

    Attributes:
        loss: loss before the update.
        parts: terms of the loss by name.
        lr: learning rate.
        norm: norm of the gradient before clipping.
        finite: whether loss and gradient were finite. If not, the weights did not change, and the streams are reset.
    """

    loss: float
    parts: dict[str, float]
    lr: float
    norm: float
    finite: bool


class Trainer:
    """Everything that an update changes.

    Attributes:
        average: network with the average of the weights, in ``eval`` mode; this is the result.
        updates: number of updates so far.
        skipped: number of batches whose loss or gradient was not finite.

    Args:
        model: the network to train, on its device.
        recipe: recipe of the training.

    Raises:
        OptionError: this device does not support the precision, or the network cannot have averaged weights.
    """

    def __init__(self, model: StepModel, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.device = next(model.parameters()).device
        if recipe.ema and any(isinstance(part, nn.BatchNorm2d) for part in model.modules()):
            # They would have the newest weights' statistics: tau-mini's MSE was 122 with those, and 82 with its own.
            raise OptionError(
                "averaged weights do not fit batch norms' statistics: choose --recipe tau-openstl or mini"
            )
        if recipe.precision == "fp16" and self.device.type != "cuda":
            raise OptionError("fp16 needs CUDA: choose --precision bf16 or fp32")
        self.averaged = AveragedModel(model, multi_avg_fn=_follow(recipe.ema))
        self.averaged.eval()
        self.discriminator = _discriminator(model, recipe).to(self.device) if recipe.gan else None
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        self.optimizers = [kind(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)]
        if self.discriminator is not None:
            self.optimizers.append(torch.optim.Adam(self.discriminator.parameters(), lr=recipe.discriminator_lr))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        self.state: State | None = None
        self.updates = self.skipped = self.in_row = 0

    @property
    def average(self) -> StepModel:
        """The averaged network."""
        return cast(StepModel, self.averaged.module)

    def update(self, batch: Batch, done: float) -> Made:
        """Make one update, unless loss or gradient is not finite.

        Args:
            batch: a batch of the footage.
            done: share of the run that is done, for its schedules.

        Raises:
            FramecastError: this is the 20th failed update in a row.
        """
        recipe = self.recipe
        factor, beta = scale_of_rate(recipe, self.updates, done)
        for optimizer, height in zip(self.optimizers, (recipe.lr, recipe.discriminator_lr), strict=False):
            for group in optimizer.param_groups:
                group["lr"], group["betas"] = height * factor, (beta, group["betas"][1])
        taken = batch.frames if isinstance(batch.frames, Tensor) else torch.from_numpy(batch.frames)
        frames = to_values(taken.to(self.device).permute(0, 1, 4, 2, 3))
        objective, checked = self._objective(frames, torch.from_numpy(batch.starts).to(self.device), done)
        norm = self._backward(self.optimizers[0], objective.loss)
        finite = bool(torch.stack([objective.loss.detach(), norm, *checked]).isfinite().all())
        if finite:
            self._step(objective.state)
        else:
            self._undo(objective)
        self.scaler.update()
        parts = {name: float(value) for name, value in objective.parts.items()}
        return Made(float(objective.loss.detach()), parts, recipe.lr * factor, float(norm), finite)

    def _objective(self, frames: Tensor, starts: Tensor, done: float) -> tuple[Objective, list[Tensor]]:
        """Return the network's objective, and further values that must be finite.

        The discriminator learns first, and judges after that: see STIP, Algorithm 1, and its released code.
        """
        if self.recipe.batching == "streams":
            with self._autocast():
                return over_streams(self.model, self.recipe, frames, starts, self.state), []
        with self._autocast():
            truth = share_of_truth(self.recipe, done)
            frames = frames[: length_of_sequences(self.recipe, done)]
            predicted, wanted = predict_sequences(self.model, self.recipe, frames, truth)
        judged = self._judge(predicted, wanted)
        with self._autocast():  # a second time, because autocast keeps copies of weights
            objective = over_sequences(self.recipe, predicted, wanted, self.discriminator)
        if judged:
            objective.parts["discriminator"] = judged[0]
        return objective, judged

    def _judge(self, predicted: Tensor, wanted: Tensor) -> list[Tensor]:
        """Make the discriminator's update, unless its loss or gradient is not finite; return both."""
        if self.discriminator is None:
            return []
        with self._autocast():
            loss = of_discriminator(self.discriminator, predicted, wanted)
        judged = [loss.detach(), self._backward(self.optimizers[1], loss)]
        if torch.stack(judged).isfinite().all():
            self.scaler.step(self.optimizers[1])
        return judged

    def _autocast(self) -> torch.autocast:
        kind = self.recipe.precision
        return torch.autocast(self.device.type, _AUTOCAST[kind], enabled=kind != "fp32")

    def _backward(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
        """Compute the gradients, and clip the network's if the recipe says so; return their norm before clipping."""
        optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(optimizer)
        clip = self.recipe.clip_norm if optimizer is self.optimizers[0] and self.recipe.clip_norm else torch.inf
        return nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)

    def _step(self, state: State | None) -> None:
        self.scaler.step(self.optimizers[0])
        self.averaged.update_parameters(self.model)
        self.state = state
        self.updates += 1
        self.in_row = 0

    def _undo(self, objective: Objective) -> None:
        """Remove every trace of a failed batch from the network. The discriminator learnt only from finite frames."""
        # If only the scaled gradient overflowed, as fp16 does now and then, the streams' state is still good.
        overflowed = self.scaler.is_enabled() and bool(objective.loss.isfinite())
        self.state = objective.state if overflowed else None
        self.skipped += 1
        self.in_row += 1
        for buffer, kept in zip(self.model.buffers(), self.average.buffers(), strict=True):
            buffer.copy_(kept)  # the batch may have changed the statistics of batch normalisation
        if self.in_row == PATIENCE:
            raise FramecastError(
                f"the loss was not finite {PATIENCE} times in a row, after {self.updates} updates: start another run "
                "with a lower --lr or --precision fp32; the last checkpoint is unchanged"
            )

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """Yield the parts that have their own state dict."""
        yield "model", self.model
        yield "average", self.averaged
        yield "scaler", self.scaler
        if self.discriminator is not None:
            yield "discriminator", self.discriminator
        for index, optimizer in enumerate(self.optimizers):
            yield f"optimizer {index}", optimizer

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next update depends on, except its batch, as dicts and lists of tensors and numbers."""
        return {
            **{name: part.state_dict() for name, part in self._parts()},
            "state": self.state,
            "counters": [self.updates, self.skipped, self.in_row],
            "generators": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()],
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from the result of :meth:`state_dict`, with the same recipe."""
        for name, part in self._parts():
            part.load_state_dict(saved[name])
        state = saved["state"]
        self.state = None if state is None else {name: value.to(self.device) for name, value in state.items()}
        self.updates, self.skipped, self.in_row = map(int, saved["counters"])
        torch.set_rng_state(saved["generators"][0])
        if len(saved["generators"]) == 1 + torch.cuda.device_count():
            torch.cuda.set_rng_state_all(saved["generators"][1:])


def _discriminator(model: StepModel, recipe: Recipe) -> Discriminator:
    channels, height, width = model.frame_shape
    patch = getattr(getattr(model, "config", None), "patch", 1)
    return Discriminator(height, width, channels, patch, recipe.discriminator_activation)


def _follow(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """Return the update of an exponential moving average.

    As in TensorFlow's ``ExponentialMovingAverage``, a young average follows faster. With 0.999 from the start, 60 % of
    the average after 500 updates would be the weights of the first one.
    """

    @torch.no_grad()
    def update(average: _Tensors, current: _Tensors, count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(average, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update
