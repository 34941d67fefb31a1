"""The objective of an update over streams, sequences or clips, and STIP's adversary."""

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
    """The result of one forward pass.

    Attributes:
        loss: a scalar with a gradient.
        parts: the unweighted terms of the loss, and other values for the log.
        state: the streams' state, detached.
        adversary: the discriminator's loss with a gradient; None without a discriminator.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    state: State | None = None
    adversary: Tensor | None = None


def over_streams(model: StepModel, recipe: Recipe, frames: Tensor, starts: Tensor, state: State | None) -> Objective:
    """Return the loss of each next frame over a stretch of streams, for truncated back-propagation.

    At the start of an episode the state is reset, and the prediction does not count.

    Args:
        model: the network to train.
        recipe: names the loss.
        frames: [T+1, B, C, H, W], 0 to 1.
        starts: [T+1, B].
        state: state after the previous stretch; None before the first frame.
    """
    state = state or model.init_state(frames.shape[1])
    total = frames.new_zeros(())
    for t in range(len(frames) - 1):
        keep = (~starts[t]).float()
        state = {name: value * keep.view(-1, *[1] * (value.dim() - 1)) for name, value in state.items()}
        prediction, state = model.step(frames[t], state)
        total = total + ((~starts[t + 1]) * _per_sample(recipe, prediction[:, 0], frames[t + 1])).mean()
    loss = total / (len(frames) - 1)
    return Objective(loss, {recipe.loss: loss.detach()}, {name: value.detach() for name, value in state.items()})


def _per_sample(recipe: Recipe, prediction: Tensor, truth: Tensor) -> Tensor:
    """Return the loss per sample, [B], of two [B, C, H, W]."""
    if recipe.loss == "log_mse":
        return losses.log_mse(prediction, truth)
    return (prediction.float() - truth).square().flatten(1).mean(1)


def over_sequences(
    model: StepModel, recipe: Recipe, frames: Tensor, truth: float, discriminator: Discriminator | None
) -> Objective:
    """Return the loss of whole sequences, [T, B, C, H, W], each from a zero state.

    For a recurrent network all T − 1 next frames count. For TAU only the frames after the given ones count, because it
    takes all given frames at once. With a discriminator this is one iteration of STIP's Algorithm 1: first the
    network's loss with the current discriminator, then the discriminator's loss. (In the released code the
    discriminator steps first.)

    Args:
        model: the network to train.
        recipe: names the loss and the weights of its terms.
        frames: values from 0 to 1.
        truth: probability that an input after the given ones is the true frame; see :func:`next_frames`.
        discriminator: its own loss is returned as the objective's ``adversary``.
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
        discriminator.requires_grad_(False)  # the network's loss must not train it
        scores, features = discriminator(predicted)
        parts["perceptual"] = losses.learned_perceptual(features, real_features.detach())
        parts["adversarial"] = losses.adversarial(scores)
        loss = loss + recipe.perceptual * parts["perceptual"] + recipe.adversarial * parts["adversarial"]
        discriminator.requires_grad_(True)
        adversary = losses.discrimination(real_scores, discriminator(predicted.detach())[0])
        parts["discriminator"] = adversary
    return Objective(loss, {name: value.detach() for name, value in parts.items()}, adversary=adversary)


def next_frames(model: StepModel, frames: Tensor, given: int, truth: float) -> Tensor:
    """Predict every next frame of sequences [T, B, C, H, W] from a zero state, [B, T−1, C, H, W].

    With scheduled sampling, each sample's input after the ``given`` ones is the true frame with probability ``truth``.
    Otherwise it is the network's own prediction of that frame, not clamped and with its gradient. The draws use torch's
    CPU generator.
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
    """Predict T frames after T frames, [T, B, C, H, W] to [B, K, C, H, W], as in TAU's training: without a state."""
    embeddings, skips = model.encode(frames.flatten(0, 1))
    steps = len(frames)
    return model.predict(list(embeddings.chunk(steps)), list(skips.chunk(steps)))
