"""What an update minimises: over streams, over sequences, over clips; and STIP's adversary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from framecast.models.step import State, StepModel
from framecast.models.tau import TAU
from framecast.training import losses
from framecast.training.discriminator import Discriminator
from framecast.training.recipes import Recipe


@dataclass(frozen=True, eq=False)
class Objective:
    """What one forward pass gave.

    Attributes:
        loss: a scalar, with its gradient.
        parts: its terms before they are weighted, and whatever else belongs in the log.
        state: of streams, detached.
        adversary: the discriminator's own loss, with its gradient, where there is one.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    state: State | None = None
    adversary: Tensor | None = None


def over_streams(model: StepModel, recipe: Recipe, frames: Tensor, starts: Tensor, state: State | None) -> Objective:
    """The loss of each next frame over a stretch of streams, by truncated back-propagation.

    Where an episode starts nothing is foreseen, and the state is reset.

    Args:
        model: that is trained.
        recipe: names the loss.
        frames: [T+1, B, C, H, W], 0 to 1.
        starts: [T+1, B].
        state: that the last stretch left; None for that before a first frame.
    """
    state = state or model.init_state(frames.shape[1])
    total = frames.new_zeros(())
    for t in range(len(frames) - 1):
        keep = (~starts[t]).float()
        state = {name: value * keep.view(-1, *[1] * (value.dim() - 1)) for name, value in state.items()}
        prediction, state = model.step(frames[t], state)
        total = total + ((~starts[t + 1]) * _per_sample(recipe, prediction[:, 0], frames[t + 1])).mean()
        if t == 0 and recipe.rollout:
            total = total + _over_rollout(model, recipe, frames[2:], starts[1:], prediction, state)
    loss = total / (len(frames) - 1 + recipe.rollout)
    return Objective(loss, {recipe.loss: loss.detach()}, {name: value.detach() for name, value in state.items()})


def _over_rollout(
    model: StepModel, recipe: Recipe, frames: Tensor, starts: Tensor, prediction: Tensor, state: State
) -> Tensor:
    """The sum of the losses of a branch: ``frames[k]`` is foreseen from a prediction of the one before it."""
    total = frames.new_zeros(())
    for k in range(recipe.rollout):
        branch = {name: value.detach() for name, value in state.items()}
        prediction, state = model.step(prediction[:, 0].detach(), branch)
        foreseen = ~starts[: k + 2].any(dim=0)
        total = total + (foreseen * _per_sample(recipe, prediction[:, 0], frames[k])).mean()
    return total


def _per_sample(recipe: Recipe, prediction: Tensor, truth: Tensor) -> Tensor:
    """[B, C, H, W] each, to [B]."""
    if recipe.loss == "log_mse":
        return losses.log_mse(prediction, truth)
    return (prediction.float() - truth).square().flatten(1).mean(1)


def over_sequences(
    model: StepModel, recipe: Recipe, frames: Tensor, truth: float, discriminator: Discriminator | None
) -> Objective:
    """The loss of whole sequences, [T, B, C, H, W], each from a zero state.

    A recurrent network is held to all T − 1 next frames, TAU to the frames after those that it is given at once.
    With a discriminator this is one turn of STIP's Algorithm 1: the network's loss, by the discriminator as it is, then
    the discriminator's. (The released code lets the discriminator step first.)

    Args:
        model: that is trained.
        recipe: names the loss, and weighs its terms.
        frames: 0 to 1.
        truth: how likely an input after the given ones is true: see :func:`next_frames`.
        discriminator: its own loss comes back as the objective's ``adversary``.
    """
    if isinstance(model, TAU):
        predicted = predict_clip(model, frames[: recipe.given])[:, : recipe.predicted]
    else:
        predicted = next_frames(model, frames, recipe.given, truth)
    wanted = frames[-predicted.shape[1] :].transpose(0, 1)  # [B, T', C, H, W]
    if recipe.loss == "mse":
        loss = losses.mse(predicted, wanted)
    else:
        loss = losses.log_mse(predicted.flatten(0, 1), wanted.flatten(0, 1)).mean()
    parts: dict[str, Tensor] = {recipe.loss: loss}
    if recipe.ddr:
        parts["ddr"] = losses.differential_divergence(predicted, wanted, reduction=recipe.ddr_reduction)
        loss = loss + recipe.ddr * parts["ddr"]
    adversary = None
    if discriminator is not None:
        real_scores, real_features = discriminator(wanted)
        discriminator.requires_grad_(False)  # the network's loss teaches it nothing
        scores, features = discriminator(predicted)
        parts["perceptual"] = losses.learned_perceptual(features, real_features.detach())
        parts["adversarial"] = losses.adversarial(scores)
        loss = loss + recipe.perceptual * parts["perceptual"] + recipe.adversarial * parts["adversarial"]
        discriminator.requires_grad_(True)
        adversary = losses.discrimination(real_scores, discriminator(predicted.detach())[0])
        parts["discriminator"] = adversary
    return Objective(loss, {name: value.detach() for name, value in parts.items()}, adversary=adversary)


def next_frames(model: StepModel, frames: Tensor, given: int, truth: float) -> Tensor:
    """Every next frame of sequences [T, B, C, H, W] from a zero state, [B, T−1, C, H, W].

    Scheduled sampling: each input after the ``given`` ones, of each sample, is the true frame with probability
    ``truth``, and else what the network had predicted for it, unclamped and with its gradient. Draws from torch's
    generator of the CPU.
    """
    state = model.init_state(frames.shape[1])
    drawn = torch.rand(len(frames) - 1, frames.shape[1]) < truth
    predicted: list[Tensor] = []
    for t in range(len(frames) - 1):
        frame = frames[t]
        if t >= given:
            frame = torch.where(drawn[t].to(frame.device)[:, None, None, None], frame, predicted[-1].to(frame.dtype))
        prediction, state = model.step(frame, state)
        predicted.append(prediction[:, 0])
    return torch.stack(predicted, dim=1)


def predict_clip(model: TAU, frames: Tensor) -> Tensor:
    """The T frames after T frames, [T, B, C, H, W] to [B, K, C, H, W]: as TAU was trained, with no state."""
    embeddings, skips = model.encode(frames.flatten(0, 1))
    steps = len(frames)
    return model.predict(list(embeddings.chunk(steps)), list(skips.chunk(steps)))
